"""
What every protocol says about itself: its bytes, its requests, its servers.

The rest of the gateway knows protocols through this interface alone, and never compares
their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeGuard

import orjson

from gateway.errors import GatewayError, UpstreamError
from gateway.protocols.lossless_json import loads
from gateway.protocols.model import Reasoning
from gateway.protocols.options import OptionsOf
from gateway.protocols.overload_text import MAX_OPENING_CHARS
from gateway.protocols.reasoning_proofs import PROOF_CHARS, ReasoningProofs
from gateway.protocols.sse import Needle
from gateway.usage import Usage

# error.type -> the code that a Responses client reads
TYPE_CODES = {
    "rate_limit_error": "rate_limit_exceeded",
    "invalid_request_error": "invalid_request",
    "permission_error": "permission_denied",
    "authentication_error": "authentication_failed",
    "upstream_error": "upstream_error",
    "server_error": "server_error",
    "api_error": "server_error",
    "": "server_error",
}
# Own codes that clients branch on.
SPOKEN_CODES = frozenset(
    {
        "model_not_found",
        "previous_response_not_found",
        "unsupported_parameter",
        "ledger_unavailable",
    }
)


def spoken_code(error: GatewayError) -> str:
    """The ``code`` that an OpenAI client reads."""
    if error.spoken:
        return error.spoken
    if error.code in SPOKEN_CODES:
        return error.code
    return TYPE_CODES.get(error.type, error.type)


def response_id_of(request_id: str) -> str:
    """The ``resp_`` id that the gateway makes for a request."""
    return "resp_" + request_id.replace("-", "")


def openai_error(error: GatewayError, request_id: str) -> dict[str, Any]:
    """``error`` as Responses and Chat clients read it."""
    return {
        "type": error.type or "server_error",
        "code": spoken_code(error),
        "message": error.sentence(request_id),
        "param": None,
    }


def openai_error_status(error: GatewayError) -> int:
    """The HTTP status of a failure for Responses and Chat clients."""
    return error.status


def openai_error_body(error: GatewayError, request_id: str) -> bytes:
    """The HTTP body of a failure for Responses and Chat clients."""
    told = openai_error(error, request_id)
    return orjson.dumps({"error": {**told, "param": error.param, **error.facts}})


def read_json(data: bytes, *, exact: bool = False) -> Any:
    """
    *data* as JSON; None for anything else.

    Args:
        exact: whole numbers keep their digits, for what is written again.
    """
    try:
        return loads(data) if exact else orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def read_object(data: bytes) -> dict[str, Any]:
    """*data* as a JSON object; an empty one for anything else."""
    if not data:  # a comment's; raising costs more than all the rest
        return {}
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def sub(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at *key*; an empty one for anything else."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in the list *value*; none for anything else."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


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


MAX_PROOFS = 256  # of one answer that are noted


class StreamFacts:
    """What the stream has told so far; filled by ``WireProtocol.read``."""

    __slots__ = (
        "response_id",
        "model",
        "created_at",
        "usage",
        "finished",
        "failure",
        "failure_event",
        "held",
        "opening",
        "certain",
        "has_output",
        "hide_usage",
        "unfinished",
        "noted",
        "unread",
        "terminal",
        "unknown_stop",
        "kept",
        "thinks",
        "proofs",
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
        self.failure_event: dict[str, Any] | None = None
        # The last such event, until its failure event comes; empty if it is too large.
        self.held = b""
        self.has_output = False  # Chat: something of an answer has come
        # The text that the answer begins with, read until there is more than text:
        # an overload may be told as the answer itself.
        self.opening = ""
        self.certain = False
        self.hide_usage = False  # Chat: the client did not ask for the usage chunk
        self.unfinished: set[int] = set()  # Chat: choices without finish_reason
        # Responses: the bytes, from the response object on, of a lifecycle event that
        # has been noted. The next one mostly repeats them, often by the ten kilobytes.
        self.noted = b""
        # The same of one that is small, of which only the id was read: what else it
        # tells is wanted where the gateway itself writes the ending.
        self.unread = b""
        # The terminal's document, from ``read`` to ``ending``; empty for a bare mark.
        self.terminal: dict[str, Any] = {}
        # Reasoning that the client has no place for, by the call that it led to.
        self.kept: dict[str, list[Reasoning]] = {}
        self.unknown_stop = ""  # a word for why the answer ended that is not known
        self.thinks = False  # the answer begins with reasoning
        # The ends of the proofs that the client got: signatures, encrypted reasoning
        # and compactions, which only the account that made them can read.
        self.proofs: list[str] = []

    def say(self, text: str) -> None:
        """Note that *text* is the next part of the answer; its beginning is kept."""
        room = MAX_OPENING_CHARS + 1 - len(self.opening)
        if room > 0:
            self.opening += text[:room]

    def note_proof(self, proof: object) -> None:
        """Note a *proof* that the answer holds; anything but a text is none."""
        if isinstance(proof, str) and proof and len(self.proofs) < MAX_PROOFS:
            self.proofs.append(proof[-PROOF_CHARS:])


class WireProtocol(Protocol):
    """
    One protocol: a module ``protocol`` in the protocol's package.

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
        proofs: where its requests hold what only the maker can read; None: nowhere.
        needles: an event of a started stream that holds none of them is output and
            need not be looked at.
        proof_needle: what an event with a proof holds; looked for in answers that
            begin with reasoning.
        last_word: the terminal event that this protocol may leave out when
            ``StreamFacts.finished`` (written by the gateway then), else ``b""``.
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
    proofs: ReasoningProofs | None
    needles: tuple[Needle, ...]
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

    def read(self, event: bytes, facts: StreamFacts) -> Step:
        """
        Read one whole *event* (its frame bytes): note facts, say its step.

        Of a terminal (END, FAIL) the document is left in ``facts.terminal``.
        """
        ...

    def ending(self, facts: StreamFacts) -> Ending:
        """What the terminal in ``facts.terminal`` says."""
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
        """Read a whole non-stream answer."""
        ...

    def failure_frame(
        self, error: GatewayError, request_id: str, facts: StreamFacts, model: str
    ) -> bytes:
        """The gateway's own ending of a stream that has begun."""
        ...

    def error_body(self, error: GatewayError, request_id: str) -> bytes:
        """The gateway's own HTTP error body."""
        ...

    def error_status(self, error: GatewayError) -> int:
        """The HTTP status that goes with ``error_body``."""
        ...


__all__ = ["Ending", "StreamFacts", "Step", "UpstreamError", "WireProtocol"]
