"""Deltas that are converted unread become what reading would make of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.delta_template import MAX_FRAME_BYTES, MAX_TRIES, Growth
from gateway.protocols.events import ReasoningDelta, TextDelta
from gateway.protocols.stream_converter import StreamConverter
from gateway.protocols.stream_facts import StreamFacts
from tests.protocols_answers import (
    MODEL,
    NOW,
    PROTOCOLS,
    REQUEST_ID,
    chunk,
    converted,
)

PAIRS = [*itertools.permutations(PROTOCOLS, 2)]
KINDS = ("text", "reasoning", "call", "refusal", "custom")
SHOWN = {"thinking": True}  # to a Messages client


class ReadingConverter(StreamConverter):
    """Reads every event."""

    def _template_of(self, *given: object) -> None: ...


def both(
    source: str, target: str, reads: list[bytes], **asked: Any
) -> tuple[list[Any], list[Any]]:
    """All that comes of *reads*: as it is, and when every event is read."""
    return (
        _outcome(StreamConverter, source, target, reads, asked),
        _outcome(ReadingConverter, source, target, reads, asked),
    )


def _outcome(
    kind: type[StreamConverter],
    source: str,
    target: str,
    reads: list[bytes],
    asked: dict[str, Any],
) -> list[Any]:
    facts = StreamFacts()
    following = made(source, target, kind, facts=facts, **asked)
    batches = []
    for read in reads:
        batches.append(following.feed(read))
        if batches[-1].ending:
            break
    else:
        batches.append(following.finish())
    known = {name: getattr(facts, name) for name in StreamFacts.__slots__}
    return [*map(repr, batches), repr(known)]


def made(
    source: str,
    target: str,
    kind: type[StreamConverter] = StreamConverter,
    facts: StreamFacts | None = None,
    **asked: Any,
) -> StreamConverter:
    request = converted((("function", "f"), ("custom", "c")), **{**SHOWN, **asked})
    facts = facts or StreamFacts()
    return kind(source, target, facts, request, REQUEST_ID, MODEL, NOW)


# --- streams -------------------------------------------------------------------------


class Play:
    """
    Writes an upstream's stream.

    Args:
        form: how an event is written as JSON.
        extra: members of every event that no reader needs.
        closes: say that an item is done before the next one begins.
    """

    def __init__(
        self,
        source: str,
        form: Callable[[Any], str],
        extra: dict[str, str],
        *,
        closes: bool = True,
    ) -> None:
        self.source = source
        self.form = form
        self.extra = extra
        self.closes = closes
        self.item: dict[str, Any] = {}  # the last one of a Responses stream
        self.number = -1
        self.index = -1
        self.calls = -1
        self.kind = ""

    def event(self, **members: Any) -> bytes:
        name = members.get("type", "")
        if self.source == "responses":
            self.number += 1
            members = {"type": name, "sequence_number": self.number, **members}
        data = self.form({**members, **self.extra})
        return (f"event: {name}\n" if name else "").encode() + _sse(data)

    def begin(self) -> bytes:
        if self.source == "responses":
            response = {"id": "resp_1", "model": "m", "status": "in_progress"}
            return self.event(type="response.created", response=response)
        if self.source == "messages":
            usage = {"input_tokens": 3, "output_tokens": 1}
            message = {"id": "msg_1", "model": "m", "usage": usage}
            return self.event(type="message_start", message=message)
        return self.event(**chunk(role="assistant", content=""))

    def open(self, kind: str) -> bytes:
        """What begins a part, if anything does."""
        self.kind = kind
        self.index += 1
        is_call = kind in ("call", "custom")
        self.calls += is_call
        if self.source == "responses":
            call = {"call_id": f"call_{self.index}", "name": kind[0]}
            item: dict[str, Any] = {
                "call": {"type": "function_call", "arguments": "", **call, "name": "f"},
                "custom": {"type": "custom_tool_call", "input": "", **call},
                "reasoning": {"type": "reasoning", "summary": []},
            }.get(kind, {"type": "message", "content": [], "role": "assistant"})
            done = b""
            if self.item and self.closes:
                where = {"output_index": self.index - 1, "item": self.item}
                done = self.event(type="response.output_item.done", **where)
            self.item = item = {**item, "id": f"it_{self.index}"}
            added = "response.output_item.added"
            return done + self.event(type=added, output_index=self.index, item=item)
        if self.source == "messages":
            block = {
                "call": {"type": "tool_use", "name": "f"},
                "custom": {"type": "tool_use", "name": "c"},
                "reasoning": {"type": "thinking", "thinking": "", "signature": ""},
            }.get(kind, {"type": "text", "text": ""})
            if is_call:
                block |= {"id": f"call_{self.index}", "input": {}}
            start = "content_block_start"
            return self.event(type=start, index=self.index, content_block=block)
        if is_call:
            function = {"name": "f" if kind == "call" else "c", "arguments": ""}
            call = {"index": self.calls, "id": f"c{self.calls}", "type": "function"}
            return self.event(**chunk(tool_calls=[{**call, "function": function}]))
        return b""

    def delta(self, text: str) -> bytes:
        kind = self.kind
        if self.source == "responses":
            name, index = {
                "text": ("output_text", "content_index"),
                "refusal": ("refusal", "content_index"),
                "reasoning": ("reasoning_summary_text", "summary_index"),
                "call": ("function_call_arguments", ""),
                "custom": ("custom_tool_call_input", ""),
            }[kind]
            where = {"item_id": f"it_{self.index}", "output_index": self.index}
            if index:
                where[index] = 0
            return self.event(type=f"response.{name}.delta", **where, delta=text)
        if self.source == "messages":
            name, member = {
                "reasoning": ("thinking_delta", "thinking"),
                "call": ("input_json_delta", "partial_json"),
                "custom": ("input_json_delta", "partial_json"),
            }.get(kind, ("text_delta", "text"))
            delta = {"type": name, member: text}
            event = "content_block_delta"
            return self.event(type=event, index=self.index, delta=delta)
        if kind in ("call", "custom"):
            call = {"index": self.calls, "function": {"arguments": text}}
            return self.event(**chunk(tool_calls=[call]))
        name = {"text": "content", "reasoning": "reasoning_content"}.get(kind, kind)
        return self.event(**chunk(**{name: text}))

    def end(self) -> bytes:
        if self.source == "responses":
            usage = {"input_tokens": 3, "output_tokens": 9}
            response = {"id": "resp_1", "status": "completed", "usage": usage}
            return self.event(type="response.completed", response=response)
        if self.source == "messages":
            stop = {"stop_reason": "end_turn"}
            usage = {"output_tokens": 9}
            closing = self.event(type="message_delta", delta=stop, usage=usage)
            return closing + self.event(type="message_stop")
        usage = {"prompt_tokens": 3, "completion_tokens": 9}
        return self.event(**chunk("stop", usage)) + _sse("[DONE]")


def _sse(data: str) -> bytes:
    return f"data: {data}\n\n".encode("utf-8", "surrogatepass")


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


FORMS = (compact, json.dumps, lambda value: json.dumps(value, ensure_ascii=False))
EXTRAS: tuple[dict[str, str], ...] = ({}, {"obfuscation": "aB3"}, {"x": "y"})
TEXTS = st.one_of(
    st.sampled_from(
        ("So", " it", "\n", '"', "\\", "/", "\t", "é", "語", "😀", "\ud83d", "\ude00")
        + ("\x00", "\x7f", "index", "data: ", "aB3", '{"a": 1', "}", "", "\u2028", ".")
    ),
    st.text(max_size=8),
)
SPOILS = (
    (b'"delta"', b'"delt"'),
    (b'"index":', b'"index":1'),
    (b":", b":0"),
    (b'"', b""),
    (b"s", b"\0"),
    (b"o", b"\xff"),
    (b"t", b'\\"'),
    (b"e", b"\\"),
    (b" ", b"\n"),
    (b"\n", b"\r\n"),
    (b'_number":', b'_number":0'),
    (b'"aB3"', b'"a\\n"'),
    (b'"aB3"', b'""'),
    (b"\n\n", b"\n\n: ping\n\n"),
    (b"\n\n", b"\n\nevent: ping\ndata: {}\n\n"),
    (b"}", b',"error":{"message":"overloaded"}}'),
    (b'"finish_reason"', b'"usage":{"completion_tokens":5},"finish_reason"'),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """Reads of a stream: mostly good, some events spoilt, cut anywhere."""
    source = draw(st.sampled_from(PROTOCOLS))
    form, extra = draw(st.sampled_from(FORMS)), draw(st.sampled_from(EXTRAS))
    play = Play(source, form, extra, closes=draw(st.booleans()))
    events = [play.begin()]
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)):
        events.append(play.open(kind))
        texts = draw(st.lists(TEXTS, min_size=2, max_size=9))
        events += [play.delta("Now"), *map(play.delta, texts)]
    events.append(play.end())
    for at in draw(st.lists(st.integers(2, len(events) - 1), max_size=2)):
        old, new = draw(st.sampled_from(SPOILS))
        head, _, rest = events[at].rpartition(old)
        events[at] = head + new + rest if _ else events[at]
    size = draw(st.sampled_from((1, 1, 2, 5, 100)))
    reads = [b"".join(events[at : at + size]) for at in range(0, len(events), size)]
    at = draw(st.integers(0, len(reads) - 1))
    cut = draw(st.integers(0, len(reads[at])))
    reads[at : at + 1] = [reads[at][:cut], reads[at][cut:]]
    return source, [read for read in reads if read]


ASKED = st.sampled_from(
    ({}, {"thinking": False}, {"thinking_hidden": True}, {"cut": ["it"]})
)


@given(streams(), st.integers(0, 1), ASKED)
def test_no_template_changes_anything(
    stream: tuple[str, list[bytes]], other: int, asked: dict[str, Any]
) -> None:
    source, reads = stream
    target = [name for name in PROTOCOLS if name != source][other]

    short, long = both(source, target, reads, **asked)

    assert short == long


# --- what takes it -------------------------------------------------------------------


def fits(source: str, target: str, kind: str, texts: list[str], **asked: Any) -> bool:
    """Whether events with *texts* are converted without being read."""
    play = Play(source, compact, {"obfuscation": "aB3"})
    following = made(source, target, **asked)
    lead = [play.begin(), play.open(kind), play.delta('{"a":"'), play.delta("So")]
    following.feed(b"".join(lead))
    following.feed(play.delta("it"))
    take = following.conversion
    assert take is not None or asked
    return take is not None and take(b"".join(map(play.delta, texts))) is not None


@pytest.mark.parametrize(
    "source, target, kind",
    [
        *((*pair, kind) for pair in PAIRS for kind in ("text", "reasoning", "call")),
        ("responses", "chat", "refusal"),
        ("chat", "responses", "refusal"),
        ("responses", "chat", "custom"),
    ],
)
def test_deltas_of_every_kind_take_it(source: str, target: str, kind: str) -> None:
    assert fits(source, target, kind, [" is", '\n"so"', "語"])


@pytest.mark.parametrize(
    ("texts", "taken"),
    [
        pytest.param(["a"], True, id="one"),
        pytest.param(["a"] * 300, True, id="many"),
        pytest.param(['"', "\\", "\n\t\r\b\f", "/"], True, id="escapes"),
        pytest.param(["\x01", "é"], True, id="other escapes"),
        pytest.param(["a", "", "b"], False, id="none"),
        pytest.param([""], False, id="nothing"),
        pytest.param(["a", "\ud83d"], False, id="half a character"),
    ],
)
@pytest.mark.parametrize("source, target", PAIRS)
def test_what_takes_it(source: str, target: str, texts: list[str], taken: bool) -> None:
    assert taken == fits(source, target, "text", texts)


@pytest.mark.parametrize("source, target", PAIRS)
def test_of_a_long_read_few_events_are_read(source: str, target: str) -> None:
    """An answer may have come to its end before its first byte is read."""
    play, read = Play(source, compact, {}), list[bytes]()
    stream = play.begin()
    for kind in ("reasoning", "text", "call"):
        stream += play.open(kind)
        stream += b"".join(play.delta(str(number)) for number in range(1, 200))
    stream += play.end()
    following = made(source, target)
    handle = following._reader.handle
    following._reader.handle = lambda frame: (read.append(frame), handle(frame))[1]

    assert following.feed(stream).ending

    assert len(read) < 60
    assert all(one == other for one, other in zip(*both(source, target, [stream])))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"cut": ["never"]}, id="stop sequences"),
        pytest.param({"compaction": "item"}, id="compaction"),
    ],
)
@pytest.mark.parametrize("source, target", PAIRS)
def test_what_must_see_the_text_reads_it(
    source: str, target: str, asked: dict[str, Any]
) -> None:
    assert not fits(source, target, "text", ["a"], **asked)


@pytest.mark.parametrize("source, target", PAIRS)
def test_another_part_ends_it(source: str, target: str) -> None:
    play = Play(source, compact, {})
    following = made(source, target)
    text = play.begin() + play.open("text") + b"".join(map(play.delta, "abc"))
    following.feed(text)
    last = text[text.rindex(b"\n\n", 0, -2) + 2 :]
    assert following.conversion is not None
    assert following.conversion(last) is not None

    following.feed(play.open("call") + play.delta("{"))

    assert following.conversion is None or following.conversion(last) is None


def test_of_a_long_event_there_is_none() -> None:
    for size, expected in ((MAX_FRAME_BYTES - 200, True), (MAX_FRAME_BYTES, False)):
        following, play = made("chat", "responses"), Play("chat", compact, {})
        following.feed(play.begin() + play.open("text") + play.delta("x" * size))

        assert expected == (following.conversion is not None)


@pytest.mark.parametrize("source, target", PAIRS)
def test_half_an_event_is_not_passed_over(source: str, target: str) -> None:
    play = Play(source, compact, {})
    following = made(source, target)
    for step in (play.begin(), play.open("text"), *map(play.delta, "abc")):
        following.feed(step)

    following.feed(play.delta("d")[:9])

    assert following.conversion is None


def test_what_never_fits_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that counts the tokens in every event, for one."""
    tries: list[object] = []
    template_of = StreamConverter._template_of

    def counted(self: StreamConverter, *given: Any) -> Any:
        template = template_of(self, *given)
        tries.append(template)
        return template

    monkeypatch.setattr(StreamConverter, "_template_of", counted)
    following, play = made("chat", "responses"), Play("chat", compact, {})
    following.feed(play.begin() + play.open("text"))
    for number in range(3 * MAX_TRIES):
        play.extra = {"n": str(number)}
        following.feed(play.delta(f"text {number}"))
    assert MAX_TRIES == sum(template is not None for template in tries)

    following.feed(play.open("call") + b"".join(map(play.delta, "{78")))
    assert tries[-1] is not None


FRAME = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]%b}\n\n'


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(FRAME % (b"b", b',"id":"b"'), id="twice"),
        pytest.param(FRAME % (b"\\u0062", b',"id":"b"'), id="spelt otherwise"),
        pytest.param(FRAME % (b"\\u0062", b',"\\u0022b":1'), id="inside another"),
        pytest.param(FRAME % (b'b","content":"\\u0062', b""), id="shadowed"),
        pytest.param(FRAME % (b"b", b',"error":"b"'), id="failure"),
        pytest.param(FRAME % (b"b", b',"usage":{"completion_tokens":1}'), id="usage"),
        pytest.param(FRAME % (b'b","refusal":"no', b""), id="two texts"),
        pytest.param(
            FRAME % (b'b","reasoning_details":[{"a":"1"}],"z":"', b""), id="o"
        ),
        pytest.param(b"id: 1\n" + FRAME % (b"b", b""), id="other lines"),
        pytest.param((FRAME % (b"b", b"")).replace(b"\n", b"\r\n"), id="CR"),
        pytest.param((FRAME % (b"b", b"")).replace(b"0", b"0.0"), id="index"),
    ],
)
def test_no_template_of_what_is_not_certain(frame: bytes) -> None:
    reads = [FRAME % (b"a", b"")] * 2 + [frame] * 2 + [frame.replace(b"b", b"c")] * 3
    for target in ("responses", "messages"):
        following = made("chat", target)
        for read in reads[:3]:
            following.feed(read)
        if frame.find(b"0.0") < 0:
            assert following.conversion is None

        short, long = both("chat", target, reads)
        assert short == long


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(FRAME % (b"\xe2\x82", b"") + FRAME % (b"\xac", b""), id="utf-8"),
        pytest.param(FRAME % (b"\\ud83d\\ude00", b""), id="two halves"),
        pytest.param(
            FRAME % (b"\\ud83d", b"") + FRAME % (b"\\ude00", b""), id="halves"
        ),
        pytest.param(FRAME % (b"\\uD55C\\ub9d0", b""), id="escapes"),
        pytest.param(FRAME % (b"a\\", b"") + FRAME % (b"b", b""), id="backslash"),
        pytest.param(FRAME % (b'"', b""), id="quote"),
        pytest.param(FRAME % (b'a"}}]}\n\n', b""), id="another end"),
        pytest.param((FRAME % (b"a", b"")).replace(b'"', b"'"), id="no JSON"),
    ],
)
def test_odd_strings_are_read(read: bytes) -> None:
    reads = [FRAME % (b"a", b"")] * 3 + [read, FRAME % (b"a", b"")]
    for target in ("responses", "messages"):
        short, long = both("chat", target, reads)
        assert short == long


@pytest.mark.parametrize(
    "number", [b"5", b"007", b"-1", b"5.0", b"1e3", b"9" * 40, b'"\0"', b"", b"0"]
)
def test_odd_numbers_are_read(number: bytes) -> None:
    play = Play("responses", compact, {})
    reads = [play.begin() + play.open("text"), *map(play.delta, "abc")]
    member = b'"sequence_number":5'
    assert member in (event := play.delta("d"))
    for new in (member[:-1] + number, number):
        odd = [*reads, event.replace(member, new), play.delta("e")]
        short, long = both("responses", "chat", odd)
        assert short == long


def test_where_a_citation_stands_counts_what_was_not_read() -> None:
    at = {"output_index": 0, "item_id": "it_0"}
    note = {"type": "url_citation", "url": "u", "start_index": 0, "end_index": 2}
    kind = "response.output_text"
    play = Play("responses", compact, {})
    reads = [play.begin() + play.open("text"), *map(play.delta, ("So", "it", "is"))]
    reads += [
        play.event(type=f"{kind}.delta", **at, content_index=1, delta="Yes"),
        play.event(type=f"{kind}.annotation.added", **at, content_index=1).replace(
            b"}", b',"annotation":%b}' % compact(note).encode()
        ),
        play.end(),
    ]
    short, long = both("responses", "chat", reads)

    assert short == long
    assert '"start_index":6' in "".join(short)


def test_usage_that_must_be_estimated_counts_what_was_not_read() -> None:
    for kind in ("text", "reasoning", "call"):
        play = Play("chat", compact, {})
        reads = [play.begin() + play.open(kind)]
        reads += [play.delta("12345678" * 9) for _ in range(9)]
        reads.append(play.event(**chunk("stop")) + b"data: [DONE]\n\n")
        short, long = both("chat", "messages", reads)
        assert short == long


def test_only_more_of_the_same_part_is_growth() -> None:
    """Whatever the event before was: a reader says so by itself."""
    following, event = made("chat", "responses"), TextDelta(0, "a")
    following.feed(FRAME % (b"a", b""))
    growth = following._reader.growth
    assert growth(FRAME % (b"b", b""), event) == Growth("b")
    for old, new in (
        (b'"b"}', b'"b"},"finish_reason":"stop"'),
        (b'"content"', b'"reasoning"'),
        (b'"content"', b'"refusal"'),
        (b'"index":0', b'"index":1'),
    ):
        assert growth((FRAME % (b"b", b"")).replace(old, new), event) is None
    assert growth(FRAME % (b"b", b""), TextDelta(1, "a")) is None

    following, play = made("responses", "chat"), Play("responses", compact, {})
    following.feed(play.begin() + play.open("reasoning") + play.delta("a"))
    growth, thought, frame = following._reader.growth, ReasoningDelta(1, "a"), b""
    frame = play.delta("b")
    assert growth(frame, thought)
    for old, new in (
        (b'"summary_index":0', b'"summary_index":1'),
        (b'"output_index":0', b'"output_index":1'),
        (b"reasoning_summary_text", b"reasoning_text"),
    ):
        assert growth(frame.replace(old, new), thought) is None
