"""The form of a converted Chat answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocols_answers import (
    MODEL,
    NOW,
    converted,
    objects,
    relayed,
    said,
    sse,
    translation,
)

START = {"type": "message_start", "message": {"usage": {"input_tokens": 3}}}
END = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 4},
    },
    {"type": "message_stop"},
]


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[Any]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *(
            {"type": "content_block_delta", "index": index, "delta": delta}
            for delta in deltas
        ),
        {"type": "content_block_stop", "index": index},
    ]


TEXT = block(
    0,
    {"type": "text", "text": ""},
    {"type": "text_delta", "text": "Hi"},
    {"type": "text_delta", "text": ' "you"\n'},
)


def answer(*events: dict[str, Any], **asked: Any) -> bytes:
    following = translation("messages", "chat", converted(**asked))
    return relayed(following, sse(START, *events, *END))[0]


def test_a_text_is_streamed_in_the_form_of_the_vendor() -> None:
    chunks = list(objects(answer(*TEXT)))

    same = {"object": "chat.completion.chunk", "created": NOW, "model": MODEL}
    assert all(same.items() <= chunk.items() for chunk in chunks)
    assert 1 == len({chunk["id"] for chunk in chunks})
    assert chunks[0]["id"].startswith("chatcmpl-")
    assert [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({"content": "Hi"}, None),
        ({"content": ' "you"\n'}, None),
        ({}, "stop"),
    ] == [
        (chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"])
        for chunk in chunks[:-1]
    ]
    assert [None] * 4 == [chunk["usage"] for chunk in chunks[:-1]]
    assert ([], 7) == (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"])


def test_no_event_is_named_and_done_is_last() -> None:
    out = answer(*TEXT)

    assert b"event:" not in out
    assert 1 == out.count(b"[DONE]") and out.endswith(b"data: [DONE]\n\n")


def test_usage_is_sent_only_if_asked_for() -> None:
    out = answer(*TEXT, include_usage=False)

    assert b"usage" not in out
    assert {"said": ['text: Hi "you"\n'], "stop": "stop", "usage": None} == said(
        "chat", out
    )


def test_a_body_has_usage_always() -> None:
    content = [{"type": "text", "text": "Hi"}]
    usage = {"input_tokens": 3, "output_tokens": 4}
    body, _ = translation("messages", "chat", converted(include_usage=False)).body(
        {"content": content, "stop_reason": "end_turn", "usage": usage}
    )

    assert {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
    } == body["choices"][
        0
    ]["message"]
    assert ("chat.completion", 7) == (body["object"], body["usage"]["total_tokens"])


def test_call_indices_are_dense_and_names_are_sent_once() -> None:
    call = {"type": "tool_use", "input": {}}
    out = answer(
        *TEXT,
        *block(1, {**call, "id": "c1", "name": "one"}),
        *block(
            2,
            {**call, "id": "c2", "name": "two"},
            {"type": "input_json_delta", "partial_json": '{"a":'},
            {"type": "input_json_delta", "partial_json": "1}"},
        ),
    )

    fragments = [
        fragment
        for chunk in objects(out)
        for choice in chunk["choices"]
        for fragment in choice["delta"].get("tool_calls", ())
    ]
    assert [
        (0, "c1", {"name": "one", "arguments": ""}),
        (0, None, {"arguments": "{}"}),
        (1, "c2", {"name": "two", "arguments": ""}),
        (1, None, {"arguments": '{"a":'}),
        (1, None, {"arguments": "1}"}),
    ] == [(f["index"], f.get("id"), f["function"]) for f in fragments]


def test_a_free_form_call_has_the_form_that_the_client_declared() -> None:
    out = answer(
        *block(
            0,
            {"type": "tool_use", "id": "c1", "name": "sql", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"input": "select 1"}'},
        )
    )
    assert ['call: sql {"input": "select 1"}'] == said("chat", out)["said"]

    body, _ = translation("messages", "chat", converted((("custom", "sql"),))).body(
        {
            "content": [
                {"type": "tool_use", "id": "c1", "name": "sql", "input": {"input": "x"}}
            ],
            "stop_reason": "tool_use",
        }
    )
    assert [
        {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "x"}}
    ] == (body["choices"][0]["message"]["tool_calls"])


@pytest.mark.parametrize(
    "content, expected",
    [
        pytest.param([], "", id="nothing"),
        pytest.param(
            [{"type": "tool_use", "id": "c", "name": "f", "input": {}}], None, id="call"
        ),
    ],
)
def test_the_content_of_a_body_without_text(content: Any, expected: str | None) -> None:
    body, _ = translation("messages", "chat").body(
        {"content": content, "stop_reason": "end_turn"}
    )

    assert expected == body["choices"][0]["message"]["content"]
    assert "usage" not in json.loads(json.dumps(body))
