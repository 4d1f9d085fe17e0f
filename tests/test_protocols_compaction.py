"""Compaction made by the gateway: the request for a summary, and its item."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ClientError
from gateway.protocols.compaction import (
    KEPT_CHARACTERS,
    PROMPT,
    SUMMARY_MARK,
    compact_answer,
    compacted_text,
    compaction_item,
    summarising,
    triggered,
)
from gateway.protocols.request_converter import convert_request

TRIGGER = {"type": "compaction_trigger"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def _user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def _convert(body: dict[str, Any], target: str, **more: Any) -> Any:
    return convert_request(
        "responses", target, body, model="m", upstream_model="m", **more
    )


@given(st.text())
def test_summary_survives_its_item(text: str) -> None:
    item = compaction_item(text, "cmp_1")
    assert text == compacted_text(item["encrypted_content"])


@pytest.mark.parametrize("blob", ["", "x", "gw1.compact.!", "gw1.compact._w", "gw2."])
def test_foreign_item_is_not_read(blob: str) -> None:
    assert compacted_text(blob) is None


@pytest.mark.parametrize(
    "value, expected",
    [
        pytest.param([_user("x"), TRIGGER], True, id="last"),
        pytest.param([TRIGGER, _user("x")], False, id="not-last"),
        pytest.param([], False, id="empty"),
        pytest.param("x", False, id="string"),
        pytest.param(None, False, id="absent"),
        pytest.param(["x"], False, id="no-object"),
    ],
)
def test_trigger_is_the_last_item(value: Any, expected: bool) -> None:
    assert expected is triggered({"input": value})


@pytest.mark.parametrize("target", ["chat", "messages"])
def test_trigger_asks_for_a_summary(target: str) -> None:
    body = {
        "model": "m",
        "stream": True,
        "tools": [TOOL],
        "tool_choice": "required",
        "text": {"format": {"type": "json_object"}},
        "input": [_user("fix it"), TRIGGER],
    }
    converted = _convert(body, target)
    assert "trigger" == converted.asked.compaction
    assert PROMPT in str(converted.body["messages"][-1]["content"])
    assert converted.body["tool_choice"] in ("none", {"type": "none"})
    assert "response_format" not in converted.body
    assert TRIGGER in body["input"]


@pytest.mark.parametrize("target", ["chat", "messages"])
def test_endpoint_asks_for_a_summary(target: str) -> None:
    converted = _convert({"model": "m", "input": "fix it"}, target, compact=True)
    assert "endpoint" == converted.asked.compaction
    assert PROMPT in str(converted.body["messages"][-1]["content"])
    assert "tools" not in converted.body


def test_endpoint_without_input_is_the_clients_mistake() -> None:
    with pytest.raises(ClientError) as caught:
        _convert({"model": "m", "input": 7}, "chat", compact=True)
    assert "input" == caught.value.param


@pytest.mark.parametrize("target", ["chat", "messages"])
def test_summary_is_read_as_the_users_words(target: str) -> None:
    item = compaction_item("We fix a.py.", "cmp_1")
    converted = _convert({"model": "m", "input": [item, _user("go")]}, target)
    assert SUMMARY_MARK + "We fix a.py." in _texts(converted.body["messages"][0])


def _texts(message: dict[str, Any]) -> list[str]:
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [block["text"] for block in content]


def _answer(value: Any) -> dict[str, Any]:
    return compact_answer(
        {"input": value},
        "S",
        response_id="resp_1",
        item_id="cmp_1",
        created_at=5,
        usage=None,
    )


def test_answer_keeps_the_users_words_and_the_item() -> None:
    answer = _answer(
        [
            _user("a"),
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "input_text", "text": "c"}]},
            {"role": "user", "content": [{"type": "input_image"}]},
            "junk",
            TRIGGER,
        ]
    )
    said = [item["content"][0]["text"] for item in answer["output"][:-1]]
    assert ["a", "c"] == said
    assert compaction_item("S", "cmp_1") == answer["output"][-1]
    assert ("resp_1", "response.compaction", 5, None) == (
        answer["id"],
        answer["object"],
        answer["created_at"],
        answer["usage"],
    )


def test_answer_keeps_the_latest_words_that_fit() -> None:
    half = "x" * (KEPT_CHARACTERS // 2)
    answer = _answer([_user("old"), _user(half), _user(half)])
    assert 3 == len(answer["output"])


def test_answer_of_a_string_input() -> None:
    assert "hi" == _answer("hi")["output"][0]["content"][0]["text"]


def test_summarising_drops_every_trigger() -> None:
    body = summarising({"input": [TRIGGER, _user("a"), TRIGGER]})
    assert ["a", PROMPT] == [item["content"] for item in body["input"]]
