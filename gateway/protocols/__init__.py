"""
The protocols that are spoken on either side, and how a stream of them lives.

A protocol is a package and a row of ``PROTOCOLS``. The package holds:

``protocol``  what the protocol says about itself (``WireProtocol``)
``proofs``    where its requests hold what only their maker can read, if they do
``request``   request ⇄ neutral model
``reader``    an upstream's events, and whole answers, as neutral events
``writer``    neutral events as the client's
"""

from __future__ import annotations

from gateway.protocols.chat import protocol as chat
from gateway.protocols.messages import protocol as messages
from gateway.protocols.protocol import WireProtocol
from gateway.protocols.responses import protocol as responses

PROTOCOLS: dict[str, WireProtocol] = {
    responses.name: responses,
    chat.name: chat,
    messages.name: messages,
}
