"""Chat on either side of a conversion."""

from __future__ import annotations

from gateway.protocols.chat.reader import ChatReader
from gateway.protocols.chat.request import asked, read_request, write_request
from gateway.protocols.chat.writer import ChatWriter
from gateway.protocols.codec import ProtocolCodec

CODEC = ProtocolCodec(
    read_request,
    asked,
    write_request,
    reader=ChatReader,
    writer=ChatWriter,
    shows_reasoning=lambda asked: False,  # it has no place for the proofs
)
