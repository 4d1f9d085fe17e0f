"""
Conversion of answers: every scenario for every cross pair, however the stream is cut,
and every way in which an upstream can fail.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocols import sse as sse_file
from gateway.protocols.overload_text import ANSWERS
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import Batch
from tests.protocols_answers import (
    MODEL,
    NOW,
    PROTOCOLS,
    REQUEST_ID,
    WHOLE,
    chunk,
    converted,
    relayed,
    said,
    said_whole,
    sse,
    translation,
)

SCENARIOS = Path(__file__).parent / "wire" / "scenarios"
SHARED = Path(
    os.environ.get("GATEWAY_SHARED", Path(__file__).resolve().parents[2] / "shared")
)
VECTORS = SHARED / "vectors"
PAIRS = list(itertools.permutations(PROTOCOLS, 2))
SIZES = (1, 2, 97, WHOLE)


def at_any_size(make: Any, data: bytes) -> tuple[bytes, Any]:
    """The answer to *data*; the same wherever the stream was broken."""
    results = [relayed(make(), data, size) for size in SIZES]
    outs = {out for out, _ in results}
    assert 1 == len(outs)
    return results[0]


# --- own scenarios -------------------------------------------------------------------


def own_scenarios() -> list[Any]:
    found = []
    for path in sorted(SCENARIOS.glob("*/expect.json")):
        scenario = json.loads(path.read_text("utf-8"))
        for pair in scenario["expect"]:
            name = f"{path.parent.name}-{pair.replace(' ', '-to-')}"
            found.append(pytest.param(path.parent, pair, scenario, id=name))
    return found


@pytest.mark.parametrize("folder, pair, scenario", own_scenarios())
def test_scenario(folder: Path, pair: str, scenario: dict[str, Any]) -> None:
    source, target = pair.split()
    tools = tuple(tuple(tool) for tool in scenario.get("tools", ()))
    request = converted(tools, **scenario.get("asked", {}))
    data = (folder / f"{source}.sse").read_bytes()

    out, ending = at_any_size(lambda: translation(source, target, request), data)

    assert scenario["expect"][pair] == {
        **said(target, out),
        "outcome": ending.outcome,
    }


# --- shared vectors, read by the official SDKs ---------------------------------------


@pytest.fixture(scope="module")
def wirecheck() -> ModuleType:
    path = VECTORS / "wirecheck.py"
    if not path.exists():
        pytest.skip(f"no shared vectors at {VECTORS}")
    spec = importlib.util.spec_from_file_location("wirecheck", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["wirecheck"] = module
    spec.loader.exec_module(module)
    return module


def shared_scenarios() -> list[Any]:
    found = []
    for path in sorted(VECTORS.glob("scenarios/*/expect.json")):
        expect = json.loads(path.read_text("utf-8"))
        for source, target in PAIRS:
            wanted = {**expect["common"], **expect["override"].get(target, {})}
            data = path.with_name(f"{source}.sse")
            name = f"{path.parent.name}-{source}-to-{target}"
            found.append(pytest.param(source, target, data, wanted, id=name))
    for source, target in PAIRS:
        for path in sorted(VECTORS.glob(f"{source}/*.json")):
            wanted = _wanted(json.loads(path.read_text("utf-8"))["expect"], target)
            data = path.with_suffix(".sse")
            name = f"{source}-{path.stem}-to-{target}"
            found.append(pytest.param(source, target, data, wanted, id=name))
    why = pytest.mark.skip(reason=f"no shared vectors at {VECTORS}")
    return found or [pytest.param("", "", None, {}, id="shared-vectors", marks=why)]


def _wanted(expect: dict[str, Any] | None, target: str) -> dict[str, Any] | None:
    """A source's expectation, in the words of *target*."""
    if expect is None or expect["finish"] == "error" or target != "messages":
        return None if expect and expect["finish"] == "error" else expect
    refused = expect["refusal"]
    texts = {"text": expect["text"] + refused, "refusal": ""}
    # What the upstream did not tell is estimated.
    few = {"input": 1, "cache_read": 0, "cache_write": 0, "output": 1, "reasoning": 0}
    usage = expect["usage"] or few
    finish = "filter" if refused else expect["finish"]
    return {**expect, **texts, "finish": finish, "usage": usage}


@pytest.mark.parametrize("source, target, path, wanted", shared_scenarios())
def test_shared_vector(
    wirecheck: ModuleType,
    source: str,
    target: str,
    path: Path,
    wanted: dict[str, Any] | None,
) -> None:
    request = converted()

    out, ending = at_any_size(
        lambda: translation(source, target, request), path.read_bytes()
    )

    if wanted is None:
        assert "failed" == ending.outcome
        assert [] == wirecheck.grammar(target, wirecheck.parse_sse([out]), False)
        return
    events = wirecheck.parse_sse([out])
    assert [] == wirecheck.grammar(target, events)
    for event in events:
        if event.data != "[DONE]":
            assert [] == wirecheck.validate_event(target, event.json())
    run = wirecheck.sdk_run(target, [out])
    assert ("ok", wanted) == (run.raw, run.final)
    # The helpers of the OpenAI SDK raise for an answer that is cut, by design.
    cut = {"responses": "no-final", "chat": "LengthFinishReasonError"}
    cut_short = wanted["finish"] == "length"
    assert run.helper == (cut.get(target, "ok") if cut_short else "ok")


# --- non-stream ----------------------------------------------------------------------

BODIES: dict[str, dict[str, Any]] = {
    "responses": {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m",
        "service_tier": "priority",
        "output": [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": "c2VhbGVk",
            },
            {
                "type": "message",
                "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
            },
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "now",
                "arguments": '{"a": 1}',
            },
        ],
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 5},
        },
    },
    "chat": {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "service_tier": "priority",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "reasoning_content": "Hm.",
                    "content": "Hi",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "now", "arguments": '{"a": 1}'},
                        }
                    ],
                },
            }
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
    },
    "messages": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "text", "text": "Hi", "citations": None},
            {"type": "tool_use", "id": "c1", "name": "now", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 30,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 10,
            "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 5},
            "service_tier": "priority",
        },
    },
}
SEALED = "gw1.openai.rs.eyJpZCI6InJzXzEiLCJlbmNyeXB0ZWRfY29udGVudCI6ImMyVmhiR1ZrIn0"
PROOFS = {
    ("responses", "messages"): f" [{SEALED}]",
    ("messages", "responses"): " [gw1.anthropic.thinking.c2ln]",
}
STOPS = {"responses": "completed", "chat": "tool_calls", "messages": "tool_use"}


@pytest.mark.parametrize("source, target", PAIRS)
def test_whole_body(source: str, target: str) -> None:
    facts = StreamFacts()
    following = translation(source, target, facts=facts)

    body, ending = following.body(BODIES[source])

    answer = said_whole(target, json.loads(orjson.dumps(body)))
    call = answer["said"].pop()
    assert ["call", "now", {"a": 1}] == _call(call)
    reasoning = "reasoning: Hm." + PROOFS.get((source, target), "")
    assert [reasoning, "text: Hi"] == answer["said"]
    assert (STOPS[target], [100, 60, 10, 20, 5]) == (answer["stop"], answer["usage"])
    assert ("ok", 100, 20) == (
        ending.outcome,
        facts.usage.input_tokens,
        facts.usage.output_tokens,
    )
    tier = (body["usage"] if target == "messages" else body)["service_tier"]
    assert "priority" == tier


def _call(line: str) -> list[Any]:
    kind, name, arguments = line.split(" ", 2)
    return [kind.rstrip(":"), name, json.loads(arguments)]


@pytest.mark.parametrize(
    "text, kind, stop",
    [("I can't do that.", "refusal", False), ("One, two,", "text", True)],
)
@pytest.mark.parametrize("target", ("responses", "chat"))
def test_a_whole_body_that_refuses_is_a_refusal_if_it_sounds_like_one(
    target: str, text: str, kind: str, stop: bool
) -> None:
    body = {
        **BODIES["messages"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "refusal",
        "stop_details": {"type": "refusal", "category": None, "explanation": None},
    }

    answer = said_whole(target, translation("messages", target).body(body)[0])

    [line] = answer["said"]
    assert line.removesuffix(" (incomplete)") == f"{kind}: {text}"
    assert stop == (answer["stop"] == "content_filter")


@pytest.mark.parametrize("source, target", PAIRS)
def test_a_whole_body_that_tells_an_overload_as_a_text_is_a_failure(
    source: str, target: str
) -> None:
    text = next(iter(ANSWERS))
    parts = {
        "responses": {"output": [{"type": "message", "content": [_output(text)]}]},
        "chat": {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]},
        "messages": {"content": [{"type": "text", "text": text}]},
    }

    converted_body, ending = translation(source, target).body(parts[source])

    assert {} == converted_body and ending.error
    assert "upstream_overloaded" == ending.error.code


def _output(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


BROKEN_BODIES = [
    pytest.param("responses", {"status": "failed", "error": {"code": "x"}}, id="r"),
    pytest.param("responses", {"output": None}, id="responses-no-output"),
    pytest.param("responses", {}, id="responses-empty"),
    pytest.param("chat", {"error": "gone"}, id="chat-error"),
    pytest.param("chat", {"choices": []}, id="chat-no-choice"),
    pytest.param(
        "chat",
        {"choices": [{"finish_reason": "error", "message": {"content": "a"}}]},
        id="chat-finish-error",
    ),
    pytest.param("messages", {"type": "error", "error": {"type": "x"}}, id="m-error"),
    pytest.param("messages", {"content": "text"}, id="messages-no-content"),
]


@pytest.mark.parametrize("source, body", BROKEN_BODIES)
def test_a_broken_body_is_a_failure(source: str, body: dict[str, Any]) -> None:
    for target in set(PROTOCOLS) - {source}:
        converted_body, ending = translation(source, target).body(body)

        assert ({}, "failed") == (converted_body, ending.outcome)
        assert ending.error and ending.error.origin == "upstream"


# --- how a stream fails --------------------------------------------------------------

BEGUN: dict[str, bytes] = {
    "chat": sse(chunk(role="assistant", content="Half")),
    "messages": sse(
        {"type": "message_start", "message": {"id": "m", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Half"},
        },
        named=True,
    ),
    "responses": sse(
        {"type": "response.created", "response": {"id": "r"}},
        {
            "type": "response.output_text.delta",
            "output_index": 0,
            "content_index": 0,
            "delta": "Half",
        },
        named=True,
    ),
}
FAILURES: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"error": {"message": "gone", "code": "overloaded"}},
        {"error": "gone"},
    ],
    "messages": [
        {"type": "error", "error": {"type": "overloaded_error", "message": "gone"}},
        {"error": {"type": "api_error", "message": "gone"}},
    ],
    "responses": [
        {"type": "response.failed", "response": {"error": {"code": "server_error"}}},
        {"type": "response.cancelled", "response": {}},
    ],
}


@pytest.mark.parametrize("source, target", PAIRS)
def test_a_cut_stream_fails_and_closes_nothing(source: str, target: str) -> None:
    half = b'data: {"id": "1", "choi'
    for data in (BEGUN[source], BEGUN[source] + half):
        for clean in (True, False):
            following = translation(source, target)
            batch = following.feed(data)
            end = following.finish(clean=clean)

            assert b"Half" in batch.data
            assert (True, b"", b"") == (end.started, end.data, end.terminal)
            assert end.ending and end.ending.error
            assert "upstream_cut" == end.ending.error.code
            for word in (b".done", b"_stop", b'"finish_reason":"', b"[DONE]"):
                assert word not in batch.data


@pytest.mark.parametrize("source, target", PAIRS)
def test_the_upstreams_failure_is_reported_with_its_event(
    source: str, target: str
) -> None:
    for event in FAILURES[source]:
        following = translation(source, target)

        batch = following.feed(BEGUN[source] + sse(event, named=True))

        assert b"Half" in batch.data and b"" == batch.terminal and batch.started
        assert batch.ending and batch.ending.error
        assert ("failed", event) == (batch.ending.outcome, batch.ending.failure)
        assert "upstream_failed" == batch.ending.error.code
        assert Batch(b"", True) == following.feed(b"data: {}\n\n")


@pytest.mark.parametrize("target", ("chat", "messages"))
def test_an_error_event_counts_if_no_failed_event_follows(target: str) -> None:
    error = {"type": "error", "error": {"code": "rate_limit_exceeded"}}
    following = translation("responses", target)

    assert following.feed(sse(error, named=True)).ending is None
    ending = following.finish().ending

    assert ending and ending.failure == error


REFUSED = [
    pytest.param(b"<html>no</html>", "upstream_malformed", id="html"),
    pytest.param(b'\n {"error": "no"}', "upstream_failed", id="json-error"),
    pytest.param(b'\n {"a": "no"}', "upstream_malformed", id="json"),
    pytest.param(b'data: {"choices": [{]\n\n', "upstream_malformed", id="garbled"),
    pytest.param(b"", "upstream_empty", id="nothing"),
    pytest.param(b": ping\n\n", "upstream_empty", id="comments-only"),
]


@pytest.mark.parametrize("data, code", REFUSED)
@pytest.mark.parametrize("source, target", PAIRS)
def test_what_is_no_answer_fails_before_output(
    source: str, target: str, data: bytes, code: str
) -> None:
    out, ending = relayed(translation(source, target), data)

    assert (b"", "failed") == (out, ending.outcome)
    assert ending.error and code == ending.error.code


def test_done_without_an_answer_is_no_answer() -> None:
    out, ending = relayed(translation("chat", "messages"), sse("[DONE]"))

    assert (b"", "failed") == (out, ending.outcome)
    assert ending.error and "upstream_empty" == ending.error.code


def test_an_endless_event_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_file, "MAX_EVENT_BYTES", 1000)
    following = translation("chat", "messages")

    batch = following.feed(b"data: " + b"x" * 2000)

    assert batch.ending and batch.ending.error
    assert "upstream_too_large" == batch.ending.error.code


# --- how a stream ends well ----------------------------------------------------------

LAST_WORDS = [
    pytest.param("chat", [chunk("stop")], True, id="chat-finish-reason"),
    pytest.param("chat", [chunk("length")], False, id="chat-length-unclean"),
    pytest.param(
        "messages",
        [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}],
        False,
        id="messages-delta",
    ),
]


@pytest.mark.parametrize("source, events, clean", LAST_WORDS)
def test_an_answer_that_lacks_only_the_last_word_is_whole(
    source: str, events: list[dict[str, Any]], clean: bool
) -> None:
    for target in set(PROTOCOLS) - {source}:
        data = BEGUN[source] + sse(*events) + b'data: {"half'
        out, ending = relayed(translation(source, target), data, clean=clean)

        assert ending.outcome in ("ok", "incomplete")
        assert ["text: Half"] == [
            line.removesuffix(" (incomplete)") for line in said(target, out)["said"]
        ]


TERMINALS = {
    "chat": sse(chunk("stop"), "[DONE]"),
    "messages": sse(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
        named=True,
    ),
    "responses": sse(
        {"type": "response.completed", "response": {"status": "completed"}}, named=True
    ),
}


@pytest.mark.parametrize("source, target", PAIRS)
def test_a_terminal_without_its_blank_line_counts_at_a_clean_end(
    source: str, target: str
) -> None:
    data = (BEGUN[source] + TERMINALS[source]).rstrip(b"\n")

    out, ending = relayed(translation(source, target), data)

    assert ("ok", ["text: Half"]) == (ending.outcome, said(target, out)["said"])


@pytest.mark.parametrize("source, target", PAIRS)
def test_the_terminal_stands_apart_and_nothing_follows_it(
    source: str, target: str
) -> None:
    following = translation(source, target)

    batch = following.feed(BEGUN[source] + TERMINALS[source] + BEGUN[source])

    last = {
        "responses": (b"event: response.completed\n", b"}\n\n"),
        "chat": (b'data: {"id":', b"data: [DONE]\n\n"),
        "messages": (b"event: message_delta\n", b'"type":"message_stop"}\n\n'),
    }[target]
    assert batch.terminal.startswith(last[0]) and batch.terminal.endswith(last[1])
    assert b'finish_reason":"' not in batch.data
    assert b"message_delta" not in batch.data and b"completed" not in batch.data[-99:]
    assert ["text: Half"] == said(target, batch.data + batch.terminal)["said"]
    assert Batch(b"", True) == following.feed(BEGUN[source])
    assert Batch(b"", True) == following.finish()


PREAMBLES = {
    "chat": [chunk(role="assistant", content="")],
    "messages": [
        {"type": "message_start", "message": {}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
    ],
    "responses": [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.in_progress", "response": {"id": "r"}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"type": "message"},
        },
    ],
}


@pytest.mark.parametrize("source, target", PAIRS)
def test_a_preamble_is_no_output(source: str, target: str) -> None:
    following = translation(source, target)

    batches = [following.feed(sse(event)) for event in PREAMBLES[source]]

    assert not any(batch.started for batch in batches)
    assert batches[0].data
    assert following.feed(BEGUN[source]).started


@pytest.mark.parametrize("source, target", PAIRS)
def test_an_overload_sent_as_a_text_is_a_failure(source: str, target: str) -> None:
    overloaded = next(iter(ANSWERS)).encode()
    begun = BEGUN[source].replace(b"Half", overloaded)
    following = translation(source, target)

    assert not following.feed(begun).started
    batch = following.feed(TERMINALS[source])

    assert (b"", False, b"") == (batch.data, batch.started, batch.terminal)
    assert batch.ending and batch.ending.error
    assert "upstream_overloaded" == batch.ending.error.code

    following = translation(source, target)
    following.feed(begun)
    assert following.feed(BEGUN[source]).started


@pytest.mark.parametrize("source, target", PAIRS)
def test_facts_name_what_the_client_sees(source: str, target: str) -> None:
    facts = StreamFacts()

    following = translation(source, target, facts=facts)
    out, _ = relayed(following, BEGUN[source] + TERMINALS[source])

    assert (MODEL, NOW) == (facts.model, facts.created_at)
    assert facts.response_id.encode() in out
    if target == "responses":
        assert f"resp_{REQUEST_ID.replace('-', '')}" == facts.response_id


# --- anything at all -----------------------------------------------------------------

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.just(2**80),
    st.floats(allow_nan=False),
    st.sampled_from(["", "x", "stop", "error", "\ud83d", "completed", '{"a":1}']),
    st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.sampled_from(["text", "type"]), st.just("x"), max_size=2),
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside *value*."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in pairs:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


def _streams() -> list[tuple[str, list[Any]]]:
    found = []
    for path in sorted(SCENARIOS.glob("*/*.sse")):
        frames = path.read_bytes().replace(b"\r", b"").split(b"\n\n")
        data = [frame[frame.find(b"data:") + 5 :] for frame in frames]
        events = [json.loads(line) for line in data if line.strip()[:1] == b"{"]
        found.append((path.stem, events))
    return found


STREAMS = _streams()


@settings(max_examples=400)
@given(data=st.data())
def test_no_stream_raises_and_none_is_half_right(data: st.DataObject) -> None:
    """Any value anywhere, events lost, doubled and out of order."""
    source, events = data.draw(st.sampled_from(STREAMS))
    events = json.loads(json.dumps(events))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(_places(events)))
        container[key] = data.draw(_VALUES)
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(events) - 1))
        events.insert(data.draw(st.integers(0, len(events))), events[at])
    target = data.draw(st.sampled_from([p for p in PROTOCOLS if p != source]))
    tools = (("custom", "apply_patch"), ("local_shell", "local_shell"))
    request = converted(tools, web_search=data.draw(st.booleans()))

    stream = sse(*[event for event in events if isinstance(event, dict)])
    out, ending = relayed(
        translation(source, target, request), stream, data.draw(st.sampled_from(SIZES))
    )

    if ending.outcome != "failed":
        said(target, out)


@settings(max_examples=200)
@given(data=st.data())
def test_no_body_raises(data: st.DataObject) -> None:
    """Any value anywhere in a whole answer."""
    source = data.draw(st.sampled_from(PROTOCOLS))
    body = json.loads(json.dumps(BODIES[source]))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(_places(body)))
        container[key] = data.draw(_VALUES.filter(lambda value: value != "\ud83d"))
    target = data.draw(st.sampled_from([p for p in PROTOCOLS if p != source]))

    converted_body, ending = translation(source, target).body(body)

    if ending.outcome != "failed":
        said_whole(target, converted_body)
