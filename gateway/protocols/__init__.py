"""
The protocols that are spoken on either side, and how a stream of them lives.

A protocol is a package and a row of ``_ROWS``. The package holds:

``protocol``  what the protocol says about itself: a ``WireProtocol``
``codec``     how it is converted: a ``ProtocolCodec``, with what that is made of:
              ``request`` (request ⇄ neutral model), ``reader`` and ``writer`` (answer
              ⇄ neutral events)
``proofs``    where its requests hold what only their maker can read, if they do

What its servers refuse are rows of ``vendor_limits`` and ``dialects``. The trial
account speaks it where ``gateway.trial`` has a module for it.
"""

from __future__ import annotations

from gateway.protocols.chat import protocol as chat_protocol
from gateway.protocols.chat.codec import CODEC as chat_codec
from gateway.protocols.codec import ProtocolCodec
from gateway.protocols.messages import protocol as messages_protocol
from gateway.protocols.messages.codec import CODEC as messages_codec
from gateway.protocols.protocol import WireProtocol
from gateway.protocols.responses import protocol as responses_protocol
from gateway.protocols.responses.codec import CODEC as responses_codec

_ROWS: tuple[tuple[WireProtocol, ProtocolCodec], ...] = (
    (responses_protocol, responses_codec),
    (chat_protocol, chat_codec),
    (messages_protocol, messages_codec),
)

PROTOCOLS = {protocol.name: protocol for protocol, codec in _ROWS}
CODECS = {protocol.name: codec for protocol, codec in _ROWS}
