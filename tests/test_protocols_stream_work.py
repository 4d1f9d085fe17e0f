"""An upstream that sends much, in whatever form, costs a step for each piece."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from gateway.protocols import call_arguments
from gateway.protocols.call_arguments import InputText, ObjectText
from gateway.protocols.events import ItemClose
from gateway.protocols.messages import reader as messages_reader
from gateway.protocols.messages.reader import MessagesReader
from gateway.protocols.responses.message_parts import MessageParts
from gateway.usage import Usage


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python *work* runs."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def test_each_message_closes_its_own_parts() -> None:
    def messages(number: int) -> Callable[[], object]:
        def work() -> None:
            parts = MessageParts(iter(range(number)).__next__)
            for index in range(number):
                parts.tell((index, 0), "text", "x", whole=False)
            for index in range(number):
                assert [ItemClose] == [type(e) for e in parts.close(index, "completed")]

        return work

    assert lines_run(messages(400)) < 2.5 * lines_run(messages(200))


def test_blocks_that_never_stop_are_closed() -> None:
    reader = MessagesReader(Usage())
    start = b'data: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
    for kind in (b'{"type":"thinking"}', b'{"type":"text"}'):
        for index in range(3 * messages_reader.MAX_OPEN_BLOCKS):
            reader.handle(start % (index, kind))

            assert len(reader._blocks) <= messages_reader.MAX_OPEN_BLOCKS


def test_a_number_without_end_is_none() -> None:
    text = ObjectText()
    text.feed('{"a":')
    for _ in range(2 * call_arguments.MAX_WORD_CHARS):
        text.feed("1")

        assert len(text._held) <= call_arguments.MAX_WORD_CHARS


def test_what_escapes_nothing_costs_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long text with many slips the rest is not copied at each."""
    texts: list[str] = []
    match = call_arguments._WHOLE_CHARACTERS.match

    def matched(text: str, *at: int) -> re.Match[str] | None:
        texts.append(text)
        return match(text, *at)

    monkeypatch.setattr(
        call_arguments, "_WHOLE_CHARACTERS", SimpleNamespace(match=matched)
    )
    free_text = InputText().feed('{"input":"' + "\\x" * 1000 + '"}')

    assert "\\x" * 1000 == free_text
    assert 1 == len({id(text) for text in texts})
