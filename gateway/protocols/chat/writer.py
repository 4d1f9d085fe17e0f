"""
Chat Completions, written: the events of ``protocols.events`` as chunks or as a body.

    role chunk, delta*, finish chunk, usage chunk?, [DONE]

Source: the OpenAI API reference (chat completion chunks); ``reasoning_content`` is what
DeepSeek, vLLM and most clients call reasoning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.protocols.codec import AnswerSettings
from gateway.protocols.delta_template import Say
from gateway.protocols.event_json import dump, joined, quote
from gateway.protocols.events import (
    Annotation,
    ArgsDelta,
    CallOpen,
    Delta,
    Event,
    Finish,
    ItemClose,
    ItemOpen,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from gateway.usage import Usage

_REASONS = {"length": "length", "context": "length", "filter": "content_filter"}
_DONE = b"data: [DONE]\n\n"
_MEMBERS: dict[type, bytes] = {
    TextDelta: b"content",
    RefusalDelta: b"refusal",
    ReasoningDelta: b"reasoning_content",
}


class _WrittenCall:
    """One call: its index among the calls, and whether arguments have come."""

    __slots__ = ("index", "custom", "head", "tail", "any")

    def __init__(self, index: int, custom: bool, head: bytes, tail: bytes) -> None:
        self.index = index
        self.custom = custom
        self.head = head  # of a chunk with more arguments, up to their JSON string
        self.tail = tail
        self.any = False


class ChatWriter:
    """One answer for a Chat client."""

    def __init__(self, settings: AnswerSettings) -> None:
        self.response_id = "chatcmpl-" + settings.seed
        self.terminal = b""
        self._settings = settings
        self._usage_asked = settings.asked.include_usage
        self._head = (
            b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,'
            b'"model":%b,"choices":['
            % (self.response_id.encode(), settings.created_at, quote(settings.model))
        )
        null_usage = b',"usage":null' if self._usage_asked else b""
        self._delta = self._head + b'{"index":0,"delta":'
        self._tail = b',"logprobs":null,"finish_reason":null}]%b}\n\n' % null_usage
        self._null_usage = null_usage
        self._text_head = self._delta + b'{"content":'
        self._text_tail = b"}" + self._tail
        self._begun = False
        self._calls: dict[int, _WrittenCall] = {}
        self._position = 0  # characters of text written
        self._offsets: dict[int, int] = {}  # where a text begins in all of them
        self._thought = False
        self._gap = ""  # what parts one stretch of reasoning from the next

    def write(self, event: Event) -> bytes:
        """See ``AnswerWriter``."""
        write = _WRITE.get(type(event))
        if self._begun:
            return write(self, event) if write else b""
        self._begun = True
        first = self._chunk(b'{"role":"assistant","content":"","refusal":null}')
        return first + write(self, event) if write else first

    def repeats(self, event: Delta) -> Say:
        """See ``AnswerWriter``."""
        if isinstance(event, ArgsDelta):
            call = self._calls[event.key]
            head, tail = call.head, call.tail
        else:
            head = self._delta + b'{"%b":' % _MEMBERS[type(event)]
            tail = self._text_tail
        counts = isinstance(event, TextDelta)
        head, tail = head + b'"', b'"' + tail
        between = tail + head

        def say(strings: list[bytes], text: str) -> bytes:
            if counts:
                self._position += len(text)
            return head + between.join(strings) + tail

        return say

    def _chunk(self, delta: bytes) -> bytes:
        return self._delta + delta + self._tail

    def _text(self, event: TextDelta) -> bytes:
        self._position += len(event.text)
        return self._text_head + quote(event.text) + self._text_tail

    def _refusal(self, event: RefusalDelta) -> bytes:
        return self._chunk(b'{"refusal":%b}' % quote(event.text))

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        text, self._gap = self._gap + event.text, ""
        self._thought = True
        return self._chunk(b'{"reasoning_content":%b}' % quote(text))

    def _open(self, event: ItemOpen) -> bytes:
        self._offsets[event.key] = self._position
        if event.kind == "reasoning" and self._thought:
            self._gap = "\n\n"
        return b""

    def _call(self, event: CallOpen) -> bytes:
        index, custom = len(self._calls), event.kind == "custom"
        kind, field = (b"custom", b"input") if custom else (b"function", b"arguments")
        self._calls[event.key] = _WrittenCall(
            index,
            custom,
            self._delta
            + b'{"tool_calls":[{"index":%d,"%b":{"%b":' % (index, kind, field),
            b"}}]}" + self._tail,
        )
        return self._chunk(
            b'{"tool_calls":[{"index":%d,"id":%b,"type":"%b",'
            b'"%b":{"name":%b,"%b":""}}]}'
            % (index, quote(event.call_id), kind, kind, quote(event.name), field)
        )

    def _args(self, event: ArgsDelta) -> bytes:
        call = self._calls[event.key]
        call.any = True
        return call.head + quote(event.text) + call.tail

    def _close(self, event: ItemClose) -> bytes:
        """A call without arguments has an empty object, never an empty text."""
        call = self._calls.get(event.key)
        if call is None or call.any or call.custom or event.status == "incomplete":
            return b""
        return call.head + b'"{}"' + call.tail

    def _annotation(self, event: Annotation) -> bytes:
        cited = _citation(event, self._offsets.get(event.key, 0))
        return self._chunk(dump({"annotations": [cited]}))

    def _finish(self, event: Finish) -> bytes:
        reason = self._reason(event, bool(self._calls))
        self.terminal = self._delta + (
            b'{},"logprobs":null,"finish_reason":"%b"}]%b}\n\n'
            % (reason.encode(), self._null_usage)
        )
        if self._usage_asked and (usage := usage_object(event.usage)):
            self.terminal += self._head + b'],"usage":%b}\n\n' % dump(usage)
        self.terminal += _DONE
        return b""

    @staticmethod
    def _reason(event: Finish, called: bool) -> str:
        return _REASONS.get(event.reason) or ("tool_calls" if called else "stop")

    # ------------------------------------------------------------ non-stream

    def body(self, events: list[Event]) -> dict[str, Any]:
        """See ``AnswerWriter``."""
        fold = _ChatFold()
        for event in events:
            fold.take(event)
        finish = fold.finish
        body: dict[str, Any] = {
            "id": self.response_id,
            "object": "chat.completion",
            "created": self._settings.created_at,
            "model": self._settings.model,
            "choices": [
                {
                    "index": 0,
                    "message": fold.message(),
                    "logprobs": None,
                    "finish_reason": self._reason(finish, bool(fold.calls)),
                }
            ],
        }
        if usage := usage_object(finish.usage):
            body["usage"] = usage
        if finish.tier:
            body["service_tier"] = finish.tier
        return body


_WRITE: dict[type, Callable[[ChatWriter, Any], bytes]] = {
    TextDelta: ChatWriter._text,
    RefusalDelta: ChatWriter._refusal,
    ReasoningDelta: ChatWriter._reasoning,
    ArgsDelta: ChatWriter._args,
    CallOpen: ChatWriter._call,
    ItemOpen: ChatWriter._open,
    ItemClose: ChatWriter._close,
    Annotation: ChatWriter._annotation,
    Finish: ChatWriter._finish,
}


class _ChatFold:
    """The message that events make up."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {"text": [], "refusal": [], "reasoning": []}
        self.calls: dict[int, tuple[CallOpen, list[str]]] = {}
        self.annotations: list[dict[str, Any]] = []
        self.offsets: dict[int, int] = {}
        self._gap = ""
        self.finish = Finish("end", Usage())

    def take(self, event: Event) -> None:
        """Add one event."""
        if isinstance(event, TextDelta):
            self.texts["text"].append(event.text)
        elif isinstance(event, RefusalDelta):
            self.texts["refusal"].append(event.text)
        elif isinstance(event, ReasoningDelta):
            self.texts["reasoning"].append(self._gap + event.text)
            self._gap = ""
        elif isinstance(event, ItemOpen):
            self.offsets[event.key] = sum(map(len, self.texts["text"]))
            if event.kind == "reasoning" and self.texts["reasoning"]:
                self._gap = "\n\n"
        elif isinstance(event, CallOpen):
            self.calls[event.key] = event, []
        elif isinstance(event, ArgsDelta):
            self.calls[event.key][1].append(event.text)
        elif isinstance(event, Annotation):
            offset = self.offsets.get(event.key, 0)
            self.annotations.append(_citation(event, offset))
        elif isinstance(event, Finish):
            self.finish = event

    def message(self) -> dict[str, Any]:
        """The message, with every key that strict checkers want."""
        text = joined(self.texts["text"])
        refusal = joined(self.texts["refusal"])
        reasoning = joined(self.texts["reasoning"])
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self.calls or refusal else ""),
            "refusal": refusal or None,
        }
        if reasoning:
            message["reasoning_content"] = reasoning
        if self.annotations:
            message["annotations"] = self.annotations
        if self.calls:
            message["tool_calls"] = [
                _whole_call(call, joined(pieces))
                for call, pieces in self.calls.values()
            ]
        return message


def _whole_call(call: CallOpen, arguments: str) -> dict[str, Any]:
    if call.kind == "custom":
        custom = {"name": call.name, "input": arguments}
        return {"id": call.call_id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": arguments or "{}"}
    return {"id": call.call_id, "type": "function", "function": function}


def _citation(event: Annotation, offset: int) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "url_citation": {
            "url": event.url,
            "title": event.title,
            "start_index": offset + event.start,
            "end_index": offset + event.end,
        },
    }


def usage_object(usage: Usage) -> dict[str, Any] | None:
    """``usage`` in the form of Chat; None if nothing is known."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens or 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
