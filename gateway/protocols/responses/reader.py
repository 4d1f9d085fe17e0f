"""
Responses, read: stream or body into the events of ``protocols.events``.

What the deltas left out is taken from the ``done`` events, and whole items that never
streamed from the terminal, so that nothing of a terse upstream is lost.

Source: the OpenAI API reference (Responses streaming events); Open Responses names raw
reasoning ``response.reasoning.delta``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from gateway.errors import UpstreamError
from gateway.protocols.events import (
    Annotation,
    ArgsDelta,
    CallOpen,
    Event,
    Fail,
    Finish,
    ItemClose,
    ItemOpen,
    Reason,
    ReasoningDelta,
    RefusalDelta,
    SearchFound,
    SearchOpen,
    Signature,
    Start,
    Status,
    TextDelta,
)
from gateway.protocols.frames import parse, string
from gateway.protocols.model import Kind
from gateway.protocols.responses.wire import (
    outcome,
    stop_reason,
    unknown_stop,
)
from gateway.protocols.stops import Stop, broken_off, stop_of
from gateway.protocols.tokens import read_usage
from gateway.protocols.wire import sub
from gateway.usage import Usage, count

_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_INCOMPLETE: dict[Stop, Reason] = {
    "filter": "filter",
    "context": "context",
    "end": "end",
}
_UNFINISHED = ("in_progress", "queued")


class _Part:
    """A text or refusal: one content part of a message."""

    __slots__ = ("key", "kind", "length", "noted", "closed")

    def __init__(self, key: int, kind: Literal["text", "refusal"]) -> None:
        self.key = key
        self.kind = kind
        self.length = 0  # characters told so far
        self.noted = False  # its annotations have been told
        self.closed = False


class _Item:
    """One output item."""

    __slots__ = ("key", "type", "length", "source", "section", "closed")

    def __init__(self, key: int, type: str) -> None:
        self.key = key
        self.type = type
        self.length = 0  # characters of arguments or reasoning told so far
        self.source = ""  # of reasoning: "summary" or "raw", whichever came first
        self.section: object = None  # of reasoning: the index of its open part
        self.closed = False


class Reader:
    """
    One answer of a Responses upstream.

    Args:
        usage: filled as the upstream tells it.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._items: dict[int, _Item] = {}
        self._parts: dict[tuple[int, int], _Part] = {}
        self._keys = 0
        self._started = False
        self._over = False
        self._failure: Fail | None = None

    def handle(self, frame: bytes) -> list[Event]:
        """The events of one whole *frame*."""
        data = parse(frame)
        if data is None or self._over:
            return []
        kind = data.get("type")
        read = _READ.get(kind) if isinstance(kind, str) else None
        if read is not None:
            return read(self, data)
        return self._error(data) if kind is None and data.get("error") else []

    def finish(self) -> list[Event]:
        """The upstream's body is at its end."""
        if self._over:
            return []
        if self._failure:
            return self._end(self._failure)
        code = "upstream_cut" if self._started else "upstream_empty"
        return self._end(Fail(UpstreamError(code)))

    def read_body(self, body: dict[str, Any]) -> list[Event]:
        """The events of a whole non-stream answer."""
        if body.get("status") in ("failed", "cancelled") or body.get("error"):
            return self._failed({"type": "response.failed", "response": body})
        if body.get("status") in _UNFINISHED:
            return self._end(Fail(UpstreamError("upstream_cut")))
        if not isinstance(body.get("output"), list):
            detail = "no output"
            return self._end(Fail(UpstreamError("upstream_malformed", detail=detail)))
        return self._terminal({"response": body})

    # ------------------------------------------------------------ the response

    def _lifecycle(self, data: dict[str, Any]) -> list[Event]:
        if self._started:
            return []
        self._started = True
        response = sub(data, "response")
        return [Start(string(response, "id"), string(response, "model"))]

    def _terminal(self, data: dict[str, Any]) -> list[Event]:
        out = self._lifecycle(data)
        response, why = sub(data, "response"), stop_reason(sub(data, "response"))
        came_to = outcome(response, string(data, "type"))
        if came_to == "failed":
            return [*out, *self._broken(data, why)]
        cut = came_to == "incomplete"
        output = response.get("output")
        for index, given in enumerate(output if isinstance(output, list) else ()):
            if isinstance(given, dict):
                open_yet = cut and given.get("status") == "in_progress"
                status = "incomplete" if open_yet else given.get("status")
                item = {**given, "status": status}
                out += self._done({"output_index": index, "item": item})
        for index, known in self._items.items():
            out += self._close(index, known, cut=cut)
        if isinstance(usage := response.get("usage"), dict):
            read_usage(usage, self._usage)
        # Whatever else made it incomplete: it is not all that the model had to say.
        reason = _INCOMPLETE.get(stop_of(why), "length") if cut else "end"
        tier, word = string(response, "service_tier"), unknown_stop(response)
        return [
            *out,
            *self._end(Finish(reason, self._usage, tier=tier, unknown=word)),
        ]

    def _broken(self, data: dict[str, Any], why: str) -> list[Event]:
        """A terminal whose response says that it failed, or that it broke off."""
        if stop_of(why) == "broken" and not sub(data, "response").get("error"):
            return self._end(Fail(broken_off(why)))
        return self._failed(data)

    def _failed(self, data: dict[str, Any]) -> list[Event]:
        response = sub(data, "response")
        if isinstance(usage := response.get("usage"), dict):
            read_usage(usage, self._usage)
        return self._end(_failure(sub(response, "error"), data))

    def _error(self, data: dict[str, Any]) -> list[Event]:
        """A ``response.failed`` should follow; the last word is its, if it comes."""
        self._failure = _failure(sub(data, "error") or data, data)
        return []

    def _end(self, event: Event) -> list[Event]:
        self._over = True
        return [event]

    # ------------------------------------------------------------ items

    def _added(self, data: dict[str, Any]) -> list[Event]:
        out: list[Event] = []
        self._item(data, sub(data, "item"), out)
        return out

    def _item(
        self, data: dict[str, Any], given: dict[str, Any], out: list[Event]
    ) -> _Item | None:
        """The item that an event is about; opened if it is new."""
        index = _number(data, "output_index")
        if index < 0:
            return None
        if (known := self._items.get(index)) is not None:
            return known
        kind, name = string(given, "type"), string(given, "name")
        if not kind or (kind in _CALLS and not name):
            return None  # what it is, a later event may say
        out += self._lifecycle({})
        self._keys += 1
        key = self._keys
        if kind == "reasoning":
            out.append(ItemOpen(key, "reasoning"))
        elif kind in _CALLS:
            what: Kind = "custom" if kind == "custom_tool_call" else "function"
            call_id = string(given, "call_id") or string(given, "id")
            out.append(CallOpen(key, call_id, name, what, string(given, "namespace")))
        elif kind == "web_search_call":
            out.append(SearchOpen(key))
        item = self._items[index] = _Item(key, kind)
        return item

    def _done(self, data: dict[str, Any]) -> list[Event]:
        """An item is whole: tell what has not been told, and close it."""
        given, out = sub(data, "item"), list[Event]()
        item = self._item(data, given, out)
        if item is None or item.closed:
            return out
        index = data["output_index"]
        if item.type == "message":
            content = given.get("content")
            for at, part in enumerate(content if isinstance(content, list) else ()):
                if isinstance(part, dict):
                    self._whole_part((index, at), part, out)
        elif item.type in _CALLS:
            rest = string(given, _CALLS[item.type])[item.length :]
            if rest:
                out.append(ArgsDelta(item.key, rest))
        elif item.type == "reasoning":
            self._whole_reasoning(item, given, out)
        cut = given.get("status") == "incomplete"
        return out + self._close(index, item, cut=cut, given=given)

    def _close(
        self,
        index: int,
        item: _Item,
        *,
        cut: bool,
        given: dict[str, Any] | None = None,
    ) -> list[Event]:
        if item.closed:
            return []
        item.closed = True
        status: Status = "incomplete" if cut else "completed"
        if item.type == "message":
            out: list[Event] = []
            for (at, _), part in self._parts.items():
                if at == index and not part.closed:
                    part.closed = True
                    out.append(ItemClose(part.key, status))
            return out
        if item.type == "web_search_call":
            return [_found(item.key, given or {})]
        known = item.type in _CALLS or item.type == "reasoning"
        return [ItemClose(item.key, status)] if known else []

    def _args(self, data: dict[str, Any]) -> list[Event]:
        delta = string(data, "delta")
        item = self._items.get(_number(data, "output_index"))
        if item is None or item.closed or item.type not in _CALLS or not delta:
            return []
        item.length += len(delta)
        return [ArgsDelta(item.key, delta)]

    # ------------------------------------------------------------ messages

    def _text(self, data: dict[str, Any]) -> list[Event]:
        delta = data.get("delta")
        part = self._parts.get(_place(data))
        if part is None or part.closed or part.kind != "text":
            return self._first(data, "text")
        if not isinstance(delta, str) or not delta:
            return []
        part.length += len(delta)
        return [TextDelta(part.key, delta)]

    def _refusal(self, data: dict[str, Any]) -> list[Event]:
        return self._first(data, "refusal")

    def _first(
        self, data: dict[str, Any], kind: Literal["text", "refusal"]
    ) -> list[Event]:
        """A delta of a part that may have to be opened first."""
        delta, out = string(data, "delta"), list[Event]()
        item = self._item(data, {"type": "message"}, out)
        if not delta or item is None or item.closed or item.type != "message":
            return out
        self._tell(_place(data), kind, delta, out)
        return out

    def _tell(
        self,
        at: tuple[int, int],
        kind: Literal["text", "refusal"],
        text: str,
        out: list[Event],
    ) -> None:
        part = self._parts.get(at)
        if part is None:
            self._keys += 1
            part = self._parts[at] = _Part(self._keys, kind)
            out.append(ItemOpen(part.key, kind))
        if part.closed or part.kind != kind:
            return
        part.length += len(text)
        delta = TextDelta if kind == "text" else RefusalDelta
        out.append(delta(part.key, text))

    def _part_done(self, data: dict[str, Any]) -> list[Event]:
        out: list[Event] = []
        item = self._item(data, {"type": "message"}, out)
        if item and item.type == "message" and not item.closed:
            self._whole_part(_place(data), sub(data, "part"), out)
        return out

    def _whole_part(
        self, at: tuple[int, int], given: dict[str, Any], out: list[Event]
    ) -> None:
        """A part is whole: tell what has not been told, and close it."""
        refusal = given.get("type") == "refusal"
        known = self._parts.get(at)
        rest = string(given, "refusal" if refusal else "text")
        rest = rest[known.length if known else 0 :]
        if rest and (refusal or given.get("type") == "output_text"):
            self._tell(at, "refusal" if refusal else "text", rest, out)
        part = self._parts.get(at)
        if part is None or part.closed:
            return
        notes = given.get("annotations")
        if not part.noted and isinstance(notes, list):
            for note in notes:
                out.extend(_cited(part.key, note))
        part.closed = True
        out.append(ItemClose(part.key))

    def _annotation(self, data: dict[str, Any]) -> list[Event]:
        part = self._parts.get(_place(data))
        if part is None or part.closed:
            return []
        part.noted = True
        return _cited(part.key, data.get("annotation"))

    # ------------------------------------------------------------ reasoning

    def _summary(self, data: dict[str, Any]) -> list[Event]:
        return self._think(data, "summary", data.get("summary_index"))

    def _raw(self, data: dict[str, Any]) -> list[Event]:
        return self._think(data, "raw", data.get("content_index"))

    def _think(self, data: dict[str, Any], source: str, section: Any) -> list[Event]:
        """Of summary and raw text, what comes first is told; its parts apart."""
        delta, out = string(data, "delta"), list[Event]()
        item = self._item(data, {"type": "reasoning"}, out)
        if not delta or item is None or item.closed or item.type != "reasoning":
            return out
        item.source = item.source or source
        if item.source != source:
            return out
        if item.length and section != item.section:
            delta = "\n\n" + delta
        item.section = section
        item.length += len(delta)
        return [*out, ReasoningDelta(item.key, delta)]

    def _whole_reasoning(
        self, item: _Item, given: dict[str, Any], out: list[Event]
    ) -> None:
        parts = given.get("summary") or given.get("content")
        if not item.length and isinstance(parts, list):
            texts = [string(part, "text") for part in parts if isinstance(part, dict)]
            if text := "\n\n".join(filter(None, texts)):
                out.append(ReasoningDelta(item.key, text))
        if blob := string(given, "encrypted_content"):
            out.append(Signature(item.key, "blob", blob, string(given, "id")))


_READ: dict[str, Callable[[Reader, dict[str, Any]], list[Event]]] = {
    "response.output_text.delta": Reader._text,
    "response.refusal.delta": Reader._refusal,
    "response.function_call_arguments.delta": Reader._args,
    "response.custom_tool_call_input.delta": Reader._args,
    "response.reasoning_summary_text.delta": Reader._summary,
    "response.reasoning_text.delta": Reader._raw,
    "response.reasoning.delta": Reader._raw,
    "response.output_item.added": Reader._added,
    "response.output_item.done": Reader._done,
    "response.content_part.done": Reader._part_done,
    "response.output_text.annotation.added": Reader._annotation,
    "response.created": Reader._lifecycle,
    "response.queued": Reader._lifecycle,
    "response.in_progress": Reader._lifecycle,
    "response.completed": Reader._terminal,
    "response.incomplete": Reader._terminal,
    "response.failed": Reader._failed,
    "response.cancelled": Reader._failed,
    "error": Reader._error,
}


def _number(data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    return value if isinstance(value, int) else -1


def _place(data: dict[str, Any]) -> tuple[int, int]:
    """Which part an event is about; servers with one part leave its index out."""
    return _number(data, "output_index"), _number(data, "content_index")


def _failure(error: dict[str, Any], data: dict[str, Any]) -> Fail:
    detail = f"{error.get('code') or error.get('type')}: {error.get('message')}"
    return Fail(UpstreamError("upstream_failed", detail=detail[:500]), data)


def _cited(key: int, note: object) -> list[Event]:
    if not isinstance(note, dict) or note.get("type") != "url_citation":
        return []
    start, end = count(note.get("start_index")), count(note.get("end_index"))
    url, title = string(note, "url"), string(note, "title")
    return [Annotation(key, url, title, start or 0, end or 0)] if url else []


def _found(key: int, given: dict[str, Any]) -> SearchFound:
    action = sub(given, "action")
    queries = action.get("queries")
    first = queries[0] if isinstance(queries, list) and queries else ""
    query = string(action, "query") or (first if isinstance(first, str) else "")
    sources = action.get("sources")
    pages = tuple(
        (url, string(page, "title"))
        for page in (sources if isinstance(sources, list) else ())
        if isinstance(page, dict) and (url := string(page, "url"))
    )
    failed = given.get("status") == "failed"
    return SearchFound(key, query, pages, "failed" if failed else "completed")
