"""
Reads a Responses stream or body as events of ``protocols.events``.

The ``done`` events supply what the deltas left out, and the terminal supplies items
that never streamed. So nothing of a terse upstream is lost, and nothing comes twice.

Source: the OpenAI API reference (Responses streaming events); Open Responses names raw
reasoning ``response.reasoning.delta``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from gateway.errors import UpstreamError
from gateway.protocols.call_arguments import written
from gateway.protocols.delta_template import Growth
from gateway.protocols.event_json import parse, string
from gateway.protocols.events import (
    ArgsDelta,
    CallOpen,
    Delta,
    Event,
    Fail,
    Finish,
    ItemClose,
    ItemOpen,
    Reason,
    ReasoningDelta,
    SearchOpen,
    Signature,
    Start,
    Status,
)
from gateway.protocols.failure_forms import may_be_failure
from gateway.protocols.json_access import objects, sub
from gateway.protocols.model import Kind
from gateway.protocols.responses.growth import OpenItems
from gateway.protocols.responses.item_index import ItemIndex, number
from gateway.protocols.responses.message_parts import Kind as PartKind
from gateway.protocols.responses.message_parts import MessageParts, Place
from gateway.protocols.responses.protocol import (
    outcome,
    stop_reason,
    unknown_stop,
)
from gateway.protocols.responses.read_item import CALL_KEYS, ReadItem, search_found
from gateway.protocols.responses.reasoning_text import Source
from gateway.protocols.sse import payload
from gateway.protocols.stop_reasons import Stop, broken_off, stop_of
from gateway.protocols.stray_failures import stray
from gateway.protocols.usage_fields import read_usage
from gateway.usage import Usage

_INCOMPLETE: dict[Stop, Reason] = {
    "filter": "filter",
    "context": "context",
    "end": "end",
}
_UNFINISHED = ("in_progress", "queued")


class ResponsesReader:
    """
    One answer of a Responses upstream.

    Args:
        usage: filled from the upstream's events.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._places = ItemIndex()
        self._items: dict[int, ReadItem] = {}
        self._early: dict[int, str] = {}  # arguments of calls that have no name yet
        self._new_key = count(1).__next__  # a method would make a reference cycle
        self._parts = MessageParts(self._new_key)
        self._started = False
        self._over = False
        self._failure: Fail | None = None

    def handle(self, frame: bytes) -> list[Event]:
        """The events of one whole *frame*."""
        data = parse(frame) or {}
        if self._over:
            return []
        kind = data.get("type")
        read = _READ.get(kind) if isinstance(kind, str) else None
        if read is not None:
            return read(self, data)
        if not may_be_failure(kind):
            return []
        failure = stray(frame, payload(frame), data)
        return self._error(failure) if failure else []

    def growth(self, frame: bytes, event: Delta) -> Growth | None:
        """See ``GrowthReader``."""
        items = OpenItems(self._places, self._items, self._parts)
        return None if self._over else items.growth(parse(frame) or {}, event.key)

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
        result = outcome(response, string(data, "type"))
        if result == "failed":
            return [*out, *self._broken(data, why)]
        cut = result == "incomplete"
        seen: Counter[str] = Counter()
        for position, given in enumerate(objects(response.get("output"))):
            open_yet = cut and given.get("status") == "in_progress"
            status = "incomplete" if open_yet else given.get("status")
            index = self._places.of_output(position, given, seen)
            out += self._whole_item(index, {**given, "status": status})
        for index, known in self._items.items():
            out += self._close(index, known, cut=cut)
        if isinstance(usage := response.get("usage"), dict):
            read_usage(usage, self._usage)
        # Any other reason counts as "length": the model had more to say.
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
        """A ``response.failed`` should follow; if it comes, it decides."""
        self._failure = _failure(sub(data, "error") or data, data)
        return []

    def _end(self, event: Event) -> list[Event]:
        self._over = True
        return [event]

    # ------------------------------------------------------------ items

    def _added(self, data: dict[str, Any]) -> list[Event]:
        given, out = sub(data, "item"), list[Event]()
        self._item_at(self._places.of(data, string(given, "type")), given, out)
        return out

    def _item(
        self, data: dict[str, Any], kind: str, out: list[Event]
    ) -> tuple[int, ReadItem | None]:
        """The item of type *kind* that an event is about; opened if it is new."""
        index, ident = self._places.of(data, kind), data.get("item_id")
        return index, self._item_at(index, {"type": kind, "id": ident}, out)

    def _item_at(
        self, index: int, given: dict[str, Any], out: list[Event]
    ) -> ReadItem | None:
        kind, name = string(given, "type"), string(given, "name")
        if (known := self._items.get(index)) is not None:
            return known
        if not kind or (kind in CALL_KEYS and not name):
            return None  # a later event may name it
        out += self._lifecycle({})
        item = self._items[index] = ReadItem(self._new_key(), kind)
        self._places.note(index, kind, given)
        if kind == "reasoning":
            out.append(ItemOpen(item.key, "reasoning"))
        elif kind in CALL_KEYS:
            self._open_call(item, given, out)
            self._send_args(item, self._early.pop(index, ""), out)
        elif kind == "web_search_call":
            out.append(SearchOpen(item.key))
        return item

    def _open_call(
        self, item: ReadItem, given: dict[str, Any], out: list[Event]
    ) -> None:
        kind: Kind = "custom" if item.type == "custom_tool_call" else "function"
        call_id = string(given, "call_id") or string(given, "id")
        name, namespace = string(given, "name"), string(given, "namespace")
        out.append(CallOpen(item.key, call_id, name, kind, namespace))

    def _done(self, data: dict[str, Any]) -> list[Event]:
        """An item is whole: send what has not been sent, and close it."""
        given = sub(data, "item")
        return self._whole_item(self._places.of(data, string(given, "type")), given)

    def _whole_item(self, index: int, given: dict[str, Any]) -> list[Event]:
        out: list[Event] = []
        item = self._item_at(index, given, out)
        if item is None or item.closed:
            return out
        if item.type == "message":
            out += self._parts.message(index, given.get("content"))
        elif item.type in CALL_KEYS:
            text = written(given.get(CALL_KEYS[item.type]))
            self._send_args(item, text[item.length :], out)
        elif item.type == "reasoning":
            self._send_thought(item, item.thought.all(given), out)
            if blob := string(given, "encrypted_content"):
                out.append(Signature(item.key, "blob", blob, string(given, "id")))
        cut = given.get("status") == "incomplete"
        return out + self._close(index, item, cut=cut, given=given)

    def _close(
        self,
        index: int,
        item: ReadItem,
        *,
        cut: bool,
        given: dict[str, Any] | None = None,
    ) -> list[Event]:
        if item.closed:
            return []
        item.closed = True
        self._places.close(index)
        status: Status = "incomplete" if cut else "completed"
        if item.type == "message":
            return self._parts.close(index, status)
        if item.type == "web_search_call":
            return [search_found(item.key, given or {})]
        known = item.type in CALL_KEYS or item.type == "reasoning"
        return [ItemClose(item.key, status)] if known else []

    # ------------------------------------------------------------ calls

    def _args(self, data: dict[str, Any]) -> list[Event]:
        return self._more_args(data, string(data, "delta"), whole=False)

    def _args_done(self, data: dict[str, Any]) -> list[Event]:
        text = written(data.get("arguments", data.get("input")))
        return self._more_args(data, text, whole=True)

    def _more_args(
        self, data: dict[str, Any], text: str, *, whole: bool
    ) -> list[Event]:
        """A piece of a call's arguments, or the *whole* of them."""
        custom = string(data, "type").startswith("response.custom")
        index = self._places.of(data, "custom_tool_call" if custom else "function_call")
        item, out = self._items.get(index), list[Event]()
        if item is None:
            self._early[index] = text if whole else self._early.get(index, "") + text
        elif not item.closed and item.type in CALL_KEYS:
            self._send_args(item, text[item.length :] if whole else text, out)
        return out

    def _send_args(self, item: ReadItem, text: str, out: list[Event]) -> None:
        if text:
            item.length += len(text)
            out.append(ArgsDelta(item.key, text))

    # ------------------------------------------------------------ messages

    def _text(self, data: dict[str, Any]) -> list[Event]:
        delta = string(data, "delta")
        out = self._parts.text(self._place(data), delta)
        return self._more(data, "text", delta) if out is None else out

    def _text_done(self, data: dict[str, Any]) -> list[Event]:
        return self._more(data, "text", string(data, "text"), whole=True)

    def _refusal(self, data: dict[str, Any]) -> list[Event]:
        return self._more(data, "refusal", string(data, "delta"))

    def _refusal_done(self, data: dict[str, Any]) -> list[Event]:
        return self._more(data, "refusal", string(data, "refusal"), whole=True)

    def _place(self, data: dict[str, Any]) -> Place:
        return self._places.of(data, "message"), number(data, "content_index")

    def _more(
        self, data: dict[str, Any], kind: PartKind, text: str, *, whole: bool = False
    ) -> list[Event]:
        """A piece of a text or refusal, or the *whole*."""
        out: list[Event] = []
        index, item = self._item(data, "message", out)
        if item and item.type == "message" and not item.closed:
            at = index, number(data, "content_index")
            out += self._parts.tell(at, kind, text, whole=whole)
        return out

    def _part_done(self, data: dict[str, Any]) -> list[Event]:
        given, out = sub(data, "part"), list[Event]()
        if given.get("type") == "reasoning_text":
            return self._think(data, "raw", string(given, "text"), whole=True)
        index, item = self._item(data, "message", out)
        if item and item.type == "message" and not item.closed:
            out += self._parts.done((index, number(data, "content_index")), given)
        return out

    def _annotation(self, data: dict[str, Any]) -> list[Event]:
        return self._parts.annotation(self._place(data), data.get("annotation"))

    # ------------------------------------------------------------ reasoning

    def _summary(self, data: dict[str, Any]) -> list[Event]:
        return self._think(data, "summary", string(data, "delta"))

    def _raw(self, data: dict[str, Any]) -> list[Event]:
        return self._think(data, "raw", string(data, "delta"))

    def _summary_done(self, data: dict[str, Any]) -> list[Event]:
        text = string(sub(data, "part") or data, "text")
        return self._think(data, "summary", text, whole=True)

    def _raw_done(self, data: dict[str, Any]) -> list[Event]:
        return self._think(data, "raw", string(data, "text"), whole=True)

    def _think(
        self, data: dict[str, Any], source: Source, text: str, *, whole: bool = False
    ) -> list[Event]:
        """A piece of a part of the reasoning, or the *whole* part."""
        out: list[Event] = []
        _, item = self._item(data, "reasoning", out)
        if item is None or item.closed or item.type != "reasoning":
            return out
        thought = item.thought
        index = "summary_index" if source == "summary" else "content_index"
        take = thought.rest if whole else thought.more
        self._send_thought(item, take(source, number(data, index), text), out)
        return out

    def _send_thought(self, item: ReadItem, text: str, out: list[Event]) -> None:
        if text:
            out.append(ReasoningDelta(item.key, text))


_READ: dict[str, Callable[[ResponsesReader, dict[str, Any]], list[Event]]] = {
    "response.output_text.delta": ResponsesReader._text,
    "response.refusal.delta": ResponsesReader._refusal,
    "response.function_call_arguments.delta": ResponsesReader._args,
    "response.custom_tool_call_input.delta": ResponsesReader._args,
    "response.reasoning_summary_text.delta": ResponsesReader._summary,
    "response.reasoning_text.delta": ResponsesReader._raw,
    "response.reasoning.delta": ResponsesReader._raw,
    "response.output_text.done": ResponsesReader._text_done,
    "response.refusal.done": ResponsesReader._refusal_done,
    "response.function_call_arguments.done": ResponsesReader._args_done,
    "response.custom_tool_call_input.done": ResponsesReader._args_done,
    "response.reasoning_summary_text.done": ResponsesReader._summary_done,
    "response.reasoning_summary_part.done": ResponsesReader._summary_done,
    "response.reasoning_text.done": ResponsesReader._raw_done,
    "response.reasoning.done": ResponsesReader._raw_done,
    "response.output_item.added": ResponsesReader._added,
    "response.output_item.done": ResponsesReader._done,
    "response.content_part.done": ResponsesReader._part_done,
    "response.output_text.annotation.added": ResponsesReader._annotation,
    "response.created": ResponsesReader._lifecycle,
    "response.queued": ResponsesReader._lifecycle,
    "response.in_progress": ResponsesReader._lifecycle,
    "response.completed": ResponsesReader._terminal,
    "response.incomplete": ResponsesReader._terminal,
    "response.failed": ResponsesReader._failed,
    "response.cancelled": ResponsesReader._failed,
    "error": ResponsesReader._error,
}


def _failure(error: dict[str, Any], data: dict[str, Any]) -> Fail:
    detail = f"{error.get('code') or error.get('type')}: {error.get('message')}"
    return Fail(UpstreamError("upstream_failed", detail=detail[:500]), data)
