"""
What happens to an answer's events between the reader and the writer.

A stage takes one event and gives those that go on in its place. ``WholeCalls`` and
``CallBinding`` are always there. The others are added when they are needed:

``SurrogateJoiner``  characters come as escapes
``StopCut``          the upstream does not know the client's stop sequences
``CompactionStage``  the answer replaces the conversation
"""

from __future__ import annotations

from typing import Protocol

from gateway.errors import UpstreamError
from gateway.protocols.call_arguments import InputText, whole
from gateway.protocols.call_ids import narrow
from gateway.protocols.delta_template import Note
from gateway.protocols.event_json import joined, quote
from gateway.protocols.events import (
    ArgsDelta,
    CallOpen,
    Compaction,
    Event,
    Fail,
    Finish,
    ItemClose,
    ItemOpen,
    Private,
    ReasoningDelta,
    RefusalDelta,
    Signature,
    Start,
    TextDelta,
)
from gateway.protocols.model import Tools
from gateway.protocols.opaque import Opaque, packed
from gateway.usage import Usage

DRAINED_EVENTS = 200
"""Events read for the usage alone after a stop sequence was met; then it ends."""


class Stage(Protocol):
    """One step between reader and writer."""

    @property
    def passes_deltas(self) -> bool:
        """Whether whole characters pass unchanged until another event comes."""
        ...

    def take(self, event: Event) -> list[Event]:
        """What goes on in place of *event*."""
        ...


class SurrogateJoiner:
    """Join a character that the upstream cut between two deltas."""

    def __init__(self) -> None:
        self._held: dict[int, str] = {}

    @property
    def passes_deltas(self) -> bool:
        """See ``Stage``."""
        return not self._held

    def take(self, event: Event) -> list[Event]:
        """See ``Stage.take``."""
        if isinstance(event, TextDelta | RefusalDelta | ReasoningDelta | ArgsDelta):
            text = self._held.pop(event.key, "") + event.text
            if "\ud800" <= text[-1] <= "\udbff":
                self._held[event.key] = text[-1]
                text = text[:-1]
            return [event._replace(text=joined([text]))] if text else []
        if isinstance(event, ItemClose):
            self._held.pop(event.key, None)  # half a character is none
        return [event]


class CallBinding:
    """
    Say each call by the client's own tool: name, kind, namespace, an id.

    What only the upstream can use becomes a stretch of reasoning that names its call.

    Args:
        tools: the names that the request was written with.
        seed: hex digits of this request, for calls that came without an id.
        maker: the upstream, as ``opaque.Opaque.maker`` names it.
        free_text_calls, narrow_call_ids: see ``ProtocolCodec``; of the client.
    """

    BOUND = frozenset((CallOpen, ArgsDelta, ItemClose, Private))

    def __init__(
        self,
        tools: Tools,
        seed: str,
        maker: str = "",
        *,
        free_text_calls: bool = True,
        narrow_call_ids: bool = False,
    ) -> None:
        self._tools = tools
        self._free_form = free_text_calls
        self._narrow = narrow_call_ids
        self._seed = seed
        self._maker = maker
        self._waiting: dict[int, list[Private]] = {}  # for a call that opens next
        self._call_ids: dict[int, str] = {}
        self._unwrapped: dict[int, InputText] = {}
        self._wrapped: set[int] = set()
        self._ids: set[str] = set()

    def take(self, event: Event) -> list[Event]:
        """See ``Stage.take``."""
        if isinstance(event, CallOpen):
            return self._open(event)
        if isinstance(event, ArgsDelta):
            if event.key in self._unwrapped:
                text = self._unwrapped[event.key].feed(event.text)
                return [ArgsDelta(event.key, text)] if text else []
            if event.key in self._wrapped:
                return [ArgsDelta(event.key, quote(event.text).decode()[1:-1])]
        if isinstance(event, ItemClose):
            return self._close(event)
        if isinstance(event, Private):
            return self._private(event)
        return [event]

    def passes_deltas_of(self, key: int) -> bool:
        """As ``Stage.passes_deltas``, for the part *key*."""
        return not (key in self._unwrapped or key in self._wrapped)

    def _private(self, event: Private) -> list[Event]:
        if event.call >= 0 and event.call not in self._call_ids:
            self._waiting.setdefault(event.call, []).append(event)
            return []
        call_id = self._call_ids.get(event.call, "")
        proof = packed(Opaque(self._maker, event.fields, call_id))
        return [
            ItemOpen(event.key, "reasoning"),
            Signature(event.key, "opaque", proof),
            ItemClose(event.key),
        ]

    def _open(self, event: CallOpen) -> list[Event]:
        key, tool = event.key, self._tools.resolve(event.name)
        kind = event.kind
        if kind == "function" and self._tools.wrapped(event.name):
            kind = tool.kind if self._free_form or tool.kind != "custom" else kind
            if kind == "custom":
                self._unwrapped[key] = InputText()
        call_id = self._call_ids[key] = self._id(event)
        namespace = tool.namespace or event.namespace
        opened = CallOpen(key, call_id, tool.name, kind, namespace)
        out: list[Event] = []
        for private in self._waiting.pop(key, ()):
            out += self._private(private)
        if kind != "custom" or self._free_form:
            return [*out, opened]
        self._wrapped.add(key)
        begun = ArgsDelta(key, '{"input":"')
        return [*out, opened._replace(kind="function"), begun]

    def _id(self, event: CallOpen) -> str:
        """The upstream's own id; some servers give none, or the same one twice."""
        call_id = narrow(event.call_id) if self._narrow else event.call_id
        if not call_id or call_id in self._ids:
            call_id = f"call_{self._seed}{event.key:04x}"
        self._ids.add(call_id)
        return call_id

    def _close(self, event: ItemClose) -> list[Event]:
        if event.key in self._wrapped:
            return [ArgsDelta(event.key, '"}'), event]
        text = self._unwrapped.pop(event.key, None)
        if text is None or event.status == "incomplete":
            return [event]
        rest = text.close()
        return [ArgsDelta(event.key, rest), event] if rest else [event]


class WholeCalls:
    """
    Let no call reach the client as finished whose arguments did not arrive whole.

    The answer fails instead: a client would run the call with what it can make of
    them. The free text of a tool that rides in a function is whole as it is, if the
    model left the function's form out altogether.

    Args:
        tools: the names that the request was written with.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._pieces: dict[int, list[str]] = {}
        self._free: set[int] = set()

    def take(self, event: Event) -> list[Event]:
        """See ``Stage.take``."""
        if isinstance(event, CallOpen):
            if event.kind == "function":
                self._pieces[event.key] = []
                if self._tools.resolve(event.name).kind == "custom":
                    self._free.add(event.key)
        elif isinstance(event, ArgsDelta):
            if event.key in self._pieces:
                self._pieces[event.key].append(event.text)
        elif isinstance(event, ItemClose):
            text = "".join(self._pieces.pop(event.key, ()))
            if event.status == "completed" and not self._whole(event.key, text):
                detail = "a call's arguments did not arrive whole"
                return [Fail(UpstreamError("upstream_malformed", detail=detail))]
        return [event]

    def note_of(self, key: int) -> Note | None:
        """What keeps more arguments of the part *key*; None if none are kept."""
        pieces = self._pieces.get(key)
        return None if pieces is None else pieces.append

    def _whole(self, key: int, text: str) -> bool:
        return whole(text) or (key in self._free and text.lstrip()[:1] != "{")


class StopCut:
    """
    End the text before the first of the client's stop sequences.

    What could be the beginning of one is held back. After the cut the rest of the
    answer is read for its usage, but not for long.
    """

    passes_deltas = False

    def __init__(self, sequences: tuple[str, ...], usage: Usage) -> None:
        self._sequences = tuple(sequence for sequence in sequences if sequence)
        self._usage = usage
        self._held: dict[int, str] = {}
        self._open: set[int] = set()
        self._met = ""
        self._drained = 0
        self._over = False

    def take(self, event: Event) -> list[Event]:
        """See ``Stage.take``."""
        if self._met:
            return self._after(event)
        if isinstance(event, TextDelta):
            return self._text(event)
        if isinstance(event, ItemClose):
            self._open.discard(event.key)
            rest = self._held.pop(event.key, "")
            return [TextDelta(event.key, rest), event] if rest else [event]
        if isinstance(event, CallOpen):
            self._open.add(event.key)
        return [event]

    def _text(self, event: TextDelta) -> list[Event]:
        key = event.key
        text = self._held.pop(key, "") + event.text
        hits = [(at, s) for s in self._sequences if (at := text.find(s)) >= 0]
        if hits:
            at, self._met = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
            cut: list[Event] = [TextDelta(key, text[:at])] if at else []
            return [*cut, ItemClose(key)]
        if held := self._beginning(text):
            self._held[key] = text[-held:]
            text = text[:-held]
        return [TextDelta(key, text)] if text else []

    def _beginning(self, text: str) -> int:
        """How many of the last characters may begin a stop sequence."""
        longest = max((len(sequence) for sequence in self._sequences), default=0)
        for size in range(min(longest - 1, len(text)), 0, -1):
            end = text[-size:]
            if any(sequence.startswith(end) for sequence in self._sequences):
                return size
        return 0

    def _after(self, event: Event) -> list[Event]:
        """Calls that were open go on; all else is over."""
        self._drained += 1
        if isinstance(event, ItemClose) and event.key in self._open:
            self._open.discard(event.key)
            return [event]
        if isinstance(event, ArgsDelta) and event.key in self._open:
            return [event]
        last = isinstance(event, Finish | Fail) or self._drained >= DRAINED_EVENTS
        if self._over or not last:
            return []
        self._over = True
        closed: list[Event] = [ItemClose(key, "incomplete") for key in self._open]
        tier = event.tier if isinstance(event, Finish) else ""
        finish = Finish("sequence", self._usage, sequence=self._met, tier=tier)
        return [*closed, finish]


class CompactionStage:
    """Turn an answer's text into the one item that replaces the conversation."""

    passes_deltas = False

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def take(self, event: Event) -> list[Event]:
        """See ``Stage.take``."""
        if isinstance(event, TextDelta):
            self._pieces.append(event.text)
            return []
        if isinstance(event, Start | Fail):
            return [event]
        if not isinstance(event, Finish):
            return []
        text = joined(self._pieces).strip()
        if not text or event.cut_short:
            # Half a summary would lose the other half for good.
            detail = f"no whole summary: {event.reason}"
            return [Fail(UpstreamError("upstream_failed", detail=detail))]
        return [Compaction(text), event]
