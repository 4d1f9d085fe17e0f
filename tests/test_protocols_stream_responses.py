"""The strict form of a converted Responses answer, and what Codex takes from it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.protocols.request_converter import convert_request
from tests.protocols_answers import (
    MODEL,
    NOW,
    REQUEST_ID,
    chunk,
    objects,
    relayed,
    sse,
    translation,
)

RESPONSE_KEYS = {
    *("id", "object", "created_at", "completed_at", "status", "background", "error"),
    *("incomplete_details", "instructions", "max_output_tokens", "max_tool_calls"),
    *("model", "output", "parallel_tool_calls", "previous_response_id"),
    *("prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "store"),
    *("temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p"),
    *("presence_penalty", "frequency_penalty", "truncation", "usage", "metadata"),
}
NULLABLE = {
    *("completed_at", "incomplete_details", "previous_response_id", "instructions"),
    *("error", "usage", "max_output_tokens", "max_tool_calls", "safety_identifier"),
    "prompt_cache_key",
}
PLAIN: dict[str, Any] = {"model": MODEL, "input": "hi", "stream": True}


def converted(**body: Any) -> Any:
    return convert_request(
        "responses", "chat", {**PLAIN, **body}, model=MODEL, upstream_model="m"
    )


def stream(
    *events: dict[str, Any] | str, request: Any = None, **given: Any
) -> list[dict[str, Any]]:
    following = translation("chat", "responses", request or converted(), **given)
    return list(objects(relayed(following, sse(*events))[0]))


TEXT = (chunk(role="assistant"), chunk(content="Hi"), chunk("stop"), "[DONE]")


def test_every_response_object_has_every_key() -> None:
    events = stream(*TEXT)

    for event in (events[0], events[1], events[-1]):
        response = event["response"]
        assert RESPONSE_KEYS == set(response)
        assert [] == [k for k in RESPONSE_KEYS - NULLABLE if response[k] is None]
        assert "resp_" + REQUEST_ID.replace("-", "") == response["id"]
        assert (MODEL, NOW) == (response["model"], response["created_at"])
    assert ["in_progress", "in_progress", "completed"] == [
        event["response"]["status"] for event in (events[0], events[1], events[-1])
    ]


def test_the_response_repeats_the_request() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    asked = {
        "instructions": "Be brief.",
        "tools": [tool],
        "tool_choice": "required",
        "temperature": 0.5,
        "metadata": {"a": "b"},
        "store": False,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "high"},
        "parallel_tool_calls": False,
    }

    response = stream(*TEXT, request=converted(**asked))[-1]["response"]

    echoed = {key: response[key] for key in asked}
    assert echoed == {
        **asked,
        "tools": [{**tool, "description": None, "strict": None}],
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": None},
    }


def test_the_time_of_completion_is_given() -> None:
    response = stream(*TEXT, now=lambda: NOW + 7.9)[-1]["response"]

    assert NOW + 7 == response["completed_at"]


def test_a_message_is_streamed_in_the_order_that_accumulators_want() -> None:
    assert [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ] == [event["type"] for event in stream(*TEXT)]


def test_what_codex_takes_from_the_stream_is_whole() -> None:
    """Codex 0.169 reads nothing but the done items and the terminal."""
    call = {"index": 0, "id": "c1", "type": "function"}
    events = stream(
        chunk(role="assistant", reasoning_content="Hm."),
        chunk(content="Let me."),
        chunk(tool_calls=[{**call, "function": {"name": "f", "arguments": '{"a"'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        chunk("tool_calls", usage={"prompt_tokens": 3, "completion_tokens": 4}),
        "[DONE]",
    )

    items = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert ["reasoning", "message", "function_call"] == [i["type"] for i in items]
    assert [{"type": "summary_text", "text": "Hm."}] == items[0]["summary"]
    assert "encrypted_content" not in items[0] and "content" not in items[0]
    assert "Let me." == items[1]["content"][0]["text"]
    assert {
        "arguments": '{"a":1}',
        "name": "f",
        "call_id": "c1",
        "status": "completed",
    }.items() <= items[2].items()
    assert {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    } == events[-1]["response"]["usage"]


def test_an_item_has_one_id_and_no_two_share_it() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    events = stream(
        chunk(role="assistant", content="a"),
        chunk(tool_calls=[{**call, "index": 0, "id": "c1"}]),
        chunk(tool_calls=[{**call, "index": 1, "id": "c2"}]),
        chunk("tool_calls"),
        "[DONE]",
    )

    ids = [item["id"] for item in events[-1]["response"]["output"]]
    assert 3 == len(set(ids)) and ["msg_", "fc_", "fc_"] == [
        id[: id.index("_") + 1] for id in ids
    ]


@pytest.mark.parametrize(
    "tool, arguments, item",
    [
        pytest.param(
            {"type": "local_shell"},
            {"command": ["ls"], "timeout_ms": 5},
            {
                "type": "local_shell_call",
                "action": {
                    "type": "exec",
                    "command": ["ls"],
                    "env": {},
                    "timeout_ms": 5,
                },
            },
            id="local_shell",
        ),
        pytest.param(
            {"type": "apply_patch"},
            {"operation": {"type": "delete_file", "path": "a"}},
            {
                "type": "apply_patch_call",
                "operation": {"type": "delete_file", "path": "a"},
            },
            id="apply_patch",
        ),
        pytest.param(
            {"type": "custom", "name": "sql"},
            {"input": "select 1"},
            {"type": "custom_tool_call", "name": "sql", "input": "select 1"},
            id="custom",
        ),
        pytest.param(
            {
                "type": "namespace",
                "name": "fs",
                "description": "",
                "tools": [{"type": "function", "name": "read"}],
            },
            {},
            {"type": "function_call", "name": "read", "namespace": "fs"},
            id="namespace",
        ),
    ],
)
def test_a_carried_tool_comes_back_as_what_it_is(
    tool: dict[str, Any], arguments: dict[str, Any], item: dict[str, Any]
) -> None:
    request = converted(tools=[tool])
    (wire_name,) = [declared["function"]["name"] for declared in request.body["tools"]]
    function = {"name": wire_name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}

    events = stream(
        chunk(role="assistant", tool_calls=[call]),
        chunk("tool_calls"),
        "[DONE]",
        request=request,
    )

    (output_item,) = events[-1]["response"]["output"]
    assert {
        **item,
        "call_id": "c1",
        "status": "completed",
    }.items() <= output_item.items()


def test_a_body_is_the_response_of_the_terminal() -> None:
    last = stream(*TEXT)[-1]["response"]
    message = {"role": "assistant", "content": "Hi"}

    body, _ = translation("chat", "responses", converted()).body(
        {"choices": [{"finish_reason": "stop", "message": message}]}
    )

    assert last == orjson.loads(orjson.dumps(body))
