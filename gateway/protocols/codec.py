"""
What the client's answer is written with, whatever its protocol: names, time, and what
the client asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from gateway.protocols.events import Event
from gateway.protocols.model import Asked


class Reply:
    """
    Attributes:
        request_id: as the client or the gateway named the request.
        model: the client's name of the model.
        created_at: Unix seconds.
        seed: hex digits of which ids are made; the same for the same request.
        now: Unix seconds at this moment.
        client_body: the client's request, for the answer of ``/responses/compact``.
    """

    __slots__ = (
        "asked",
        "request_id",
        "model",
        "created_at",
        "seed",
        "now",
        "client_body",
    )

    def __init__(
        self,
        asked: Asked,
        request_id: str,
        model: str,
        created_at: int,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.asked = asked
        self.request_id = request_id
        self.model = model
        self.created_at = created_at
        self.seed = hashlib.sha256(request_id.encode()).hexdigest()[:24]
        self.now = now or (lambda: created_at)
        self.client_body: dict[str, Any] = {}


class Reader(Protocol):
    """One upstream protocol, read."""

    def handle(self, frame: bytes) -> list[Event]:
        """
        The events of one whole *frame*.

        Raises:
            Garbled: the frame is no JSON.
        """
        ...

    def finish(self) -> list[Event]:
        """The events that the end of the upstream's body makes."""
        ...

    def read_body(self, body: dict[str, Any]) -> list[Event]:
        """The events of a whole non-stream answer."""
        ...


class Writer(Protocol):
    """
    One client protocol, written.

    Attributes:
        response_id: the id that the client sees.
        terminal: the terminal event(s), after ``Finish`` was written.
    """

    response_id: str
    terminal: bytes

    def write(self, event: Event) -> bytes:
        """Whole events for the client; those of the ending go to ``terminal``."""
        ...

    def body(self, events: list[Event]) -> dict[str, Any]:
        """The non-stream answer that *events* make up, the last one a ``Finish``."""
        ...
