"""What happens to an answer between reader and writer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.errors import UpstreamError
from gateway.protocols import CODECS
from gateway.protocols.answer_stages import (
    DRAINED_EVENTS,
    CallBinding,
    Stage,
    StopCut,
    SurrogateJoiner,
)
from gateway.protocols.call_ids import narrow, wide
from gateway.protocols.events import (
    ArgsDelta,
    CallOpen,
    Event,
    Fail,
    Finish,
    ItemClose,
    ItemOpen,
    RefusalDelta,
    Start,
    TextDelta,
)
from gateway.protocols.messages.refusal_text import HELD_CHARACTERS, RefusalText
from gateway.protocols.model import ToolName, Tools
from gateway.usage import Usage
from tests.protocols_answers import chunk, converted, relayed, sse, translation

USAGE = Usage(input_tokens=3, output_tokens=4)
END = Finish("end", USAGE)


def taken(stage: Stage, *events: Event) -> list[Event]:
    return [passed for event in events for passed in stage.take(event)]


def text(*pieces: str) -> list[Event]:
    opened: list[Event] = [ItemOpen(1, "text")]
    return [*opened, *(TextDelta(1, piece) for piece in pieces)]


# --- stop sequences ------------------------------------------------------------------

CUTS = [
    pytest.param(["a", "b"], ["END"], "ab", "", id="none"),
    pytest.param(["a END b"], ["END"], "a ", "END", id="in-one-piece"),
    pytest.param(["a E", "N", "D b"], ["END"], "a ", "END", id="over-pieces"),
    pytest.param(["a EN", "E END"], ["END"], "a ENE ", "END", id="a-false-start"),
    pytest.param(["a EN"], ["END"], "a EN", "", id="a-beginning-at-the-end"),
    pytest.param(["x##y"], ["###", "##", "y"], "x", "##", id="the-first-counts"),
    pytest.param(["x###y"], ["##", "###"], "x", "###", id="the-longest-at-one-place"),
    pytest.param(["END"], ["END"], "", "END", id="at-once"),
    pytest.param(["aab"], ["ab", ""], "a", "ab", id="overlap"),
]


@pytest.mark.parametrize("pieces, sequences, kept, met", CUTS)
def test_stop_sequence(
    pieces: list[str], sequences: list[str], kept: str, met: str
) -> None:
    stage = StopCut(tuple(sequences), USAGE)

    events = taken(stage, *text(*pieces), ItemClose(1), END)

    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert (kept, met) == (said, finish.sequence)
    assert ("sequence" if met else "end") == finish.reason
    assert 1 == sum(isinstance(event, ItemClose) for event in events)


def test_after_the_cut_only_calls_that_were_open_go_on() -> None:
    stage = StopCut(("END",), USAGE)
    before: list[Event] = [CallOpen(9, "c", "f"), *text("aENDb")]
    late: list[Event] = [ArgsDelta(9, "{}"), TextDelta(1, "c"), ItemOpen(2, "text")]

    events = taken(stage, *before, *late, ItemClose(9), ItemClose(1), END)

    assert [CallOpen, ItemOpen, TextDelta, ItemClose, ArgsDelta, ItemClose, Finish] == [
        type(event) for event in events
    ]


def test_a_failure_behind_the_cut_does_no_harm() -> None:
    stage = StopCut(("END",), USAGE)
    failure = Fail(UpstreamError("upstream_cut"))

    events = taken(stage, CallOpen(9, "c", "f"), *text("aEND"), failure)

    assert [ItemClose(9, "incomplete"), Finish("sequence", USAGE, "END")] == events[-2:]


def test_what_follows_the_cut_is_read_for_its_usage_but_not_for_long() -> None:
    stage = StopCut(("END",), USAGE)
    taken(stage, *text("END"))

    batches = [stage.take(TextDelta(1, "x")) for _ in range(2 * DRAINED_EVENTS)]

    assert [[Finish("sequence", USAGE, "END")]] == [
        events for events in batches if events
    ]
    assert batches[DRAINED_EVENTS - 1]


# --- refusals ------------------------------------------------------------------------


def refused(*pieces: str, **finish: Any) -> list[Event]:
    stage, last = RefusalText(), Finish("filter", USAGE, **finish)
    return taken(stage, Start("", ""), *text(*pieces), ItemClose(1, "incomplete"), last)


def test_words_like_a_refusal_become_one_when_it_was_one() -> None:
    expected = [
        Start("", ""),
        ItemOpen(1, "refusal"),
        RefusalDelta(1, "I can\u2019t do that."),
        ItemClose(1),
        END,
    ]
    assert expected == refused("I can", "\u2019t do", " that.")


PASSED = [
    pytest.param(("The answer",), {}, id="other-words"),
    pytest.param(("I can't ", "x" * HELD_CHARACTERS), {}, id="too-long"),
    pytest.param(("I can't.",), {"category": "bio"}, id="the-vendor-says-why"),
]


@pytest.mark.parametrize("pieces, finish", PASSED)
def test_other_texts_stay_texts(pieces: tuple[str, ...], finish: Any) -> None:
    events = refused(*pieces, **finish)

    assert "".join(pieces) == "".join(
        e.text for e in events if isinstance(e, TextDelta)
    )
    assert isinstance(events[-1], Finish) and "filter" == events[-1].reason


def test_ordinary_text_passes_at_once() -> None:
    stage = RefusalText()

    counts = [len(stage.take(event)) for event in text("I", " can", " do it", " now")]

    assert [0, 0, 0, 4, 1] == counts


# --- calls ---------------------------------------------------------------------------


def bound(*events: Event, target: str = "chat", native: bool = False) -> list[Event]:
    tools = Tools()
    for tool in (
        ToolName("custom", "apply_patch"),
        ToolName("function", "read", "mcp__fs"),
        ToolName("local_shell", "local_shell"),
    ):
        tools.wire_name(tool)
    if native:
        tools.native.add("apply_patch")
    client = CODECS[target]
    stage = CallBinding(
        tools,
        "5eed",
        free_text_calls=client.free_text_calls,
        narrow_call_ids=client.narrow_call_ids,
    )
    return taken(stage, *events)


def test_a_call_bears_the_clients_name() -> None:
    events = bound(CallOpen(1, "c1", "mcp__fs__read"), CallOpen(2, "c2", "local_shell"))

    assert [
        CallOpen(1, "c1", "read", "function", "mcp__fs"),
        CallOpen(2, "c2", "local_shell", "local_shell"),
    ] == events


def test_a_free_form_call_that_was_cut_keeps_its_input_so_far() -> None:
    events = bound(
        CallOpen(1, "c1", "apply_patch"),
        ArgsDelta(1, '{"input": "half\\'),
        ItemClose(1, "incomplete"),
    )

    assert [ArgsDelta(1, "half"), ItemClose(1, "incomplete")] == events[1:]


def test_the_upstreams_own_free_form_call_passes() -> None:
    call = CallOpen(1, "c1", "apply_patch", "custom")

    assert [call, ArgsDelta(1, "a\n")] == bound(call, ArgsDelta(1, "a\n"), native=True)


def test_a_free_form_call_is_wrapped_for_a_protocol_without() -> None:
    call = CallOpen(1, "c1", "unheard", "custom")

    events = bound(call, ArgsDelta(1, 'a"\n'), ItemClose(1), target="messages")

    arguments = "".join(event.text for event in events if isinstance(event, ArgsDelta))
    assert call._replace(kind="function") == events[0]
    assert {"input": 'a"\n'} == json.loads(arguments)


@pytest.mark.parametrize(
    "target, wanted", [("chat", "a:1"), ("responses", "a:1"), ("messages", "gwid_YTox")]
)
def test_calls_keep_their_ids_and_each_has_its_own(target: str, wanted: str) -> None:
    given = enumerate(["", "a:1", "b", "b"])
    events = bound(*(CallOpen(key, id, "f") for key, id in given), target=target)

    ids = [event.call_id for event in events if isinstance(event, CallOpen)]
    assert ["call_5eed0000", wanted, "b", "call_5eed0003"] == ids


@pytest.mark.parametrize("id", ["functions.read:0", "a b/c", "é😀", "x" * 200 + "."])
def test_an_id_of_any_characters_comes_back(id: str) -> None:
    kept = narrow(id)

    assert re.fullmatch("[A-Za-z0-9_-]+", kept) and id == wide(kept)


@pytest.mark.parametrize(
    "id", ["toolu_1", "call-2", "gwid_", "gwid_!", "gwid_YTox.", ""]
)
def test_an_id_that_is_no_such_one_stays(id: str) -> None:
    assert id == wide(id)


def test_half_a_character_waits_for_the_other() -> None:
    events = taken(
        SurrogateJoiner(), *text("a\ud83d", "\ude00", "\ud83d"), ItemClose(1)
    )

    assert [*text("a", "😀"), ItemClose(1)] == events


# --- compaction ----------------------------------------------------------------------

SUMMARY = [chunk(role="assistant", reasoning="Hm."), chunk(content=" All of it. ")]


def test_a_compaction_trigger_is_answered_by_one_item() -> None:
    request = converted(compaction="trigger")
    stream = sse(*SUMMARY, chunk("stop"), "[DONE]")

    out, ending = relayed(translation("chat", "responses", request), stream)

    last = json.loads(out.split(b"data: ")[-1].split(b"\n")[0])["response"]
    assert ("ok", "completed") == (ending.outcome, last["status"])
    (item,) = last["output"]
    assert ("compaction", "gw1.compact.QWxsIG9mIGl0Lg") == (
        item["type"],
        item["encrypted_content"],
    )
    assert 2 == out.count(b'"output_index":0')


def test_the_compact_endpoint_repeats_the_users_words() -> None:
    request = converted(compaction="endpoint")
    client = {"input": [{"type": "message", "role": "user", "content": "do it"}]}
    following = translation("chat", "responses", request, client_body=client)
    message = {"role": "assistant", "content": "All of it."}

    body, ending = following.body(
        {"choices": [{"finish_reason": "stop", "message": message}]}
    )

    assert "ok" == ending.outcome
    assert ["message", "compaction"] == [item["type"] for item in body["output"]]
    assert ("response.compaction", None) == (body["object"], body["usage"])


@pytest.mark.parametrize("finish, events", [("length", SUMMARY), ("stop", SUMMARY[:1])])
def test_half_a_summary_is_none(finish: str, events: list[dict[str, Any]]) -> None:
    request = converted(compaction="trigger")
    stream = sse(*events, chunk(finish), "[DONE]")

    _, ending = relayed(translation("chat", "responses", request), stream)

    assert "failed" == ending.outcome
