"""The protocols that are spoken on either side, and how a stream of them lives."""

from __future__ import annotations

from typing import cast

from gateway.protocols.chat import protocol as chat
from gateway.protocols.messages import protocol as messages
from gateway.protocols.protocol import WireProtocol
from gateway.protocols.responses import protocol as responses

PROTOCOLS: dict[str, WireProtocol] = {
    wire.name: cast(WireProtocol, wire) for wire in (responses, chat, messages)
}
