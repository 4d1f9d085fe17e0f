"""What is known of one answer while it streams."""

from __future__ import annotations

from typing import Any

from gateway.protocols.model import Reasoning
from gateway.protocols.overload_text import MAX_OPENING_CHARS
from gateway.protocols.reasoning_proofs import PROOF_CHARS
from gateway.usage import Usage

# They are replaced, never changed: a stream need not have its own.
NO_TERMINAL: dict[str, Any] = {}
NO_REASONING: dict[str, list[Reasoning]] = {}
MAX_PROOFS = 256  # of one answer that are kept


class StreamFacts:
    """
    What every protocol's answer says of itself. ``WireProtocol.new_facts`` makes one
    with what the protocol needs besides, ``WireProtocol.read`` fills it.

    Attributes:
        response_id, model: as the client sees them; "" until the answer says them.
        created_at: Unix seconds; None if the protocol does not say it.
        finished: "ok" or "incomplete" when all of the answer has come and only the
            protocol's last event is missing; else "".
        held: events that go out before the upstream's failure event, if one comes.
        terminal: the terminal's document between ``read`` and ``ending``; empty for a
            bare mark.
        opening: the text that the answer begins with: it may be an overload.
        certain: the answer holds more than text: it is no overload.
        hide_usage: the usage event is the gateway's wish, and not for the client.
        thinks: the answer begins with reasoning.
        proofs: the names of the proofs that the client got.
        kept: reasoning that the client has no place for, by the id of the call that it
            led to.
        unknown_stop: the upstream's word for why the answer ended, if it is unknown.
    """

    __slots__ = (
        "response_id",
        "model",
        "created_at",
        "usage",
        "finished",
        "held",
        "terminal",
        "opening",
        "certain",
        "hide_usage",
        "thinks",
        "proofs",
        "kept",
        "unknown_stop",
    )

    def __init__(self) -> None:
        self.response_id = ""
        self.model = ""
        self.created_at: int | None = None
        self.usage = Usage()
        self.finished = ""
        self.held = b""
        self.terminal = NO_TERMINAL
        self.opening = ""
        self.certain = False
        self.hide_usage = False
        self.thinks = False
        self.proofs: list[str] = []
        self.kept = NO_REASONING
        self.unknown_stop = ""

    def say(self, text: str) -> None:
        """Add the next part of the answer's text; its beginning is kept."""
        room = MAX_OPENING_CHARS + 1 - len(self.opening)
        if room > 0:
            self.opening += text[:room]

    def note_proof(self, proof: object) -> None:
        """Keep the name of a *proof* in the answer; anything but a text is none."""
        if isinstance(proof, str) and proof and len(self.proofs) < MAX_PROOFS:
            self.proofs.append(proof[-PROOF_CHARS:])
