"""
Chat Completions, read: chunks or a body into the events of ``protocols.events``.

Servers differ much. Accepted besides OpenAI's own form: ``reasoning_content`` and
``reasoning``, whole calls without index, an index that starts anew, calls without id,
arguments as an object, ``function_call``, usage on any chunk, no ``finish_reason``, no
``[DONE]``, several finish reasons.

Source: the OpenAI API reference; chunks of vLLM, llama.cpp, DeepSeek, OpenRouter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import orjson

from gateway.errors import UpstreamError
from gateway.protocols.chat.wire import read_usage
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
    Start,
    TextDelta,
)
from gateway.protocols.frames import dump, is_done, parse, string
from gateway.protocols.model import Kind
from gateway.protocols.wire import sub
from gateway.usage import Usage, count

_REASONS: dict[str, Reason] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "filter",
}
_Said = Literal["text", "refusal", "reasoning"]
_DELTAS: dict[str, Callable[[int, str], Event]] = {
    "text": TextDelta,
    "refusal": RefusalDelta,
    "reasoning": ReasoningDelta,
}


class _Call:
    """One call while its fragments come."""

    __slots__ = ("key", "id", "name", "pieces", "opened", "closed")

    def __init__(self, key: int) -> None:
        self.key = key
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.opened = False
        self.closed = False

    @property
    def whole(self) -> bool:
        """Whether the arguments are JSON, so that nothing can follow."""
        text = "".join(self.pieces)
        if not text.strip():
            return not text
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return False
        return True


class Reader:
    """
    One answer of a Chat upstream.

    Args:
        usage: filled as the upstream tells it.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._keys = 0
        self._said = ""  # the kind of the open text, refusal or reasoning
        self._said_key = -1
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._started = False
        self._output = False
        self._reason = ""
        self._tier = ""
        self._over = False

    def handle(self, frame: bytes) -> list[Event]:
        """The events of one whole *frame*."""
        chunk = parse(frame)
        if chunk is None:
            return self._done() if is_done(frame) else []
        return [] if self._over else self._chunk(chunk)

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
        if not self._started:
            self._started = True
            out.append(Start(string(chunk, "id"), string(chunk, "model")))
        choices = chunk.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict) and not choice.get("index"):
                    self._choice(choice, chunk, out)
                    break
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            read_usage(usage, self._usage)
        if tier := chunk.get("service_tier"):
            self._tier = tier if isinstance(tier, str) else ""
        return out

    def _choice(
        self, choice: dict[str, Any], chunk: dict[str, Any], out: list[Event]
    ) -> None:
        reason = choice.get("finish_reason")
        if reason == "error":
            out.extend(self._fail("finish_reason: error", chunk))
            return
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._delta(delta, out)
        if isinstance(reason, str) and reason:
            # The first counts, unless a later one says that a limit cut it.
            if not self._reason or reason in _REASONS:
                self._reason = reason
            self._close_all(out)

    def _delta(self, delta: dict[str, Any], out: list[Event]) -> None:
        if text := delta.get("reasoning_content") or delta.get("reasoning"):
            self._say("reasoning", text, out)
        if text := delta.get("content"):
            self._say("text", text, out)
        if text := delta.get("refusal"):
            self._say("refusal", text, out)
        if notes := delta.get("annotations"):
            self._annotate(notes, out)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for fragment in calls:
                if isinstance(fragment, dict):
                    self._fragment(fragment, out)
        if isinstance(legacy := delta.get("function_call"), dict):
            self._fragment({"index": 0, "function": legacy}, out)

    def _say(self, kind: _Said, text: Any, out: list[Event]) -> None:
        if not isinstance(text, str):
            if not isinstance(text, list):
                return
            parts = (string(part, "text") for part in text if isinstance(part, dict))
            text = "".join(parts)
            if not text:
                return
        if kind != self._said:
            self._close_said(out)
            self._said, self._said_key = kind, self._keys
            self._keys += 1
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

    # ------------------------------------------------------------ calls

    def _fragment(self, fragment: dict[str, Any], out: list[Event]) -> None:
        body = sub(fragment, "function") or sub(fragment, "custom")
        call = self._call_of(fragment, string(body, "name"), out)
        if call is None or call.closed:
            return
        call.id = call.id or string(fragment, "id")
        call.name = call.name or string(body, "name")
        text = body.get("arguments") or body.get("input") or ""
        text = text if isinstance(text, str) else dump(text).decode()
        if not call.opened and call.name:
            call.opened = True
            self._output = True
            self._close_said(out)
            kind: Kind = "custom" if fragment.get("type") == "custom" else "function"
            out.append(CallOpen(call.key, call.id, call.name, kind))
            text = "".join(call.pieces) + text
            call.pieces.clear()
        if text:
            call.pieces.append(text)
            if call.opened:
                out.append(ArgsDelta(call.key, text))

    def _call_of(
        self, fragment: dict[str, Any], name: str, out: list[Event]
    ) -> _Call | None:
        """The call that *fragment* belongs to; a new id is a new call."""
        index, call_id = fragment.get("index"), string(fragment, "id")
        call = self._by_index.get(index) if isinstance(index, int) else None
        if not isinstance(index, int):
            index = None
            same = [known for known in self._calls if call_id and known.id == call_id]
            last = self._calls[-1] if self._calls else None
            call = same[0] if same else (None if call_id else last)
            if call and not same and name and call.pieces and call.whole:
                call = None  # whole calls, one after the other, without any mark
        elif call and call_id and call.id and call.id != call_id:
            call = None
        if call is None:
            if not (name or call_id):
                return None  # the rest of nothing
            call = self._new_call(out)
            if index is not None:
                self._by_index[index] = call
        return call

    def _new_call(self, out: list[Event]) -> _Call:
        """A call whose arguments are whole ends when the next one begins."""
        for known in self._calls:
            if known.opened and not known.closed and known.pieces and known.whole:
                known.closed = True
                out.append(ItemClose(known.key))
        call = _Call(self._keys)
        self._keys += 1
        self._calls.append(call)
        return call

    # ------------------------------------------------------------ endings

    def _close_said(self, out: list[Event], *, last: bool = False) -> None:
        if self._said:
            cut = last and self._reason in _REASONS
            out.append(ItemClose(self._said_key, "incomplete" if cut else "completed"))
            self._said = ""

    def _close_all(self, out: list[Event]) -> None:
        cut = self._reason in _REASONS
        self._close_said(out, last=True)
        for call in self._calls:
            if call.opened and not call.closed:
                call.closed = True
                broken = cut and (not call.pieces or not call.whole)
                out.append(ItemClose(call.key, "incomplete" if broken else "completed"))

    def _done(self) -> list[Event]:
        if self._over:
            return []
        if self._reason or self._output:
            return self._finish()
        return self._end(Fail(UpstreamError("upstream_empty")))

    def _finish(self) -> list[Event]:
        out: list[Event] = []
        self._close_all(out)
        reason = _REASONS.get(self._reason, "end")
        finish = Finish(reason, self._usage, tier=self._tier)
        return [*out, *self._end(finish)]

    def _fail(self, error: object, chunk: dict[str, Any]) -> list[Event]:
        told = error if isinstance(error, dict) else {"message": error}
        detail = f"{told.get('code') or told.get('type')}: {told.get('message')}"
        return self._end(
            Fail(UpstreamError("upstream_failed", detail=detail[:500]), chunk)
        )

    def _end(self, event: Event) -> list[Event]:
        self._over = True
        return [event]
