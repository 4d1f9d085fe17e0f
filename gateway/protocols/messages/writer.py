"""
Messages, written: the events of ``protocols.events`` as a stream or as a body.

Rule 1: one block is open at a time and indices are dense; what belongs to another part
        waits until the open block is closed.
Rule 2: the words of a refusal wait for the end: only then it is known whether they are
        the answer (a text) or explain why the vendor's filter cut it.
Rule 3: a call's input is a JSON object at every moment, whatever the model wrote.

    message_start (start delta* stop)* message_delta message_stop

Source: the Anthropic API reference and its OpenAPI document (required keys).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.protocols.call_arguments import ObjectText
from gateway.protocols.codec import AnswerSettings
from gateway.protocols.delta_template import Say, texts_of
from gateway.protocols.event_json import dump, joined, quote
from gateway.protocols.events import (
    ArgsDelta,
    CallOpen,
    Delta,
    Event,
    Finish,
    ItemClose,
    ItemOpen,
    ReasoningDelta,
    RefusalDelta,
    SearchFound,
    Signature,
    TextDelta,
)
from gateway.protocols.messages.answer import (
    MessageStop,
    call_block,
    delta_usage,
    fold,
    message,
    search_blocks,
    signature_of,
    start_usage,
)

_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TEXT = b'{"type":"text","text":"","citations":null}'
_THINKING = b'{"type":"thinking","thinking":"","signature":""}'
_TAIL = b"}}\n\n"


class MessagesWriter:
    """One answer for a Messages client."""

    def __init__(self, settings: AnswerSettings) -> None:
        self.response_id = "msg_" + settings.seed
        self.terminal = b""
        self._settings = settings
        self._asked = settings.asked
        self._begun = False
        self._silent: set[int] = set()  # parts that make no block
        self._current: int | None = None  # the part whose turn it is
        self._waiting: dict[int, list[Event]] = {}
        self._index = -1  # of the block that was opened last
        self._open = False  # whether that block is still open
        self._head = b""  # of its usual delta, up to the JSON string
        self._input: ObjectText | None = None
        self._refused: list[str] = []
        self._called = False
        self._searches = 0
        self._written = 0  # characters of the answer

    def write(self, event: Event) -> bytes:
        """See ``AnswerWriter``."""
        if self._begun:
            return self._one(event)
        self._begun = True
        usage = start_usage(self._asked.input_tokens)
        begun = message(self.response_id, self._settings.model, [], usage)
        data = dump({"type": "message_start", "message": begun})
        return b"event: message_start\ndata: %b\n\n" % data + self._one(event)

    def repeats(self, event: Delta) -> Say | None:
        """See ``AnswerWriter``."""
        if event.key != self._current or not self._open:
            return None
        if isinstance(event, ArgsDelta):
            return self._say_input
        if isinstance(event, ReasoningDelta) and self._asked.thinking_hidden:
            return None
        head, tail = self._head + b'"', b'"' + _TAIL
        between = tail + head

        def say(strings: list[bytes], text: str) -> bytes:
            self._written += len(text)
            return head + between.join(strings) + tail

        return say

    def _say_input(self, strings: list[bytes], text: str) -> bytes:
        pieces = texts_of(strings) if len(strings) > 1 else [text]
        return b"".join([self._more_input(piece) for piece in pieces])

    def _one(self, event: Event) -> bytes:
        """Write *event* if it is its part's turn, else let it wait."""
        if isinstance(event, Finish):
            return self._finish(event)
        write = _WRITE.get(type(event))
        if write is None:
            if isinstance(event, RefusalDelta):
                self._refused.append(event.text)
            return b""
        key: int = event.key  # type: ignore[union-attr]  # all in _write have one
        if key == self._current:
            return write(self, event)
        if key in self._silent or self._keep_silent(event):
            return b""
        if self._current is None:
            self._current = key
            return write(self, event)
        self._waiting.setdefault(key, []).append(event)
        return b""

    def _keep_silent(self, event: Event) -> bool:
        """Whether *event* begins a part that the client does not see as a block."""
        if isinstance(event, ItemOpen):
            hidden = event.kind == "reasoning" and not self._asked.thinking
            silent = hidden or event.kind == "refusal"
        elif isinstance(event, SearchFound):
            silent = not self._asked.web_search
        else:
            return False
        if silent:
            self._silent.add(event.key)
        return silent

    # ------------------------------------------------------------ blocks

    def _start(self, block: bytes, delta: bytes) -> bytes:
        self._index += 1
        self._open = True
        self._head = (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,"delta":{%b'
            % (self._index, delta)
        )
        return (
            b"event: content_block_start\n"
            b'data: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
            % (self._index, block)
        )

    def _stop(self) -> bytes:
        self._open = False
        return (
            b"event: content_block_stop\n"
            b'data: {"type":"content_block_stop","index":%d}\n\n' % self._index
        )

    def _item(self, event: ItemOpen) -> bytes:
        """A text begins at once, a stretch of thinking when something shows it."""
        if event.kind == "reasoning":
            return b""
        return self._start(_TEXT, b'"type":"text_delta","text":')

    def _text(self, event: TextDelta) -> bytes:
        self._written += len(event.text)
        return self._head + quote(event.text) + _TAIL

    def _think(self) -> bytes:
        if self._open:
            return b""
        return self._start(_THINKING, b'"type":"thinking_delta","thinking":')

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        self._written += len(event.text)
        begun = self._think()
        if self._asked.thinking_hidden:
            return begun
        return begun + self._head + quote(event.text) + _TAIL

    def _signature(self, event: Signature) -> bytes:
        value = quote(signature_of(event))
        return self._think() + (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"signature_delta","signature":%b}}\n\n'
            % (self._index, value)
        )

    def _call(self, event: CallOpen) -> bytes:
        self._called = True
        self._input = ObjectText()
        block = dump(call_block(event, {}))
        return self._start(block, b'"type":"input_json_delta","partial_json":')

    def _args(self, event: ArgsDelta) -> bytes:
        return self._more_input(event.text)

    def _more_input(self, text: str) -> bytes:
        self._written += len(text)
        return self._input_delta(self._input.feed(text) if self._input else "")

    def _input_delta(self, text: str) -> bytes:
        return self._head + quote(text) + _TAIL if text else b""

    def _found(self, event: SearchFound) -> bytes:
        self._searches += 1
        out = b""
        called, result = search_blocks(event, self._settings.seed)
        query = quote(dump(called["input"]).decode())
        out += self._start(dump({**called, "input": {}}), b"")
        out += self._head + b'"type":"input_json_delta","partial_json":' + query
        out += _TAIL + self._stop()
        out += self._start(dump(result), b"") + self._stop()
        return out + self._next()

    def _close(self, event: ItemClose) -> bytes:
        out = b""
        if self._input is not None:
            if event.status == "completed":
                out = self._input_delta(self._input.close())
            self._input = None
        if self._open:
            out += self._stop()
        return out + self._next()

    def _next(self) -> bytes:
        """Let the part go on that has waited longest."""
        self._current = None
        out = b""
        while self._current is None and self._waiting:
            key = next(iter(self._waiting))
            for event in self._waiting.pop(key):
                out += self._one(event)
        return out

    # ------------------------------------------------------------ the end

    def _finish(self, event: Finish) -> bytes:
        out = b""
        refused = joined(self._refused)
        stop = MessageStop(event, called=self._called, refused=refused)
        if stop.text:
            self._written += len(stop.text)
            out += self._start(_TEXT, b'"type":"text_delta","text":')
            out += self._head + quote(stop.text) + _TAIL + self._stop()
        delta = {
            "type": "message_delta",
            "delta": {**stop.members(), "container": None},
            "usage": delta_usage(
                event.usage, self._asked.input_tokens, self._written, self._searches
            ),
        }
        self.terminal = b"event: message_delta\ndata: %b\n\n" % dump(delta) + _STOP
        return out

    def body(self, events: list[Event]) -> dict[str, Any]:
        """See ``AnswerWriter``."""
        return fold(events, self.response_id, self._settings)


_WRITE: dict[type, Callable[[MessagesWriter, Any], bytes]] = {
    TextDelta: MessagesWriter._text,
    ReasoningDelta: MessagesWriter._reasoning,
    Signature: MessagesWriter._signature,
    ArgsDelta: MessagesWriter._args,
    ItemOpen: MessagesWriter._item,
    CallOpen: MessagesWriter._call,
    SearchFound: MessagesWriter._found,
    ItemClose: MessagesWriter._close,
}
