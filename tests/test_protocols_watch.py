"""What a stream means does not depend on which of its events are looked at, and how."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols import PROTOCOLS
from gateway.protocols.chat import protocol as chat_wire
from gateway.protocols.model import Asked, Tools
from gateway.protocols.protocol import Step
from gateway.protocols.reasoning_proofs import PROOF_CHARS
from gateway.protocols.request_converter import Converted
from gateway.protocols.responses import protocol as wire
from gateway.protocols.sse import is_plain
from gateway.protocols.stray_failures import STRAYS
from gateway.protocols.stream_converter import StreamConverter
from gateway.protocols.stream_facts import MAX_PROOFS, StreamFacts
from gateway.protocols.stream_state import TRANSITIONS, Batch, PassThrough, StreamState
from tests.kit import answers
from tests.kit.answer import Answer
from tests.kit.counted import CountedBytes

# What each protocol's needles stand for, in plain words.
WORDS: dict[str, tuple[bytes, ...]] = {
    "responses": (
        b"response.completed",
        b"response.failed",
        b"response.incomplete",
        b"response.cancelled",
        b'"error"',
    ),
    "chat": (
        b"[DONE]",
        b'"finish_reason":"',
        b'"finish_reason": "',
        b'"usage":{',
        b'"usage": {',
        b'"error":',
        b'"index":1',
        b'"index": 1',
    ),
    "messages": (b"message_delta", b"message_stop", b'"error"'),
}
CREATED = b'"response":{"id":"r","model":"m","created_at":7,"usage":null}}'
EVENTS: dict[str, list[bytes]] = {
    "responses": [
        b'event: response.created\ndata: {"type":"response.created",' + CREATED,
        b'event: response.in_progress\ndata: {"type":"response.in_progress",' + CREATED,
        b'data: {"type": "response.queued", "sequence_number": 3, ' + CREATED,
        b'data: {"type":"response.in_progress","response":{"id":"s","model":"n"}}',
        b'data: {"type":"response.output_item.added","item":{"type":"message"}}',
        b'data: {"type":"response.output_text.delta","delta":"response.completed"}',
        b'data: {"type":"response.output_text.delta","delta":"The "}',
        b'event: response.output_text.delta\ndata: {"type":"response.completed"}',
        b'data: {"type":"response.output_text.delta",\ndata: "delta":"\\"error\\""}',
        b'data: {"type":"response.completed","response":{"usage":{"input_tokens":4}}}',
        b'data: {"type":"response.failed","response":{"error":{"code":"c"}}}',
        b'event: error\ndata: {"type":"error","code":"c","message":"m"}',
    ],
    "chat": [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":""}}]}',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"[DONE]"}}]}',
        b'data: {"id":"c","choices":[{"index":1,"delta":{"content":"Selected"}}]}',
        b'data:{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}',
        b'data: {"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
        b'data: {"error":{"message":"m"}}',
        b"data: [DONE]",
    ],
    "messages": [
        b'data: {"type":"message_start","message":{"id":"m","usage":{}}}',
        b'event: ping\ndata: {"type":"ping"}',
        b'data: {"type":"content_block_start","content_block":{"type":"text"}}',
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":""}}',
        b'data: {"type":"content_block_delta","delta":{"text":"message_stop"}}',
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}',
        b'event: message_stop\ndata: {"type":"message_stop"}',
        b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}',
    ],
}
OTHER = [b": note", b"id: 1", b"data: {broken", b"data: []", b"a\nb\nc\nd"]
BLANK_LINE = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")


def whole_events(data: bytes) -> Iterator[bytes]:
    start = 0
    for blank in BLANK_LINE.finditer(data):
        yield data[start : blank.end()]
        start = blank.end()


def facts_held(facts: StreamFacts) -> dict[str, Any]:
    """What *facts* hold, without what only serves the reading, or its beginning."""
    own = {"lifecycle", "terminal", "failure", "opening"}
    names = {*StreamFacts.__slots__, *type(facts).__slots__} - own
    return {name: getattr(facts, name) for name in names}


def is_looked_at(name: str, event: bytes) -> bool:
    """Whether an event of a stream that has begun may mean something."""
    strays = STRAYS[:1] if name == "chat" else STRAYS
    odd = any(needle.search(event) for needle in strays)
    return odd or any(word in event for word in WORDS[name])


def plainly(name: str, data: bytes) -> tuple[bytes, str, dict[str, Any]]:
    """
    The stream *data* by the rules alone: one event at a time, nothing remembered.

    Returns what the client gets, the outcome, the facts.
    """
    facts, state, got = PROTOCOLS[name].new_facts(), StreamState.WAITING, b""
    facts.certain = True
    for event in whole_events(data):
        if state is StreamState.STREAMING and not is_looked_at(name, event):
            got += event
            continue
        if isinstance(facts, wire.ResponsesFacts):
            facts.lifecycle = b""
        step = PROTOCOLS[name].read(event, facts)
        state = TRANSITIONS[state][step]
        if state is StreamState.CLOSED:
            held = facts.held if step is Step.FAIL else b""
            return (
                got + held + event,
                PROTOCOLS[name].ending(facts).outcome,
                facts_held(facts),
            )
        if step is not Step.HIDDEN:
            got += event
    return got, "", facts_held(facts)


def watched(name: str, chunks: list[bytes]) -> tuple[bytes, str, dict[str, Any]]:
    """The same of ``PassThrough``; a chunk that passes is not fed."""
    facts, got = PROTOCOLS[name].new_facts(), b""
    facts.certain = True
    watch = PassThrough(PROTOCOLS[name], facts)
    for chunk in chunks:
        if watch.passes(chunk):
            got += chunk
            continue
        batch = watch.feed(chunk)
        got += batch.data + batch.terminal
        if batch.ending:
            return got, batch.ending.outcome, facts_held(facts)
    return got, "", facts_held(facts)


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A protocol's name, and a stream of it in chunks."""
    name = draw(st.sampled_from(list(PROTOCOLS)))
    event = st.sampled_from(EVENTS[name] * 2 + OTHER)
    end = st.sampled_from([b"\n"] * 6 + [b"\r\n", b"\r"])
    stream = b""
    for body, line_end in draw(st.lists(st.tuples(event, end), max_size=10)):
        stream += (body + b"\n\n").replace(b"\n", line_end)
    places = draw(st.sets(st.integers(0, len(stream)), max_size=8))
    if draw(st.booleans()):  # as an upstream mostly writes: events are not broken
        places = {match.end() for match in BLANK_LINE.finditer(stream)}
    ordered = sorted(places | {0, len(stream)})
    return name, [stream[a:b] for a, b in zip(ordered, ordered[1:])]


@given(streams())
def test_needles_and_short_cuts_change_nothing(case: tuple[str, list[bytes]]) -> None:
    name, chunks = case
    expected, *others = plainly(name, b"".join(chunks))
    got, *found = watched(name, chunks)

    assert others == found
    assert expected == got


@given(streams())
def test_what_passes_would_have_been_handed_out_as_it_is(
    case: tuple[str, list[bytes]],
) -> None:
    name, chunks = case
    watch = PassThrough(PROTOCOLS[name], PROTOCOLS[name].new_facts())
    for chunk in chunks:
        passes = watch.passes(chunk)
        batch = watch.feed(chunk)

        assert not passes or Batch(chunk, True, has_event=True) == batch
        if batch.ending:
            break


@pytest.mark.parametrize("name", PROTOCOLS)
def test_nothing_passes_before_an_answer_has_begun(name: str) -> None:
    watch = PassThrough(PROTOCOLS[name], PROTOCOLS[name].new_facts())

    assert not watch.passes(b": note\n\n")
    watch.feed(EVENTS[name][0] + b"\n\n")
    assert not watch.passes(b": note\n\n")


@pytest.mark.parametrize("word", WORDS["responses"])
def test_no_needle_and_no_half_event_passes(word: bytes) -> None:
    watch = PassThrough(PROTOCOLS["responses"], PROTOCOLS["responses"].new_facts())
    event = b'data: {"type":"response.refusal.delta","delta":"%s"}\n\n'
    watch.feed(event % b"hello")

    assert watch.passes(event % b"hello")
    assert not watch.passes(event % word)
    assert not watch.passes(b"data: ")
    watch.feed(b"data: ")
    assert not watch.passes(event % b"hello")


HEADS = [(name, head) for name in PROTOCOLS for head in PROTOCOLS[name].plain_heads]


@pytest.mark.parametrize("name, head", HEADS)
@pytest.mark.parametrize("word", sum(WORDS.values(), ()))
def test_a_plain_event_is_output_whatever_it_holds(
    name: str, head: bytes, word: bytes
) -> None:
    facts = PROTOCOLS[name].new_facts()
    facts.certain = facts.thinks = True
    before = facts_held(facts)
    closing = b"}}" if head.count(b"{") == 2 else b"}"
    event = head + b',"more":%b' % json.dumps(word.decode()).encode() + closing

    assert PROTOCOLS[name].read(event + b"\n\n", facts) is Step.OUTPUT
    assert before == facts_held(facts)
    assert is_plain(event + b"\n\n", (head,), 0, len(event) + 2)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_an_event_behind_a_plain_one_is_looked_at(end: bytes) -> None:
    watch = PassThrough(PROTOCOLS["responses"], PROTOCOLS["responses"].new_facts())
    plain = b'data: {"type":"response.output_text.delta","delta":"a"}'
    watch.feed(plain + b"\n\n")
    terminal = b'data: {"type":"response.completed","response":{}}\n\n'

    assert watch.passes(plain + b"\n\n")
    assert not watch.passes(plain + end + terminal)
    assert not watch.passes(plain + b"\ndata: 1")


REPEATED = b'event: response.in_progress\ndata: {"type":"response.in_progress",'


@pytest.mark.parametrize(
    ("second", "model"),
    [
        pytest.param(REPEATED + CREATED, "m", id="repeated"),
        pytest.param(REPEATED + CREATED.replace(b'"m"', b'"n"'), "n", id="other-model"),
        pytest.param(b"data: {%s" % CREATED, "m", id="no-type"),
    ],
)
def test_a_lifecycle_event_that_says_something_new_is_noted(
    second: bytes, model: str
) -> None:
    facts, read = wire.new_facts(), wire.read

    assert Step.NEUTRAL is read(EVENTS["responses"][0] + b"\n\n", facts)
    assert read(second + b"\n\n", facts) in (Step.NEUTRAL, Step.IDLE)
    assert (model, 7) == (facts.model, facts.created_at)


PART = '"response.content_part.added","item_id":"i","part":{"type":"output_text"}'
ITEM = '"response.output_item.added"'
ADDED = [
    (PART, False),
    ('"response.reasoning_summary_part.added","item_id":"i"', False),
    (f'{ITEM},"output_index":0,"item":{{"type":"message"}}', False),
    *(
        (f'{ITEM},{place}"item":{{"id":"i_1","type":"{kind}"}}', begun)
        for kind, begun in (("message", False), ("reasoning", False), ("call", True))
        for place in ('"sequence_number":2,"output_index":10,', '"output_index":0,', "")
    ),
]


@pytest.mark.parametrize("blank", ["", " "], ids=["dense", "blanks"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "data-alone"])
@pytest.mark.parametrize(("said", "begun"), ADDED)
def test_what_opens_something_empty_begins_no_answer(
    said: str, begun: bool, named: bool, blank: str
) -> None:
    """Known by its beginning or parsed: it means the same."""
    name = "event: " + said.split('"')[1] + "\n" if named else ""
    data = f'{{"type":{said}}}'.replace(":", ":" + blank).replace(",", "," + blank)
    facts = wire.new_facts()

    step = PROTOCOLS["responses"].read(f"{name}data: {data}\n\n".encode(), facts)

    assert (Step.OUTPUT if begun else Step.NEUTRAL, begun) == (step, facts.certain)


HIDDEN = EVENTS["chat"][5]
WHOLE = {
    "responses": [EVENTS["responses"][i] for i in (0, 1, 4, 6, 6, 9)],
    "chat": [EVENTS["chat"][i] for i in (1, 0, 3, 5, 7)],
    "messages": [EVENTS["messages"][i] for i in (0, 1, 2, 4, 5, 6)],
}
LINE_ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}


def pieces(stream: bytes) -> Iterator[list[bytes]]:
    """*stream* in two pieces at every place, in three, and in single bytes."""
    for place in range(len(stream) + 1):
        yield [stream[:place], stream[place:]]
        yield [stream[:place], stream[place : place + 1], stream[place + 1 :]]
    yield [stream[i : i + 1] for i in range(len(stream))]


@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
@pytest.mark.parametrize(
    ("name", "hide"),
    [*((name, False) for name in PROTOCOLS), ("chat", True)],
    ids=[*PROTOCOLS, "chat-without-its-usage"],
)
def test_every_byte_is_the_same_at_every_split(
    name: str, hide: bool, line_end: bytes
) -> None:
    """The terminal keeps its last byte; what is hidden takes all of its own along."""
    listed = [(body + b"\n\n").replace(b"\n", line_end) for body in WHOLE[name]]
    seen = [
        event for event, body in zip(listed, WHOLE[name]) if not hide or body != HIDDEN
    ]
    for chunks in pieces(b"".join(listed)):
        facts, got = PROTOCOLS[name].new_facts(), b""
        facts.hide_usage = hide
        watch = PassThrough(PROTOCOLS[name], facts)
        for chunk in filter(None, chunks):
            assert b"" == got or got[-1:] in b"\r\n"
            batch = watch.feed(chunk)
            got += batch.data + batch.terminal

        assert b"".join(seen) == got, chunks
        assert StreamState.CLOSED is watch.state


@pytest.mark.parametrize("clean", [True, False])
def test_a_terminal_that_lacks_the_last_lf_is_whole(clean: bool) -> None:
    """The line has ended with its CR, even if the connection broke behind it."""
    watch = PassThrough(PROTOCOLS["messages"], PROTOCOLS["messages"].new_facts())
    watch.feed(EVENTS["messages"][6].replace(b"\n", b"\r\n") + b"\r\n\r")
    batch = watch.finish(clean=clean)

    assert batch.ending and "ok" == batch.ending.outcome
    assert batch.terminal.endswith(b"\r\n\r\n")


SIGNS_OF_LIFE = {
    "responses": [
        b'event: keepalive\ndata: {"type":"keepalive","sequence_number":3}',
        b'data: {"type":"response.keepalive"}',
        b'data: {"type":"codex.rate_limits","plan":"pro"}',
        b"data: {}",
    ],
    "chat": [
        b'data: {"id":"","object":"","choices":[]}',
        b'data: {"type":"ping"}',
        b"data: {}",
    ],
    "messages": [
        b'event: ping\ndata: {"type":"ping"}',
        b'data: {"type":"unknown"}',
        b"data: {}",
    ],
}
FIRST_EVENTS = {
    "responses": [EVENTS["responses"][0], EVENTS["responses"][2]],
    "chat": [EVENTS["chat"][0], b'data: {"id":"c","choices":[]}'],
    "messages": [EVENTS["messages"][0], EVENTS["messages"][2]],
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_sign_of_life_is_no_event(name: str) -> None:
    """A first event is waited for: comments and pings do not end the wait."""
    for event in [b": ping", b"", b"event: x", b"id: 1", *SIGNS_OF_LIFE[name]]:
        batch = PassThrough(PROTOCOLS[name], PROTOCOLS[name].new_facts()).feed(
            event + b"\n\n"
        )

        assert (False, False) == (batch.has_event, batch.started), event
    for event in FIRST_EVENTS[name]:
        batch = PassThrough(PROTOCOLS[name], PROTOCOLS[name].new_facts()).feed(
            b": ping\n\n" + event + b"\n\n"
        )

        assert batch.has_event, event


@pytest.mark.parametrize("target", PROTOCOLS)
@pytest.mark.parametrize("source", PROTOCOLS)
def test_a_sign_of_life_is_no_event_where_it_is_translated(
    source: str, target: str
) -> None:
    def has_event(event: bytes) -> bool:
        asked = Converted({}, (), Tools(), Asked("m"))
        translation = StreamConverter(source, target, StreamFacts(), asked, "r", "m", 0)
        return translation.feed(event + b"\n\n").has_event

    assert [] == [e for e in [b": ping", *SIGNS_OF_LIFE[source]] if has_event(e)]
    assert [] == [e for e in FIRST_EVENTS[source] if not has_event(e)]


ERROR = b'event: error\ndata: {"type":"error","code":"c","message":"m%s"}\n\n'


def test_of_error_events_the_last_is_held_and_no_more() -> None:
    """However many there are, and however large."""
    watch = PassThrough(PROTOCOLS["responses"], PROTOCOLS["responses"].new_facts())
    for number in range(100):
        watch.feed(ERROR % (b"%d" % number) + ERROR % b"x")

        assert ERROR % b"x" == watch.facts.held
    batch = watch.feed(EVENTS["responses"][10] + b"\n\n")
    assert ERROR % b"x" + EVENTS["responses"][10] + b"\n\n" == batch.terminal

    watch = PassThrough(PROTOCOLS["responses"], PROTOCOLS["responses"].new_facts())
    watch.feed(ERROR % (b"x" * wire.MAX_HELD_BYTES))
    assert b"" == watch.facts.held


def test_what_is_hidden_costs_no_copy_of_what_is_not() -> None:
    watch = PassThrough(PROTOCOLS["responses"], PROTOCOLS["responses"].new_facts())
    delta = b'data: {"type":"response.output_text.delta","delta":"%s"}\n\n'
    watch.feed(delta % b"hello")
    data = CountedBytes(delta % (b"x" * 100_000) + ERROR % b"" * 1000)

    assert delta % (b"x" * 100_000) == watch.feed(data).data
    assert data.work_bytes < 4 * len(data)


def test_nineteen_megabytes_of_error_events_take_a_step_each() -> None:
    watch = PassThrough(PROTOCOLS["responses"], PROTOCOLS["responses"].new_facts())
    event = ERROR % (b"x" * 900)
    work_bytes = 0
    for _ in range(1000):
        data = CountedBytes(event * 20)
        assert b"" == watch.feed(data).data
        work_bytes += data.work_bytes

    assert work_bytes < 4 * 20_000 * len(event)
    assert event == watch.facts.held


LOOKED_AT = {
    "responses": b'{"type":"response.output_text.delta","delta":"xxxx","x":"error"}',
    "chat": b'{"choices":[{"index":0,"delta":{"content":"xxxx"}}],"usage":{}}',
    "messages": b'{"type":"content_block_delta","delta":{"type":"text_delta",'
    b'"text":"xxxx"},"x":"error"}',
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_of_a_text_the_beginning_alone_is_kept(name: str) -> None:
    """Some name a needle in each event, so that each is read."""
    facts = PROTOCOLS[name].new_facts()
    watch = PassThrough(PROTOCOLS[name], facts)
    for _ in range(1000):
        watch.feed(b"data: " + LOOKED_AT[name] + b"\n\n")

    assert "xxxx" * 256 + "x" == facts.opening


def test_choices_are_followed_up_to_a_bound() -> None:
    facts = chat_wire.new_facts()
    watch = PassThrough(PROTOCOLS["chat"], facts)
    chunk = b'data: {"choices":[{"index":1%05d,"delta":{"content":"x"}}]}\n\n'
    for index in range(2 * chat_wire.MAX_CHOICES):
        watch.feed(chunk % index)

    assert chat_wire.MAX_CHOICES == len(facts.unfinished)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_terminal_is_not_kept(name: str) -> None:
    """It may be as large as the whole answer, and the facts outlive the stream."""
    facts = PROTOCOLS[name].new_facts()
    for event in EVENTS[name]:
        if PassThrough(PROTOCOLS[name], facts).feed(event + b"\n\n").ending:
            assert {} == facts.terminal


# --- proofs ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["responses", "messages"])
@given(data=st.data())
def test_proofs_are_noted_wherever_the_stream_was_broken(
    name: str, data: st.DataObject
) -> None:
    proof = "sealed" + "x" * 60
    answer = Answer(reasoning="hm", proof=proof)
    stream = b"".join(answers.stream(name, answer, {}).whole())
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    watch, facts = watching(name)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)]):
        chunk = stream[start:end]
        if chunk and not watch.passes(chunk):
            watch.feed(chunk)
    assert {proof[-PROOF_CHARS:]} == set(facts.proofs)


def watching(name: str) -> tuple[PassThrough, StreamFacts]:
    facts = PROTOCOLS[name].new_facts()
    return PassThrough(PROTOCOLS[name], facts), facts


@pytest.mark.parametrize("name", ["responses", "messages"])
def test_proofs_of_a_whole_answer_are_noted(name: str) -> None:
    facts = StreamFacts()
    answer = Answer(reasoning="hm", proof="sealed")
    PROTOCOLS[name].read_body(answers.body(name, answer, {}), facts)
    assert ["sealed"] == facts.proofs


@pytest.mark.parametrize("name", ["responses", "messages", "chat"])
def test_a_stream_without_reasoning_is_searched_for_no_proof(name: str) -> None:
    watch, _ = watching(name)
    watch.feed(b"".join(answers.stream(name, Answer(), {}).begun(2)))
    assert StreamState.STREAMING is watch.state
    assert PROTOCOLS[name].needles == watch._needles


def test_proofs_of_one_answer_are_bounded() -> None:
    facts = StreamFacts()
    for n in range(2 * MAX_PROOFS):
        facts.note_proof(f"proof-{n}")
    facts.note_proof(None)
    assert MAX_PROOFS == len(facts.proofs)
    assert f"proof-{MAX_PROOFS - 1}" == facts.proofs[-1]
