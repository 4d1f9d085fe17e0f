"""Messages on either side of a conversion."""

from __future__ import annotations

from gateway.protocols.codec import ProtocolCodec
from gateway.protocols.messages.answer import signature_of
from gateway.protocols.messages.reader import MessagesReader
from gateway.protocols.messages.refusal_text import RefusalText
from gateway.protocols.messages.request import asked, read_request, write_request
from gateway.protocols.messages.writer import MessagesWriter

CODEC = ProtocolCodec(
    read_request,
    asked,
    write_request,
    reader=lambda usage, declared: MessagesReader(usage),
    writer=MessagesWriter,
    shows_reasoning=lambda asked: asked.thinking,
    proof_of=signature_of,
    free_text_calls=False,
    narrow_call_ids=True,
    counts_input_first=True,
    refusal_stage=RefusalText,
)
