"""The strict form of a converted Messages answer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocols_answers import (
    MODEL,
    chunk,
    converted,
    objects,
    relayed,
    said,
    sse,
    translation,
)

MESSAGE_KEYS = {
    *("id", "type", "role", "content", "model", "stop_reason", "stop_sequence"),
    *("stop_details", "container", "usage"),
}
USAGE_KEYS = {
    *("input_tokens", "output_tokens", "cache_creation_input_tokens"),
    *("cache_read_input_tokens", "cache_creation", "output_tokens_details"),
    *("server_tool_use", "service_tier", "inference_geo"),
}
DELTA_USAGE_KEYS = USAGE_KEYS - {"cache_creation", "service_tier", "inference_geo"}
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def answer(*events: dict[str, Any], **asked: Any) -> list[dict[str, Any]]:
    following = translation("chat", "messages", converted(**asked))
    return list(objects(relayed(following, sse(*events, "[DONE]"))[0]))


def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": f"f{index}"} if more else {})}
    return {"index": index, "function": function, **more}


def test_every_event_has_every_key_that_the_vendor_requires() -> None:
    events = answer(
        chunk(role="assistant", content="Hi"),
        chunk("stop", usage=USAGE),
        input_tokens=9,
    )

    message = events[0]["message"]
    assert (MESSAGE_KEYS, USAGE_KEYS) == (set(message), set(message["usage"]))
    assert (MODEL, 9, "msg_") == (
        message["model"],
        message["usage"]["input_tokens"],
        message["id"][:4],
    )
    assert [
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": "", "citations": None},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Hi"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "stop_details": None,
                "container": None,
            },
            "usage": {
                "input_tokens": 30,
                "cache_creation_input_tokens": 10,
                "cache_read_input_tokens": 60,
                "output_tokens": 20,
                "server_tool_use": None,
                "output_tokens_details": {"thinking_tokens": 5},
            },
        },
        {"type": "message_stop"},
    ] == events[1:]


def test_a_body_has_every_key_that_the_vendor_requires() -> None:
    message = {"role": "assistant", "content": "Hi"}
    body, _ = translation("chat", "messages").body(
        {"choices": [{"finish_reason": "length", "message": message}], "usage": USAGE}
    )

    assert (MESSAGE_KEYS, USAGE_KEYS) == (set(body), set(body["usage"]))
    assert ("max_tokens", 30, 20) == (
        body["stop_reason"],
        body["usage"]["input_tokens"],
        body["usage"]["output_tokens"],
    )


def test_missing_usage_is_estimated() -> None:
    events = answer(chunk(content="x" * 40), chunk("stop"), input_tokens=9)

    usage = events[-2]["usage"]
    assert DELTA_USAGE_KEYS == set(usage)
    assert (9, 10) == (usage["input_tokens"], usage["output_tokens"])


def test_one_block_is_open_at_a_time() -> None:
    """Fragments alternate; the second call waits until the first one is over."""
    events = answer(
        chunk(role="assistant"),
        chunk(tool_calls=[call(0, "", id="c0", type="function")]),
        chunk(tool_calls=[call(1, '{"b":', id="c1", type="function")]),
        chunk(tool_calls=[call(0, '{"a":1}')]),
        chunk(tool_calls=[call(1, "2}")]),
        chunk(content="Late."),
        chunk("tool_calls"),
    )

    assert [
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
    ] == [(event["type"], event["index"]) for event in events[1:-2]]


def test_a_call_that_is_whole_ends_when_the_next_begins() -> None:
    following = translation("chat", "messages")
    following.feed(sse(chunk(tool_calls=[call(0, "{}", id="c0", type="function")])))

    batch = following.feed(
        sse(chunk(tool_calls=[call(1, "{", id="c1", type="function")]))
    )

    assert ["content_block_stop", "content_block_start", "content_block_delta"] == [
        event["type"] for event in objects(batch.data)
    ]


@pytest.mark.parametrize(
    "finish, called, stop",
    [
        pytest.param("stop", False, "end_turn", id="stop"),
        pytest.param("tool_calls", True, "tool_use", id="tool_calls"),
        pytest.param("stop", True, "tool_use", id="stop-but-a-call"),
        pytest.param("tool_calls", False, "end_turn", id="tool_calls-but-none"),
        pytest.param("length", True, "max_tokens", id="length"),
        pytest.param("content_filter", False, "refusal", id="content_filter"),
        pytest.param("function_call", True, "tool_use", id="function_call"),
        pytest.param("eos", False, "end_turn", id="unheard-of"),
    ],
)
def test_the_stop_is_decided_by_the_content(
    finish: str, called: bool, stop: str
) -> None:
    fragment = call(0, "{}", id="c0", type="function")
    events = answer(
        chunk(content="a", **({"tool_calls": [fragment]} if called else {})),
        chunk(finish),
    )

    assert stop == events[-2]["delta"]["stop_reason"]


def test_legacy_function_calls_are_calls() -> None:
    out = relayed(
        translation("chat", "messages"),
        sse(
            chunk(function_call={"name": "f", "arguments": ""}),
            chunk(function_call={"arguments": '{"a": 1}'}),
            chunk("function_call"),
        ),
    )[0]

    assert ['call: f {"a": 1}'] == said("messages", out)["said"]
