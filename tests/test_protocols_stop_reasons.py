"""Why an answer ended: every word of every vendor, streamed and whole, in all pairs."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from gateway.protocols import PROTOCOLS as WIRES
from gateway.protocols.protocol import Ending
from gateway.protocols.stop_reasons import WORDS, Stop, stop_of, unknown
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import PassThrough
from tests.protocols_answers import (
    PROTOCOLS,
    chunk,
    relayed,
    said,
    said_whole,
    sse,
    translation,
)

PAIRS = list(itertools.permutations(PROTOCOLS, 2))
ODD = "odd_reason"

# What each vendor's reference (or server) says, and what it means for a client.
REASONS: list[tuple[str, str, Stop]] = [
    # https://api-docs.deepseek.com/api/create-chat-completion
    ("chat", "insufficient_system_resource", "broken"),
    # https://docs.bigmodel.cn/api-reference (GLM)
    ("chat", "network_error", "broken"),
    ("chat", "sensitive", "filter"),
    ("chat", "model_context_window_exceeded", "context"),
    ("chat", "abort", "broken"),  # vLLM, SGLang
    ("chat", "error", "broken"),  # OpenRouter
    ("chat", "function_call_filter: MALFORMED_FUNCTION_CALL", "broken"),  # Gemini
    ("chat", "MAX_TOKENS", "length"),
    ("chat", "SAFETY", "filter"),
    ("chat", "max_tokens", "length"),
    ("chat", "length", "length"),
    ("chat", "model_length", "context"),  # Mistral
    ("chat", "content_filter", "filter"),
    ("chat", "eos", "end"),
    ("chat", "stop", "end"),
    ("chat", ODD, ""),
    ("messages", "network_error", "broken"),
    ("messages", "abort", "broken"),
    ("messages", "error", "broken"),
    ("messages", "length", "length"),
    ("messages", "max_tokens", "length"),
    ("messages", "model_context_window_exceeded", "context"),
    ("messages", "sensitive", "filter"),
    ("messages", "content_filter", "filter"),
    ("messages", "refusal", "filter"),
    ("messages", "stop", "end"),
    ("messages", ODD, ""),
    ("responses", "network_error", "broken"),
    ("responses", "error", "broken"),
    ("responses", "max_output_tokens", "length"),
    ("responses", "length", "length"),
    ("responses", "content_filter", "filter"),
    ("responses", "sensitive", "filter"),
    ("responses", "steered", "end"),
]
STOPS = {
    "length": {
        "responses": "max_output_tokens",
        "chat": "length",
        "messages": "max_tokens",
    },
    "context": {
        "responses": "max_output_tokens",
        "chat": "length",
        "messages": "model_context_window_exceeded",
    },
    "filter": {
        "responses": "content_filter",
        "chat": "content_filter",
        "messages": "refusal",
    },
    "end": {"responses": "completed", "chat": "stop", "messages": "end_turn"},
    "calls": {"responses": "completed", "chat": "tool_calls", "messages": "tool_use"},
}
CALL = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def streamed(source: str, word: str, called: bool = False) -> bytes:
    if source == "chat":
        delta = {"tool_calls": [{"index": 0, **CALL}]} if called else {"content": "Hi"}
        return sse(chunk(**delta), chunk(word), "[DONE]")
    if source == "messages":
        return sse(
            {"type": "message_start", "message": {"id": "m", "usage": {}}},
            *(
                {"type": "content_block_start", "index": index, "content_block": block}
                for index, block in enumerate(body_of(source, word, called)["content"])
            ),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": word}, "usage": {}},
            {"type": "message_stop"},
        )
    body = body_of(source, word, called)
    return sse(
        {"type": "response.created", "response": {"id": "r"}},
        *(
            {"type": "response.output_item.done", "output_index": 0, "item": item}
            for item in body["output"]
        ),
        {"type": "response.incomplete", "response": {**body, "output": []}},
    )


def body_of(source: str, word: str, called: bool = False) -> dict[str, Any]:
    if source == "chat":
        message = {"tool_calls": [CALL]} if called else {"content": "Hi"}
        return {"choices": [{"message": message, "finish_reason": word}]}
    if source == "messages":
        use = {"type": "tool_use", "id": "x", "name": "f", "input": {}}
        content = [use if called else {"type": "text", "text": "Hi"}]
        return {"content": content, "stop_reason": word}
    item = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}
    if called:
        item = {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"}
    return {
        "status": "incomplete",
        "incomplete_details": {"reason": word},
        "output": [item],
    }


def ends(source: str, target: str, word: str, called: bool) -> set[tuple[str, str]]:
    """How an answer that ended with *word* ends for a client: stop and outcome."""
    out, ending = relayed(translation(source, target), streamed(source, word, called))
    body, whole = translation(source, target).body(body_of(source, word, called))
    assert (ending.outcome == "failed") == (body == {})
    if ending.outcome == "failed":
        return {("", ending.outcome), ("", whole.outcome)}
    return {
        (said(target, out)["stop"], ending.outcome),
        (said_whole(target, json.loads(json.dumps(body)))["stop"], whole.outcome),
    }


@pytest.mark.parametrize("called", (False, True))
@pytest.mark.parametrize("source, word, stop", REASONS)
def test_a_word_means_the_same_for_every_client(
    source: str, word: str, stop: Stop, called: bool
) -> None:
    for target in set(PROTOCOLS) - {source}:
        if stop == "broken":
            wanted = ("", "failed")
        elif stop in ("", "end"):
            wanted = (STOPS["calls" if called else "end"][target], "ok")
        else:
            wanted = (STOPS[stop][target], "incomplete")
        assert {wanted} == ends(source, target, word, called)


def followed(source: str, data: bytes) -> tuple[bytes, Ending, StreamFacts]:
    """The same protocol on both sides: what passes, and what the record says."""
    facts = WIRES[source].new_facts()
    watch = PassThrough(WIRES[source], facts)
    batch = watch.feed(data)
    passed = batch.data + batch.terminal
    assert batch.ending
    return passed, batch.ending, facts


@pytest.mark.parametrize("source, word, stop", REASONS)
def test_the_record_says_it_too_where_the_answer_passes(
    source: str, word: str, stop: Stop
) -> None:
    data = streamed(source, word)

    passed, ending, facts = followed(source, data)
    whole = WIRES[source].read_body(body_of(source, word), StreamFacts())

    cut = stop in ("length", "context", "filter") or source == "responses"
    wanted = "failed" if stop == "broken" else "incomplete" if cut else "ok"
    if word == "refusal":
        wanted = "ok"  # an answer like another
    assert (wanted, wanted) == (ending.outcome, whole.outcome)
    assert (word if word == ODD else "") == facts.unknown_stop
    if stop != "broken":
        assert data == passed


@pytest.mark.parametrize("source, target", PAIRS)
def test_an_unknown_word_is_noted(source: str, target: str) -> None:
    for follow in (
        lambda one: relayed(one, streamed(source, ODD)),
        lambda one: one.body(body_of(source, ODD)),
    ):
        facts = StreamFacts()
        follow(translation(source, target, facts=facts))
        assert ODD == facts.unknown_stop


@pytest.mark.parametrize("target", ("chat", "messages"))
def test_an_unknown_reason_for_being_incomplete_is_a_limit(target: str) -> None:
    """It says that something is missing; a client must not take it for all."""
    wanted = (STOPS["length"][target], "incomplete")

    assert {wanted} == ends("responses", target, ODD, False)


@pytest.mark.parametrize("target", ("responses", "messages"))
@pytest.mark.parametrize("reason", (None, "", "absent"))
@pytest.mark.parametrize("called", (False, True))
def test_done_without_a_word_ends_as_the_answer_tells(
    target: str, reason: str | None, called: bool
) -> None:
    delta = {"tool_calls": [{"index": 0, **CALL}]} if called else {"content": "Hi"}
    last = chunk(reason, **delta)
    if reason == "absent":
        del last["choices"][0]["finish_reason"]

    out, ending = relayed(translation("chat", target), sse(last, "[DONE]"))

    wanted = STOPS["calls" if called else "end"][target]
    assert ("ok", wanted) == (ending.outcome, said(target, out)["stop"])
    assert "ok" == followed("chat", sse(last, "[DONE]"))[1].outcome


CONTRADICTIONS = [
    pytest.param("response.completed", "failed", "failed", id="failed"),
    pytest.param("response.completed", "cancelled", "failed", id="cancelled"),
    pytest.param("response.completed", "incomplete", "incomplete", id="incomplete"),
    pytest.param("response.incomplete", "completed", "incomplete", id="by-its-type"),
    pytest.param("response.completed", "in_progress", "ok", id="not-updated"),
    pytest.param("response.completed", ODD, "ok", id="unknown"),
]


@pytest.mark.parametrize("kind, status, wanted", CONTRADICTIONS)
def test_of_a_terminals_type_and_status_the_worse_counts(
    kind: str, status: str, wanted: str
) -> None:
    done = body_of("responses", "")["output"][0]
    data = sse(
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": kind, "response": {"status": status}},
    )

    outcomes = {
        relayed(translation("responses", target), data)[1].outcome
        for target in ("chat", "messages")
    }

    assert {wanted} == outcomes | {followed("responses", data)[1].outcome}


@pytest.mark.parametrize("status", ("in_progress", "queued"))
def test_a_whole_answer_that_is_not_finished_is_none(status: str) -> None:
    body = {**body_of("responses", ""), "status": status}

    converted_body, ending = translation("responses", "chat").body(body)

    assert ({}, "failed") == (converted_body, ending.outcome)
    # A background response is not finished either, and its client asked for that.
    assert "ok" == WIRES["responses"].read_body(body, StreamFacts()).outcome


def test_overload_is_reported_as_what_it_is() -> None:
    for word, code in (
        ("insufficient_system_resource", "upstream_overloaded"),
        ("abort", "upstream_failed"),
    ):
        _, ending = relayed(translation("chat", "messages"), streamed("chat", word))
        assert ending.error and code == ending.error.code


def test_no_word_has_two_meanings() -> None:
    words = [word for words in WORDS.values() for word in words]

    assert len(set(words)) == len(words)
    assert all(word == word.lower() and stop_of(word.upper()) for word in words)


def test_only_a_plain_word_is_named() -> None:
    assert ("", "", "") == (unknown("stop"), unknown(None), unknown(""))
    assert ("odd: one", "unprintable") == (unknown("odd: one"), unknown("a\nb"))
    assert "unprintable" == unknown("x" * 65)
