"""
How one protocol is converted: the interface of its requests, its reader and its writer.

A protocol's package has a module ``codec`` with its ``ProtocolCodec``.

    client's body ──read_request──▶ Request ──write_request──▶ upstream's body
    client's answer ◀──AnswerWriter── events ◀──AnswerReader── upstream's answer
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.protocols.answer_stages import Stage
from gateway.protocols.delta_template import Growth, Say
from gateway.protocols.events import Delta, Event, Signature
from gateway.protocols.model import Asked, Request, Written
from gateway.protocols.options import Options
from gateway.usage import Usage


class AnswerSettings:
    """
    What a client's answer is written with: names, time, and what the client asked for.

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


class AnswerReader(Protocol):
    """An upstream's answer as neutral events."""

    def handle(self, frame: bytes) -> list[Event]:
        """
        The events of one whole *frame*.

        Raises:
            Garbled: the frame is no JSON.
        """
        ...

    def growth(self, frame: bytes, event: Delta) -> Growth | None:
        """See ``GrowthReader``."""
        ...

    def finish(self) -> list[Event]:
        """The events that the end of the upstream's body makes."""
        ...

    def read_body(self, body: dict[str, Any]) -> list[Event]:
        """The events of a whole non-stream answer."""
        ...


class AnswerWriter(Protocol):
    """
    Neutral events as a client's answer.

    Attributes:
        response_id: the id that the client sees.
        terminal: the terminal event(s), after ``Finish`` was written.
    """

    response_id: str
    terminal: bytes

    def write(self, event: Event) -> bytes:
        """Whole events for the client; those of the ending go to ``terminal``."""
        ...

    def repeats(self, event: Delta) -> Say | None:
        """
        What writes more deltas like *event*, the last one written; None if such a
        delta does not become one event in any case.
        """
        ...

    def body(self, events: list[Event]) -> dict[str, Any]:
        """The non-stream answer that *events* make up, the last one a ``Finish``."""
        ...


@dataclass(frozen=True, slots=True)
class ProtocolCodec:
    """
    One protocol on either side of a conversion.

    Attributes:
        read_request: a client's body as a neutral request.
        asked: what the way back needs of a client's body; takes the body, the request
            and the client's name of the model.
        write_request: a neutral request as an upstream's body.
        reader: takes the usage to fill and the names of the declared tools.
        is_compaction: whether a client's body asks for a summary of the conversation.
        shows_reasoning: whether the client gets the reasoning of the answer; else the
            gateway keeps it for the next request.
        proof_of: how the client gets a proof; None: the protocol has no place for one.
        free_text_calls: the protocol has calls whose input is free text.
        narrow_call_ids: clients take only ids of 64 of A-Z a-z 0-9 _ -.
        counts_input_first: an answer begins with the count of its input tokens.
        refusal_stage: of an upstream that writes refusals as text: what finds them.
    """

    read_request: Callable[[dict[str, Any]], Request]
    asked: Callable[[dict[str, Any], Request, str], Asked]
    write_request: Callable[[Request, Options], Written]
    reader: Callable[[Usage, Container[str]], AnswerReader]
    writer: Callable[[AnswerSettings], AnswerWriter]
    is_compaction: Callable[[dict[str, Any]], bool] = lambda body: False
    shows_reasoning: Callable[[Asked], bool] = lambda asked: True
    proof_of: Callable[[Signature], str] | None = None
    free_text_calls: bool = True
    narrow_call_ids: bool = False
    counts_input_first: bool = False
    refusal_stage: Callable[[], Stage] | None = None
