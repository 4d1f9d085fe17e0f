"""
Messages, read: stream or body into the events of ``protocols.events``.

A block is closed late, when the next one begins or the stop reason is known: only then
is it known whether a limit cut it.

Source: the Anthropic API reference (streaming messages).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import orjson

from gateway.errors import UpstreamError
from gateway.protocols.delta_template import Growth
from gateway.protocols.event_json import dump, parse, string
from gateway.protocols.events import (
    Annotation,
    ArgsDelta,
    CallOpen,
    Delta,
    Event,
    Fail,
    Finish,
    ItemClose,
    ItemOpen,
    ReasoningDelta,
    RefusalDelta,
    SearchFound,
    SearchOpen,
    Signature,
    Start,
    TextDelta,
)
from gateway.protocols.failure_forms import may_be_failure
from gateway.protocols.json_access import sub
from gateway.protocols.lossless_json import has_long_number, loads
from gateway.protocols.messages.content_block import (
    ContentBlock,
    is_whole_json,
    search_query,
)
from gateway.protocols.messages.protocol import read_usage
from gateway.protocols.sse import payload
from gateway.protocols.stop_reasons import CUT, broken_off, stop_of, unknown
from gateway.protocols.stray_failures import stray
from gateway.usage import Usage

MAX_OPEN_BLOCKS = 256  # of one answer; one more, and the upstream ends none of them
_GROWING = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_use", "partial_json"),
}
"""The type of a delta's block, and where the delta has its text."""
_TIERS = {"standard": "default", "priority": "priority", "batch": "flex"}


class MessagesReader:
    """
    One answer of a Messages upstream.

    Args:
        usage: filled as the upstream reports it.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._blocks: dict[int, ContentBlock] = {}
        self._keys = 0
        self._started = False
        self._over = False
        self._stop: dict[str, Any] = {}
        self._tier = ""

    def handle(self, frame: bytes) -> list[Event]:
        """The events of one whole *frame*."""
        data = parse(frame) or {}
        if self._over:
            return []
        kind = data.get("type")
        if kind == "content_block_start" and has_long_number(frame):
            with suppress(orjson.JSONDecodeError):
                data = loads(payload(frame))  # may bear the whole input of a call
        read = _READ.get(kind) if isinstance(kind, str) else None
        if read is not None:
            return read(self, data)
        if not may_be_failure(kind):
            return []
        failure = stray(frame, payload(frame), data)
        return self._error(failure) if failure else []

    def growth(self, frame: bytes, event: Delta) -> Growth | None:
        """See ``GrowthReader``."""
        data = parse(frame) or {}
        delta, block = sub(data, "delta"), self._block(data)
        if self._over or data.get("type") != "content_block_delta":
            return None
        if block is None or block.key != event.key or not block.opened:
            return None
        kind, member = _GROWING.get(string(delta, "type"), ("", ""))
        text = delta.get(member)
        if kind != block.type or not isinstance(text, str):
            return None
        return Growth(text, None if kind == "thinking" else block.pieces.append)

    def finish(self) -> list[Event]:
        """The upstream's body is at its end."""
        if self._over:
            return []
        if self._stop:
            return self._message_stop({})
        code = "upstream_cut" if self._started else "upstream_empty"
        return self._end(Fail(UpstreamError(code)))

    def read_body(self, body: dict[str, Any]) -> list[Event]:
        """The events of a whole non-stream answer."""
        if body.get("type") == "error" or body.get("error"):
            return self._error(body)
        content = body.get("content")
        if not isinstance(content, list):
            detail = "no content"
            return self._end(Fail(UpstreamError("upstream_malformed", detail=detail)))
        out = self._message_start({"message": body})
        for index, block in enumerate(content):
            if isinstance(block, dict):
                start = {"index": index, "content_block": block}
                out += self._block_start(start)
                out += self._whole(index, block)
                out += self._block_stop(start)
        out += self._message_delta({"delta": body})
        return out if self._over else [*out, *self._message_stop({})]

    def _whole(self, index: int, block: dict[str, Any]) -> list[Event]:
        """What a stream sends in deltas only."""
        out: list[Event] = []
        if isinstance(cited := block.get("citations"), list):
            for citation in cited:
                delta = {"type": "citations_delta", "citation": citation}
                out += self._delta({"index": index, "delta": delta})
        return out

    # ------------------------------------------------------------ the message

    def _message_start(self, data: dict[str, Any]) -> list[Event]:
        message = sub(data, "message")
        self._note_usage(message)
        return self._start(string(message, "id"), string(message, "model"))

    def _start(self, id: str = "", model: str = "") -> list[Event]:
        if self._started:
            return []
        self._started = True
        return [Start(id, model)]

    def _note_usage(self, data: dict[str, Any]) -> None:
        reported = sub(data, "usage")
        read_usage(reported, self._usage)
        if tier := _TIERS.get(string(reported, "service_tier")):
            self._tier = tier

    def _message_delta(self, data: dict[str, Any]) -> list[Event]:
        self._note_usage(data)
        delta = sub(data, "delta")
        reason = string(delta, "stop_reason")
        if not reason:
            return []
        out = self._start()
        if stop_of(reason) == "broken":
            return [*out, *self._end(Fail(broken_off(reason)))]
        self._stop = delta
        cut = stop_of(reason) in CUT
        blocks = list(self._blocks.values())
        for block in blocks:
            out += self._close(block, cut=cut and block is blocks[-1])
        explanation = string(sub(delta, "stop_details"), "explanation")
        if reason == "refusal" and explanation:
            out += self._refuse(explanation)
        return out

    def _message_stop(self, data: dict[str, Any]) -> list[Event]:
        out = self._start()
        for block in list(self._blocks.values()):
            out += self._close(block, last=True)
        details = sub(self._stop, "stop_details")
        word = string(self._stop, "stop_reason")
        stop = stop_of(word)
        finish = Finish(
            "end" if stop == "" or stop == "broken" else stop,
            self._usage,
            sequence=string(self._stop, "stop_sequence"),
            category=string(details, "category"),
            tier=self._tier,
            unknown=unknown(word),
        )
        return [*out, *self._end(finish)]

    def _error(self, data: dict[str, Any]) -> list[Event]:
        error = sub(data, "error")
        detail = f"{error.get('type')}: {error.get('message')}"[:500]
        return self._end(Fail(UpstreamError("upstream_failed", detail=detail), data))

    def _end(self, event: Event) -> list[Event]:
        self._over = True
        return [event]

    # ------------------------------------------------------------ blocks

    def _new_block(self, index: int, type: str) -> ContentBlock:
        self._keys += 1
        block = ContentBlock(self._keys, index, type)
        self._blocks[index] = block
        return block

    def _block_start(self, data: dict[str, Any]) -> list[Event]:
        given = sub(data, "content_block")
        out = self._start()
        full = len(self._blocks) >= MAX_OPEN_BLOCKS
        for known in list(self._blocks.values()):
            last = full or known.index == _index(data)
            if known.stopped or last:
                out += self._close(known, last=last)
        kind = string(given, "type")
        block = self._new_block(_index(data), kind)
        if kind == "text":
            out += self._text(block, given)
        elif kind == "thinking":
            block.opened = True
            out.append(ItemOpen(block.key, "reasoning"))
            out += self._thinking(block, given)
            out += self._signature(block, given)
        elif kind == "redacted_thinking":
            block.opened = True
            out.append(ItemOpen(block.key, "reasoning"))
            out.append(Signature(block.key, "redacted", string(given, "data")))
        elif kind == "tool_use" and (name := string(given, "name")):
            block.opened = True
            block.given = sub(given, "input")
            out.append(CallOpen(block.key, string(given, "id"), name))
        elif kind == "server_tool_use" and given.get("name") == "web_search":
            block.opened = True
            block.id = string(given, "id")
            block.given = sub(given, "input")
            out.append(SearchOpen(block.key))
        elif kind == "web_search_tool_result":
            out += self._found(given)
        return out

    def _block_stop(self, data: dict[str, Any]) -> list[Event]:
        if block := self._block(data):
            block.stopped = True
            if block.type == "tool_use" and block.given and not block.pieces:
                return self._input(block, {"partial_json": dump(block.given).decode()})
        return []

    def _close(
        self, block: ContentBlock, *, cut: bool = False, last: bool = False
    ) -> list[Event]:
        """The end of *block*; *cut* if it is the last of an answer cut short."""
        if block.type == "server_tool_use" and not last:
            return []  # its result is still to come
        self._blocks.pop(block.index, None)
        if not block.opened:
            return []
        block.opened = False
        if block.type == "server_tool_use":
            return [SearchFound(block.key, search_query(block), (), "failed")]
        out: list[Event] = self._cited(block) if block.type == "text" else []
        if block.type == "tool_use" and cut:
            cut = not is_whole_json(block.pieces)
        return [*out, ItemClose(block.key, "incomplete" if cut else "completed")]

    def _block(self, data: dict[str, Any]) -> ContentBlock | None:
        return self._blocks.get(_index(data))

    # ------------------------------------------------------------ deltas

    def _delta(self, data: dict[str, Any]) -> list[Event]:
        delta = data.get("delta")
        if not isinstance(delta, dict):
            return []
        block = self._block(data)
        kind = delta.get("type")
        if block is None:
            if kind != "text_delta":
                return []
            block = self._new_block(_index(data), "text")
        read = _READ_DELTA.get(kind) if isinstance(kind, str) else None
        return read(self, block, delta) if read else []

    def _text(self, block: ContentBlock, delta: dict[str, Any]) -> list[Event]:
        text = delta.get("text")
        if not isinstance(text, str) or not text or block.type != "text":
            return []
        block.pieces.append(text)
        if block.opened:
            return [TextDelta(block.key, text)]
        block.opened = True
        return [ItemOpen(block.key, "text"), TextDelta(block.key, text)]

    def _thinking(self, block: ContentBlock, delta: dict[str, Any]) -> list[Event]:
        text = string(delta, "thinking")
        thinks = block.type == "thinking"
        return [ReasoningDelta(block.key, text)] if text and thinks else []

    def _signature(self, block: ContentBlock, delta: dict[str, Any]) -> list[Event]:
        value = string(delta, "signature")
        if not value or block.type != "thinking":
            return []
        return [Signature(block.key, "signature", value)]

    def _input(self, block: ContentBlock, delta: dict[str, Any]) -> list[Event]:
        text = string(delta, "partial_json")
        if not text:
            return []
        block.pieces.append(text)
        called = block.type == "tool_use" and block.opened
        return [ArgsDelta(block.key, text)] if called else []

    def _citation(self, block: ContentBlock, delta: dict[str, Any]) -> list[Event]:
        if citation := sub(delta, "citation"):
            block.cited.append(citation)
        return []

    def _cited(self, block: ContentBlock) -> list[Event]:
        """Web pages cited for a whole text block; cited documents are left out."""
        length = sum(map(len, block.pieces))
        return [
            Annotation(block.key, url, string(citation, "title"), 0, length)
            for citation in block.cited
            if (url := string(citation, "url"))
        ]

    def _found(self, given: dict[str, Any]) -> list[Event]:
        """The result of a web search, which ends its call."""
        content = given.get("content")
        pages = content if isinstance(content, list) else []
        found = tuple(
            (url, string(page, "title"))
            for page in pages
            if isinstance(page, dict) and (url := string(page, "url"))
        )
        for block in self._blocks.values():
            if block.opened and block.id and block.id == given.get("tool_use_id"):
                block.opened = False
                self._blocks.pop(block.index)
                status: Literal["completed", "failed"] = (
                    "completed" if isinstance(content, list) else "failed"
                )
                return [SearchFound(block.key, search_query(block), found, status)]
        return []

    def _refuse(self, text: str) -> list[Event]:
        self._keys += 1
        key = self._keys
        close = ItemClose(key, "incomplete")
        return [ItemOpen(key, "refusal"), RefusalDelta(key, text), close]


_READ: dict[str, Callable[[MessagesReader, dict[str, Any]], list[Event]]] = {
    "content_block_delta": MessagesReader._delta,
    "content_block_start": MessagesReader._block_start,
    "content_block_stop": MessagesReader._block_stop,
    "message_start": MessagesReader._message_start,
    "message_delta": MessagesReader._message_delta,
    "message_stop": MessagesReader._message_stop,
    "error": MessagesReader._error,
}


_READ_DELTA: dict[
    str, Callable[[MessagesReader, ContentBlock, dict[str, Any]], list[Event]]
] = {
    "text_delta": MessagesReader._text,
    "thinking_delta": MessagesReader._thinking,
    "input_json_delta": MessagesReader._input,
    "signature_delta": MessagesReader._signature,
    "citations_delta": MessagesReader._citation,
}


def _index(data: dict[str, Any]) -> int:
    index = data.get("index")
    return index if isinstance(index, int) else -1
