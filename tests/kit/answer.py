"""
Whole, correct answers of the three protocols, as an honest upstream writes them.

Rule 1: an answer is cut into three: what comes before any output, the output one
        delta at a time, and the rest up to the protocol's last word; so a play can
        stop after any of them.
Rule 2: nothing here comes from ``gateway``: the tests must not share its mistakes.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PIECES = ("All ", "is ", "well", ".")


@dataclass(frozen=True)
class Tool:
    """One function call that the answer makes."""

    name: str
    arguments: dict[str, Any]
    call_id: str = "call_1"


@dataclass(frozen=True)
class Answer:
    """What the model says; *usage* is (input, cached, output, reasoning) tokens."""

    pieces: tuple[str, ...] = PIECES
    reasoning: str = ""
    proof: str = "c2VhbGVk"  # signs or seals the reasoning; "" for neither
    tool: Tool | None = None
    usage: tuple[int, int, int, int] = (11, 3, 7, 2)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    model: str = ""  # "": the model that was asked for

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Stream(NamedTuple):
    """The events of an answer, each with its blank line."""

    preamble: list[bytes]
    deltas: list[bytes]
    tail: list[bytes]

    def begun(self, deltas: int) -> list[bytes]:
        """The stream up to its *deltas*-th delta; 0: the preamble alone."""
        return self.preamble + self.deltas[:deltas]

    def whole(self) -> list[bytes]:
        return self.preamble + self.deltas + self.tail


def event(data: object, name: str = "") -> bytes:
    """One SSE event; *data* is text as it is, else JSON."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode()
