"""
What an answer consists of, the same for every protocol.

An ``AnswerReader`` makes these events from one protocol's stream or body, an
``AnswerWriter`` makes another protocol's stream or body from them.

Rule 1: a part of the answer (a text, a refusal, a stretch of reasoning, a call, a web
        search) has a *key*; keys are never used twice. Its events stand between its
        opening and its closing; several parts may be open at once.
Rule 2: whatever was opened is closed before ``Finish``; nothing is closed because of
        a failure.
Rule 3: ``Finish`` or ``Fail`` is the last event.
Rule 4: writers own ids, indices and sequence numbers.

    Start (open delta* close)* Finish | Fail
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gateway.errors import UpstreamError
from gateway.protocols.model import Kind, ToolName
from gateway.usage import Usage

Status = Literal["completed", "incomplete"]
Reason = Literal[
    "end",  # the model had said what it wanted, or called a tool
    "length",  # a token limit
    "context",  # the context window was full
    "filter",  # refused or cut by the vendor
    "sequence",  # a stop sequence of the client
    "pause",  # the vendor's own tool loop wants another request
]


class Start(NamedTuple):
    """The upstream has begun; its own *id* and *model*."""

    id: str
    model: str


class ItemOpen(NamedTuple):
    """A text, a refusal or a stretch of reasoning begins."""

    key: int
    kind: Literal["text", "refusal", "reasoning"]


class CallOpen(NamedTuple):
    """
    A call begins.

    Attributes:
        kind: for "function" the ``ArgsDelta`` hold JSON text, for "custom" the free
            text, for the built-in kinds the JSON text of their action's fields.
    """

    key: int
    call_id: str
    name: str
    kind: Kind = "function"
    namespace: str = ""

    @property
    def tool(self) -> ToolName:
        """The tool that is called."""
        return ToolName(self.kind, self.name, self.namespace)


class SearchOpen(NamedTuple):
    """The vendor begins to search the web."""

    key: int


class TextDelta(NamedTuple):
    """More of a text."""

    key: int
    text: str


class RefusalDelta(NamedTuple):
    """More of a refusal."""

    key: int
    text: str


class ReasoningDelta(NamedTuple):
    """More of what the model thinks, or of its summary."""

    key: int
    text: str


class Signature(NamedTuple):
    """
    The proof of a stretch of reasoning.

    Attributes:
        form: "signature" and "redacted" are Anthropic's, "blob" is OpenAI's
            ``encrypted_content``, "opaque" is what ``opaque.packed`` gives.
        id: the reasoning item's id, for "blob".
    """

    key: int
    form: Literal["signature", "redacted", "blob", "opaque"]
    value: str
    id: str = ""


class Private(NamedTuple):
    """
    What only the upstream itself can use, and wants back: see ``opaque``.

    Attributes:
        key: of the stretch of reasoning as which it travels.
        call: the key of the call that it belongs to; -1: the whole answer.
        fields: members of the upstream's own call or message.
    """

    key: int
    call: int
    fields: dict[str, Any]


class ArgsDelta(NamedTuple):
    """More of a call's arguments."""

    key: int
    text: str


class Annotation(NamedTuple):
    """A web page is cited for the characters *start* to *end* of the text *key*."""

    key: int
    url: str
    title: str
    start: int
    end: int


class SearchFound(NamedTuple):
    """A web search is over: what was searched, and (url, title) of what was found."""

    key: int
    query: str
    pages: tuple[tuple[str, str], ...]
    status: Literal["completed", "failed"] = "completed"


class ItemClose(NamedTuple):
    """A part is at its end; "incomplete" if a limit cut it."""

    key: int
    status: Status = "completed"


class Compaction(NamedTuple):
    """The answer is a summary that replaces the whole conversation."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """
    The answer is whole.

    Attributes:
        usage: what it cost; parts may be None.
        sequence: the stop sequence that was met, for reason "sequence".
        category: the vendor's word for why it refused.
        tier: the service tier used, in OpenAI's words; "" = not said.
        unknown: the upstream's word for why it ended, where that is not known.
    """

    reason: Reason
    usage: Usage
    sequence: str = ""
    category: str = ""
    tier: str = ""
    unknown: str = ""

    @property
    def cut_short(self) -> bool:
        """Whether a limit or a filter ended the answer."""
        return self.reason in ("length", "context", "filter")


class Fail(NamedTuple):
    """The upstream failed; *failure* is the event or body that said so."""

    error: UpstreamError
    failure: dict[str, Any] | None = None


Event = (
    Start
    | ItemOpen
    | CallOpen
    | SearchOpen
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | Signature
    | Private
    | ArgsDelta
    | Annotation
    | SearchFound
    | ItemClose
    | Compaction
    | Finish
    | Fail
)

Delta = TextDelta | RefusalDelta | ReasoningDelta | ArgsDelta
"""More of a part's text."""
DELTAS = (TextDelta, RefusalDelta, ReasoningDelta, ArgsDelta)

PREAMBLE = frozenset((Start, ItemOpen, SearchOpen))
"""Kinds of events that hold nothing of the answer yet."""
