"""Responses on either side of a conversion."""

from __future__ import annotations

from gateway.protocols.codec import ProtocolCodec
from gateway.protocols.compaction import triggered
from gateway.protocols.responses.reader import ResponsesReader
from gateway.protocols.responses.request import asked, read_request, write_request
from gateway.protocols.responses.writer import ResponsesWriter, encrypted_of

CODEC = ProtocolCodec(
    read_request,
    asked,
    write_request,
    reader=lambda usage, declared: ResponsesReader(usage),
    writer=ResponsesWriter,
    is_compaction=triggered,
    proof_of=encrypted_of,
)
