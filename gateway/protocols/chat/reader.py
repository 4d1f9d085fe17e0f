"""
Chat Completions, read: chunks or a body into the events of ``protocols.events``.

Servers differ much. Accepted besides OpenAI's own form: ``reasoning_content`` and
``reasoning``, calls of many shapes (``calls``), ``function_call``, usage on any chunk,
no ``finish_reason``, no ``[DONE]``, several finish reasons.

Source: the OpenAI API reference; chunks of vLLM, llama.cpp, DeepSeek, OpenRouter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container
from typing import Any, Literal

from gateway.errors import UpstreamError
from gateway.protocols.chat.call_assembler import CallAssembler
from gateway.protocols.delta_template import Growth
from gateway.protocols.event_json import is_done, parse, string
from gateway.protocols.events import (
    Annotation,
    CallOpen,
    Delta,
    Event,
    Fail,
    Finish,
    ItemClose,
    ItemOpen,
    Private,
    Reason,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
)
from gateway.protocols.json_access import objects, sub
from gateway.protocols.opaque import MESSAGE_MEMBERS, Collected, members
from gateway.protocols.sse import payload
from gateway.protocols.stop_reasons import CUT, Stop, broken_off, stop_of, unknown
from gateway.protocols.stray_failures import stray
from gateway.protocols.usage_fields import read_usage, usage_objects
from gateway.usage import Usage, count

_REASONS: dict[Stop, Reason] = {
    "length": "length",
    "context": "context",
    "filter": "filter",
}
_Said = Literal["text", "refusal", "reasoning"]
_DELTAS: dict[str, Callable[[int, str], Event]] = {
    "text": TextDelta,
    "refusal": RefusalDelta,
    "reasoning": ReasoningDelta,
}
_TEXTS: dict[str, _Said] = {
    "content": "text",
    "refusal": "refusal",
    "reasoning_content": "reasoning",
    "reasoning": "reasoning",
}
_READ = (*_TEXTS, *MESSAGE_MEMBERS, "annotations", "tool_calls", "function_call")


class ChatReader:
    """
    One answer of a Chat upstream.

    Args:
        usage: filled as the upstream reports it.
        declared: the names of the request's tools.
    """

    def __init__(self, usage: Usage, declared: Container[str] = ()) -> None:
        self._usage = usage
        self._keys = itertools.count()
        self._said = ""  # the kind of the open text, refusal or reasoning
        self._said_key = -1
        self._calls = CallAssembler(self._keys.__next__, declared)
        self._started = False
        self._output = False
        self._own = Collected()  # what the server wants back with the next turn
        self._reason = ""  # in the upstream's word
        self._stop: Stop = ""
        self._tier = ""
        self._over = False

    def handle(self, frame: bytes) -> list[Event]:
        """The events of one whole *frame*."""
        chunk = parse(frame)
        if chunk is None and is_done(frame):
            return self._done()
        if self._over:
            return []
        if not chunk or not chunk.get("choices"):
            if failure := stray(frame, payload(frame), chunk or {}):
                return self._fail(failure.get("error") or failure, failure)
        return self._chunk(chunk) if chunk is not None else []

    def growth(self, frame: bytes, event: Delta) -> Growth | None:
        """See ``GrowthReader``."""
        chunk = parse(frame) or {}
        choices = chunk.get("choices")
        if self._over or chunk.get("error") or any(usage_objects(chunk)):
            return None
        if not (isinstance(choices, list) and len(choices) == 1):
            return None
        choice = choices[0] if isinstance(choices[0], dict) else {}
        delta = choice.get("delta", choice.get("message"))
        if choice.get("index") or choice.get("finish_reason"):
            return None
        if not isinstance(delta, dict):
            return None
        given = [name for name in _READ if delta.get(name)]
        if given == ["tool_calls"]:
            return self._calls.growth(delta["tool_calls"], event.key)
        if len(given) != 1 or _TEXTS.get(given[0]) != self._said:
            return None
        text, is_open = delta[given[0]], event.key == self._said_key
        return Growth(text) if is_open and isinstance(text, str) else None

    def finish(self) -> list[Event]:
        """The upstream's body is at its end."""
        if self._over:
            return []
        if self._reason:
            return self._finish()
        code = "upstream_cut" if self._started else "upstream_empty"
        return self._end(Fail(UpstreamError(code)))

    def read_body(self, body: dict[str, Any]) -> list[Event]:
        """The events of a whole non-stream answer."""
        chunk = dict(body)
        choices = body.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(first, dict):
            message = dict(sub(first, "message"))
            calls = message.get("tool_calls")
            if isinstance(calls, list):
                message["tool_calls"] = [
                    {**call, "index": index}
                    for index, call in enumerate(calls)
                    if isinstance(call, dict)
                ]
            chunk["choices"] = [{**first, "index": 0, "delta": message}]
        elif not body.get("error"):
            return [Fail(UpstreamError("upstream_malformed", detail="no choices"))]
        events = self._chunk(chunk)
        return events if self._over else [*events, *self._finish()]

    # ------------------------------------------------------------ one chunk

    def _chunk(self, chunk: dict[str, Any]) -> list[Event]:
        if error := chunk.get("error"):
            return self._fail(error, chunk)
        out: list[Event] = []
        choices = chunk.get("choices")
        if not self._started and (choices or chunk.get("id")):
            self._started = True
            out.append(Start(string(chunk, "id"), string(chunk, "model")))
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict) and not choice.get("index"):
                    self._choice(choice, out)
                    break
        for usage in usage_objects(chunk):
            read_usage(usage, self._usage)
        if tier := chunk.get("service_tier"):
            self._tier = tier if isinstance(tier, str) else ""
        return out

    def _choice(self, choice: dict[str, Any], out: list[Event]) -> None:
        reason = choice.get("finish_reason")
        stop = stop_of(reason)
        if stop == "broken":
            out.extend(self._end(Fail(broken_off(str(reason)))))
            return
        # A whole answer in one chunk has a message; one beside a delta repeats it.
        delta = choice.get("delta", choice.get("message"))
        if isinstance(delta, dict):
            self._delta(delta, out)
        if isinstance(reason, str) and reason:
            # The first counts, unless a later one says that a limit cut it.
            if not self._reason or stop in CUT:
                self._reason, self._stop = reason, stop
            self._close_all(out)

    def _delta(self, delta: dict[str, Any], out: list[Event]) -> None:
        self._own.add(members(delta, MESSAGE_MEMBERS))
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        for kind, text in (
            *_said("reasoning", thought),
            *_said("text", delta.get("content")),
            *_said("refusal", delta.get("refusal")),
        ):
            self._say(kind, text, out)
        if notes := delta.get("annotations"):
            self._annotate(notes, out)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for fragment in calls:
                if isinstance(fragment, dict):
                    self._take_calls(self._calls.take(fragment), out)
        if isinstance(legacy := delta.get("function_call"), dict):
            fragment = {"index": 0, "function": legacy}
            self._take_calls(self._calls.take(fragment), out)

    def _say(self, kind: _Said, text: str, out: list[Event]) -> None:
        if kind != self._said:
            self._close_said(out)
            if kind != "reasoning":
                self._emit_own(out)
            self._said, self._said_key = kind, next(self._keys)
            self._output = True
            out.append(ItemOpen(self._said_key, kind))
        out.append(_DELTAS[kind](self._said_key, text))

    def _annotate(self, notes: Any, out: list[Event]) -> None:
        if self._said != "text" or not isinstance(notes, list):
            return
        for note in notes:
            cited = sub(note, "url_citation") if isinstance(note, dict) else {}
            if url := string(cited, "url"):
                start = count(cited.get("start_index")) or 0
                end = count(cited.get("end_index")) or 0
                title = string(cited, "title")
                out.append(Annotation(self._said_key, url, title, start, end))

    def _take_calls(self, events: list[Event], out: list[Event]) -> None:
        if any(isinstance(event, CallOpen) for event in events):
            self._output = True
            self._close_said(out)
            self._emit_own(out)
        out += events

    def _emit_own(self, out: list[Event]) -> None:
        """Emit what the server wants back, if it can before the item it belongs to."""
        if fields := self._own.taken():
            out.append(Private(next(self._keys), -1, fields))

    # ------------------------------------------------------------ endings

    def _close_said(self, out: list[Event], *, last: bool = False) -> None:
        if self._said:
            cut = last and self._stop in CUT
            out.append(ItemClose(self._said_key, "incomplete" if cut else "completed"))
            self._said = ""

    def _close_all(self, out: list[Event]) -> None:
        self._close_said(out, last=True)
        self._take_calls(self._calls.close(cut=self._stop in CUT), out)

    def _done(self) -> list[Event]:
        if self._over:
            return []
        if self._reason or self._output or self._calls.named:
            return self._finish()
        return self._end(Fail(UpstreamError("upstream_empty")))

    def _finish(self) -> list[Event]:
        out: list[Event] = []
        self._close_all(out)
        self._emit_own(out)
        reason = _REASONS.get(self._stop, "end")
        finish = Finish(
            reason, self._usage, tier=self._tier, unknown=unknown(self._reason)
        )
        return [*out, *self._end(finish)]

    def _fail(self, error: object, chunk: dict[str, Any]) -> list[Event]:
        failure = error if isinstance(error, dict) else {"message": error}
        name = failure.get("code") or failure.get("type")
        detail = f"{name}: {failure.get('message')}"
        return self._end(
            Fail(UpstreamError("upstream_failed", detail=detail[:500]), chunk)
        )

    def _end(self, event: Event) -> list[Event]:
        self._over = True
        return [event]


def _said(kind: _Said, value: Any) -> list[tuple[_Said, str]]:
    """
    The texts of *value*: a text, or a list of parts. Mistral's thinking is a part that
    holds parts itself.
    """
    if isinstance(value, str):
        return [(kind, value)] if value else []
    said: list[tuple[_Said, str]] = []
    for part in objects(value):
        if part.get("type") == "thinking":
            said += _said("reasoning", part.get("thinking"))
        else:
            said += _said(kind, part.get("text"))
    return said
