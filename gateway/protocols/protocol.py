"""
What every protocol says about itself: its bytes, its requests, its servers.

The rest of the gateway knows protocols through this interface alone, and never compares
their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeGuard

from gateway.errors import GatewayError
from gateway.protocols.options import OptionsOf
from gateway.protocols.reasoning_proofs import ReasoningProofs
from gateway.protocols.sse import Needle
from gateway.protocols.stream_facts import StreamFacts


def response_id_of(request_id: str) -> str:
    """The ``resp_`` id that the gateway makes for a request."""
    return "resp_" + request_id.replace("-", "")


class Step(Enum):
    """What one upstream event means for the life of a stream."""

    IDLE = "idle"  # a sign of life: comments, pings, what holds nothing
    NEUTRAL = "neutral"  # preamble: nothing of the answer yet
    OUTPUT = "output"  # part of the answer
    HIDDEN = "hidden"  # left out of what the client gets
    END = "end"  # the upstream's own terminal: the answer is whole
    FAIL = "fail"  # the upstream's own failure

    # A step is looked up for every event; Enum's own hash is Python code.
    __hash__ = object.__hash__


# A member costs ten times a global when it is taken from its Enum.
IDLE: Final = Step.IDLE
NEUTRAL: Final = Step.NEUTRAL
OUTPUT: Final = Step.OUTPUT
HIDDEN: Final = Step.HIDDEN
END: Final = Step.END
FAIL: Final = Step.FAIL


class Ending(NamedTuple):
    """
    The upstream's own terminal, read.

    Attributes:
        outcome: "ok", "incomplete" or "failed".
        error: for "failed": what happened.
        failure: for "failed": the event or body in which the upstream said so;
            whose fault it is, is judged from it.
    """

    outcome: str
    error: GatewayError | None = None
    failure: dict[str, Any] | None = None


class WireProtocol(Protocol):
    """
    One protocol: a module ``protocol`` in the protocol's package.

    It has many methods because the gateway meets a protocol in four places (request,
    stream, whole answer, own error), and one object gives them all.

    Attributes:
        name: as the config, the log and the ledger write it.
        path: the endpoint that generates answers, behind ``base_url``.
        model_paths: every endpoint that asks a model: ``path`` first.
        path_mark: what the paths of all its endpoints contain.
        vendor_dialect: the row of ``dialects`` for a server that neither its host nor
            its models' names identify.
        credential: how an account without ``auth`` sends its key: "bearer" or the name
            of a header.
        required_headers: what a request must have; the client's own win.
        id_header: a header besides ``x-request-id`` in which its clients look for the
            request's id; "" for none.
        keeps_responses: its servers store answers, and a request goes on from one by
            ``previous_response_id``.
        has_websocket: its servers may be spoken to over a websocket.
        known_servers: hosts that speak it, with the path of their ``base_url``.
        proofs: where its requests hold what only the maker can read; None: nowhere.
        needles: an event of a started stream that holds none of them is output and
            need not be looked at.
        plain_heads: what an event begins with that is output, whatever follows: it need
            not be searched for needles.
        proof_needle: what an event with a proof holds; looked for in answers that
            begin with reasoning.
        last_word: the terminal event that this protocol may leave out when
            ``StreamFacts.finished`` (written by the gateway then), else ``b""``.

    ``facts`` are what ``new_facts`` made, where nothing else is said.
    """

    name: str
    path: str
    model_paths: tuple[str, ...]
    path_mark: str
    vendor_dialect: str
    credential: str
    required_headers: Mapping[str, str]
    id_header: str
    keeps_responses: bool
    has_websocket: bool
    known_servers: Mapping[str, str]
    proofs: ReasoningProofs | None
    needles: tuple[Needle, ...]
    plain_heads: tuple[bytes, ...]
    proof_needle: Needle | None
    last_word: bytes

    def path_of(self, model: str, stream: bool) -> str:
        """The path behind ``base_url`` of a request for *model*."""
        ...

    def is_misshapen(self, document: dict[str, Any]) -> bool:
        """Whether a request has another protocol's shape, and must be converted."""
        ...

    def fitted(
        self, document: dict[str, Any], model: str, options_of: OptionsOf
    ) -> dict[str, Any]:
        """
        A request as the server takes it; the same object where nothing is to change.

        Args:
            model: the upstream's name of the model.
            options_of: gives what the server takes of requests for that model.
        """
        ...

    def asking_for_usage(self, body: bytes, document: dict[str, Any]) -> bytes:
        """
        A streaming request that asks for its usage; the same object where it asks
        already, or where streams end with their usage anyway.

        Args:
            document: *body* as JSON.
        """
        ...

    def new_facts(self) -> StreamFacts:
        """The state of a stream that has not begun, as this protocol keeps it."""
        ...

    def read(self, event: bytes, facts: Any) -> Step:
        """
        Read one whole *event* (its frame bytes): note facts, say its step.

        Of a terminal (END, FAIL) the document is left in ``facts.terminal``.
        """
        ...

    def ending(self, facts: Any) -> Ending:
        """What the terminal in ``facts.terminal`` says."""
        ...

    def ending_without_terminal(self, facts: Any) -> Ending | None:
        """
        What the answer came to if the upstream ends now; None: it was cut.
        """
        ...

    def is_own_failure(self, event: bytes) -> bool:
        """
        Whether a failure *event* has the form that this protocol's clients read. In
        any other form they take it for a chunk, or pass over it.
        """
        ...

    def is_answer(self, body: object) -> TypeGuard[dict[str, Any]]:
        """Whether the JSON *body* of a 200 has the form of an answer."""
        ...

    def read_body(self, body: dict[str, Any], facts: StreamFacts) -> Ending:
        """Read a whole non-stream answer; *facts* may be of any protocol."""
        ...

    def failure_frame(
        self, error: GatewayError, request_id: str, facts: StreamFacts, model: str
    ) -> bytes:
        """
        The gateway's own ending of a stream that has begun; *facts* may be of any
        protocol.
        """
        ...

    def error_body(self, error: GatewayError, request_id: str) -> bytes:
        """The gateway's own HTTP error body."""
        ...

    def error_status(self, error: GatewayError) -> int:
        """The HTTP status that goes with ``error_body``."""
        ...
