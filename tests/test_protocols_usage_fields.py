"""Token counts in every place and form in which servers were seen to tell them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.protocols import PROTOCOLS as WIRES
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import PassThrough
from gateway.usage import MAX_TOKENS, Usage, count
from tests.protocols_answers import (
    chunk,
    relayed,
    said,
    said_whole,
    sse,
    translation,
)

PLAIN = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
SHORT = {"prompt_tokens": 100, "completion_tokens": 5}
DETAILS = {"prompt_tokens_details": {"cached_tokens": 60}}
Chunks = list[dict[str, Any]]


def last(**members: Any) -> Chunks:
    """A text, then what is given on a chunk that ends it."""
    end = chunk("stop")
    end["choices"][0] |= members.pop("choice", {})
    return [chunk(content="Hi"), {**end, **members}]


def separate(usage: dict[str, Any]) -> Chunks:
    return [*last(), {"id": "c", "choices": [], "usage": usage}]


# place: chunks; input, cached, cache-written, output, reasoning.
CHAT: dict[str, tuple[Chunks, list[int]]] = {
    # https://platform.openai.com/docs/api-reference/chat-streaming
    "openai": (separate({**PLAIN, **DETAILS}), [100, 60, 0, 20, 0]),
    # https://platform.moonshot.ai/docs/api/chat
    "kimi": (separate({**PLAIN, "cached_tokens": 60}), [100, 60, 0, 20, 0]),
    "kimi, in the choice": (
        last(choice={"usage": {**PLAIN, "cached_tokens": 60}}),
        [100, 60, 0, 20, 0],
    ),
    # https://api-docs.deepseek.com/guides/kv_cache
    "deepseek": (
        separate(
            {**PLAIN, "prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}
        ),
        [100, 60, 0, 20, 0],
    ),
    "deepseek, without the sum": (
        separate(
            {
                "completion_tokens": 20,
                "prompt_cache_hit_tokens": 60,
                "prompt_cache_miss_tokens": 40,
            }
        ),
        [100, 60, 0, 20, 0],
    ),
    # A server in between fills in the usual place, and does not know.
    "deepseek, with an empty usual place": (
        separate(
            {
                **PLAIN,
                "prompt_cache_hit_tokens": 60,
                "prompt_tokens_details": {"cached_tokens": 0},
            }
        ),
        [100, 60, 0, 20, 0],
    ),
    # https://openrouter.ai/docs/use-cases/usage-accounting
    "openrouter": (
        separate(
            {
                **PLAIN,
                "cost": 0.001,
                "prompt_tokens_details": {
                    "cached_tokens": 60,
                    "cache_write_tokens": 10,
                },
                "completion_tokens_details": {"reasoning_tokens": 7},
            }
        ),
        [100, 60, 10, 20, 7],
    ),
    "litellm": (
        separate(
            {
                **PLAIN,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 10,
            }
        ),
        [100, 60, 10, 20, 0],
    ),
    # https://console.groq.com/docs/api-reference
    "groq": (last(x_groq={"id": "r", "usage": PLAIN}), [100, 0, 0, 20, 0]),
    "on the last chunk": (last(usage={**PLAIN, **DETAILS}), [100, 60, 0, 20, 0]),
    # vLLM, continuous_usage_stats
    "cumulative on every chunk": (
        [
            {**chunk(content="H"), "usage": {**SHORT, **DETAILS}},
            {**chunk(content="i"), "usage": SHORT},
            {**chunk("stop"), "usage": PLAIN},
        ],
        [100, 60, 0, 20, 0],
    ),
    "null behind the last": (
        [*last(usage=PLAIN), {"id": "c", "choices": [], "usage": None}],
        [100, 0, 0, 20, 0],
    ),
    "whole floats": (
        separate({"prompt_tokens": 100.0, "completion_tokens": 20.0}),
        [100, 0, 0, 20, 0],
    ),
    "strings": (
        separate({"prompt_tokens": "100", "completion_tokens": "20"}),
        [100, 0, 0, 20, 0],
    ),
    "names of Responses": (
        separate(
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "input_tokens_details": {"cached_tokens": 60},
                "output_tokens_details": {"reasoning_tokens": 7},
            }
        ),
        [100, 60, 0, 20, 7],
    ),
}


def numbers(usage: Usage) -> list[int]:
    return [
        usage.input_tokens or 0,
        usage.cached_tokens or 0,
        usage.cache_write_tokens or 0,
        usage.output_tokens or 0,
        usage.reasoning_tokens or 0,
    ]


def whole(chunks: Chunks) -> dict[str, Any]:
    """The same answer as a body: what the chunks tell beside their deltas."""
    body: dict[str, Any] = {}
    for one in chunks:
        body |= {key: value for key, value in one.items() if value and key != "choices"}
        for choice in one["choices"]:
            known = body.setdefault("choices", [{"message": {"content": "Hi"}}])[0]
            known |= {key: value for key, value in choice.items() if key != "delta"}
    return body


@pytest.mark.parametrize("place", CHAT)
def test_a_chat_server_tells_its_usage(place: str) -> None:
    """To the record and in the client's form, streamed and whole."""
    chunks, wanted = CHAT[place]
    data = sse(*chunks, "[DONE]")
    for target in ("responses", "messages"):
        facts = StreamFacts()
        out, _ = relayed(translation("chat", target, facts=facts), data)
        assert wanted == said(target, out)["usage"] == numbers(facts.usage)
        if not place.startswith("cumulative"):
            facts = StreamFacts()
            body, _ = translation("chat", target, facts=facts).body(whole(chunks))
            answer = said_whole(target, json.loads(json.dumps(body)))
            assert wanted == answer["usage"] == numbers(facts.usage)


@pytest.mark.parametrize("place", CHAT)
@pytest.mark.parametrize("read", (1, 10**6))
def test_it_is_read_where_the_answer_passes(place: str, read: int) -> None:
    chunks, wanted = CHAT[place]
    data, facts = sse(*chunks, "[DONE]"), WIRES["chat"].new_facts()
    watch = PassThrough(WIRES["chat"], facts)

    for at in range(0, len(data), read):
        watch.feed(data[at : at + read])

    assert wanted == numbers(facts.usage)
    if not place.startswith("cumulative"):
        facts = StreamFacts()
        WIRES["chat"].read_body(whole(chunks), facts)
        assert wanted == numbers(facts.usage)


START = {"input_tokens": 30, "cache_read_input_tokens": 60, "output_tokens": 1}
# usage of message_start, of message_delta; input, cached, cache-written, output
MESSAGES = [
    pytest.param(START, {"output_tokens": 20}, [90, 60, 0, 20], id="anthropic"),
    pytest.param(
        {"input_tokens": 0, "output_tokens": 0},
        {**START, "cache_creation_input_tokens": 10, "output_tokens": 20},
        [100, 60, 10, 20],
        id="all-at-the-end",  # GLM and others know the input only then
    ),
    pytest.param(
        {"input_tokens": 90.0}, {"output_tokens": 20.0}, [90, 0, 0, 20], id="floats"
    ),
    pytest.param(
        {},
        {"input_tokens": 90, "cached_tokens": 60, "output_tokens": 20},
        [90, 60, 0, 20],
        id="kimi's-name",
    ),
    pytest.param(
        {"input_tokens": 90, "prompt_cache_hit_tokens": 60},
        {"output_tokens": 20},
        [90, 60, 0, 20],
        id="deepseek's-name",
    ),
]


@pytest.mark.parametrize("start, end, wanted", MESSAGES)
def test_a_messages_server_tells_its_usage(
    start: dict[str, Any], end: dict[str, Any], wanted: list[int]
) -> None:
    data = sse(
        {"type": "message_start", "message": {"id": "m", "usage": start}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
        {"type": "message_stop"},
    )
    passing = WIRES["messages"].new_facts()
    PassThrough(WIRES["messages"], passing).feed(data)
    assert wanted == numbers(passing.usage)[:4]
    for target in ("responses", "chat"):
        facts = StreamFacts()
        out, _ = relayed(translation("messages", target, facts=facts), data)
        assert [*wanted, 0] == said(target, out)["usage"] == numbers(facts.usage)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 100, "cached_tokens": 60, "output_tokens": 20},
        {"prompt_tokens": "100", "completion_tokens": 20.0, **DETAILS},
    ],
    ids=("cached-beside", "names-of-chat"),
)
def test_a_responses_server_tells_its_usage(usage: dict[str, Any]) -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}
    response = {"status": "completed", "output": [item], "usage": usage}
    data = sse({"type": "response.completed", "response": response})
    passing, whole = WIRES["responses"].new_facts(), StreamFacts()
    PassThrough(WIRES["responses"], passing).feed(data)
    WIRES["responses"].read_body(response, whole)
    out, _ = relayed(translation("responses", "messages"), data)

    wanted = [100, 60, 0, 20, 0]
    assert wanted == numbers(passing.usage) == numbers(whole.usage)
    assert wanted == said("messages", out)["usage"]


COUNTS = [
    *((11, 11), (11.0, 11), ("11", 11), (0, 0), (MAX_TOKENS, MAX_TOKENS)),
    *((11.5, None), (-1, None), (True, None), (None, None), ("", None), ("-1", None)),
    *((MAX_TOKENS + 1, None), ("9" * 5000, None), ("1e3", None), ("\u0661", None)),
    *((float("nan"), None), (float("inf"), None), ([], None)),
]


@pytest.mark.parametrize("value, wanted", COUNTS)
def test_a_count_is_a_whole_number(value: object, wanted: int | None) -> None:
    assert wanted == count(value)
    assert wanted is None or type(count(value)) is int
