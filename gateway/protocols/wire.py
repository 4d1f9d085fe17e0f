"""
What every protocol's ``wire`` module says about its bytes.

The relay knows protocols only through this interface. A protocol is a package with
three modules: ``wire`` (this interface), ``request`` (request ⇄ neutral model) and
``stream`` (events ⇄ neutral events). Adding one touches its package and the table
``PROTOCOLS`` in ``gateway.protocols``.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, Protocol

from gateway.errors import GatewayError, UpstreamError
from gateway.usage import Usage


class Step(Enum):
    """What one upstream event means for the life of a stream."""

    NEUTRAL = "neutral"  # preamble, keepalives: nothing of the answer yet
    OUTPUT = "output"  # part of the answer
    END = "end"  # the upstream's own terminal: the answer is whole
    FAIL = "fail"  # the upstream's own failure


class Ending(NamedTuple):
    """The upstream's own terminal, read."""

    outcome: str  # "ok", "incomplete" or "failed"
    error: GatewayError | None = None  # for "failed": whose fault, and what


class Facts:
    """What the stream has told so far; filled by ``Wire.read``."""

    __slots__ = (
        "response_id",
        "model",
        "created_at",
        "usage",
        "finished",
        "failure",
        "unfinished",
    )

    def __init__(self) -> None:
        self.response_id = ""
        self.model = ""
        self.created_at: int | None = None
        self.usage = Usage()
        # All of the answer came, only the protocol's last word is missing:
        # Messages after message_delta, Chat after every finish_reason.
        self.finished = ""  # "", "ok" or "incomplete"
        # An error event that a failure event should follow (Responses).
        self.failure: UpstreamError | None = None
        self.unfinished: set[int] = set()  # Chat: choices without finish_reason


class Wire(Protocol):
    """
    One protocol's bytes.

    Attributes:
        name: "responses", "chat" or "messages".
        path: the endpoint's path behind ``base_url``.
        needles: byte strings; an event of a started stream that holds none of
            them is output and need not be looked at.
        last_word: the terminal event that this protocol may leave out when
            ``Facts.finished`` (written by the gateway then), else ``b""``.
    """

    name: str
    path: str
    needles: tuple[bytes, ...]
    last_word: bytes

    def read(self, event: bytes, facts: Facts) -> Step:
        """Read one whole *event* (its frame bytes): note facts, say its step."""
        ...

    def ending(self, event: bytes, facts: Facts) -> Ending:
        """Read the terminal *event*."""
        ...

    def read_body(self, body: dict[str, Any], facts: Facts) -> Ending:
        """Read a whole non-stream answer."""
        ...

    def failure_frame(
        self, error: GatewayError, request_id: str, facts: Facts, model: str
    ) -> bytes:
        """The gateway's own ending of a stream that has begun."""
        ...

    def error_body(self, error: GatewayError, request_id: str) -> bytes:
        """The gateway's own HTTP error body."""
        ...


__all__ = ["Ending", "Facts", "Step", "UpstreamError", "Wire"]
