"""The protocols that are spoken on either side, and how a stream of them lives."""

from __future__ import annotations

from typing import cast

from gateway.protocols.chat import wire as chat
from gateway.protocols.messages import wire as messages
from gateway.protocols.responses import wire as responses
from gateway.protocols.wire import Wire

PROTOCOLS: dict[str, Wire] = {
    wire.name: cast(Wire, wire) for wire in (responses, chat, messages)
}
