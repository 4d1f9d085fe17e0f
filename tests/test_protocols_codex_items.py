"""
The input items of today's Codex, on accounts of the other protocols.

The names are those of ``ResponseItem`` and its contents in the binary of Codex 0.171;
``configuration_update`` has the form of OpenAI's own API reference.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import ClientError
from gateway.protocols.options import Options
from gateway.protocols.request_converter import Converted, convert_request

ASK = {"type": "message", "role": "user", "content": "go on"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
SECRET = {"type": "encrypted_content", "encrypted_content": "gAAAA-secret"}
TARGETS = ("chat", "messages")


def convert(target: str, *items: dict[str, Any], **fields: Any) -> Converted:
    body = {"model": "gpt-5.5", "input": list(items), **fields}
    names = {"model": "gpt-5.5", "upstream_model": "m"}
    return convert_request("responses", target, body, **names)


def words(message: dict[str, Any]) -> str:
    """All that a message of a body says, one line a part."""
    content = message["content"]
    if isinstance(content, str):
        return content
    texts = [part.get("text") or words(part) for part in content]
    return "\n".join(texts)


def text(value: str) -> dict[str, Any]:
    return {"type": "input_text", "text": value}


def from_agent(*content: dict[str, Any]) -> dict[str, Any]:
    head = {"type": "agent_message", "author": "/root/scout", "recipient": "/root"}
    return {**head, "content": list(content)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("item", "said", "dropped"),
    [
        pytest.param(
            from_agent(text("I found it.")),
            "[Message from agent /root/scout]\n\nI found it.",
            [],
            id="agent_message",
        ),
        pytest.param(
            from_agent(text("Half of it."), SECRET),
            "[Message from agent /root/scout]\n\nHalf of it.",
            ["input[0].content[1]"],
            id="agent_message-partly-encrypted",
        ),
        pytest.param(
            {"type": "message", "role": "user", "content": [SECRET, text("open")]},
            "open",
            ["input[0].content[0]"],
            id="message-partly-encrypted",
        ),
        pytest.param(
            {
                "type": "message",
                "role": "user",
                "content": [{**text("x"), "type": "n"}],
            },
            "x",
            [],
            id="unknown-part-that-says-something",
        ),
        pytest.param(
            {"type": "note_of_tomorrow", "content": [text("Mind the gap.")]},
            "Mind the gap.",
            [],
            id="unknown-item-that-says-something",
        ),
        pytest.param(
            {"type": "note_of_tomorrow", "content": "Mind the gap."},
            "Mind the gap.",
            [],
            id="unknown-item-with-a-string",
        ),
    ],
)
def test_what_an_item_says_reaches_the_model(
    target: str, item: dict[str, Any], said: str, dropped: list[str]
) -> None:
    converted = convert(target, item)

    [message] = converted.body["messages"]
    assert ("user", said) == (message["role"], words(message))
    assert dropped == list(converted.dropped)
    assert b"gAAAA" not in converted.encoded()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "item",
    [
        from_agent(SECRET),
        from_agent(),
        {"type": "context_compaction"},
        {"type": "context_compaction", "encrypted_content": None},
        {"type": "configuration_update"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"},
        {"type": "ghost_snapshot", "ghost_commit": {"id": "1"}},
        {"type": "thing_of_tomorrow", "payload": {"a": 1}},
        {"type": "thing_of_tomorrow", "content": {"a": 1}},
    ],
    ids=lambda item: str(item["type"]),
)
def test_an_item_that_says_nothing_is_left_out_and_named(
    target: str, item: dict[str, Any]
) -> None:
    """It is in the history of a conversation that must not be dead for it."""
    converted = convert(target, ASK, item, ASK)

    assert "input[1]" in {path[:8] for path in converted.dropped}
    said = [words(message) for message in converted.body["messages"]]
    assert ["go on", "go on"] == "\n".join(said).split("\n")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"type": "compaction", "encrypted_content": "of-another-vendor"},
        {"type": "context_compaction", "encrypted_content": "of-another-vendor"},
    ],
    ids=lambda item: str(item["type"]),
)
def test_an_item_that_stands_for_what_we_do_not_know_is_refused(
    target: str, item: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as caught:
        convert(target, ASK, item)

    assert (400, "input[1]") == (caught.value.status, caught.value.param)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["function_call_output", "custom_tool_call_output"])
def test_encrypted_parts_of_a_tools_output_are_left_out(target: str, kind: str) -> None:
    call = CALL
    if kind == "custom_tool_call_output":
        call = {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "x"}
    output = {"type": kind, "call_id": "c1", "output": [SECRET, text("seen")]}

    converted = convert(target, ASK, call, output)

    assert ("input[2].output[0]",) == converted.dropped
    assert "seen" == words(converted.body["messages"][-1])
    assert b"gAAAA" not in converted.encoded()


@pytest.mark.parametrize(
    ("url", "sound"),
    [
        ("data:audio/wav;base64,UklG", {"data": "UklG", "format": "wav"}),
        ("data:audio/x-wav;base64,UklG", {"data": "UklG", "format": "wav"}),
        ("data:audio/mpeg;base64,SUQz", {"data": "SUQz", "format": "mp3"}),
        ("data:audio/ogg;base64,T2dn", {"data": "T2dn", "format": "ogg"}),
    ],
)
def test_sound_of_codex_is_sound_for_chat(url: str, sound: dict[str, str]) -> None:
    part = {"type": "input_audio", "audio_url": url}
    message = {"type": "message", "role": "user", "content": [text("hear"), part]}

    [said] = convert("chat", message).body["messages"]

    assert {"type": "input_audio", "input_audio": sound} == said["content"][1]


@pytest.mark.parametrize(
    ("target", "part", "path"),
    [
        ("chat", {"audio_url": "https://h/a.wav"}, ".audio_url"),
        ("chat", {"file_id": "file_1"}, ".file_id"),
        ("messages", {"audio_url": "data:audio/wav;base64,UklG"}, ""),
    ],
)
def test_sound_that_cannot_be_carried_is_refused(
    target: str, part: dict[str, str], path: str
) -> None:
    sound = {"type": "input_audio", **part}
    message = {"type": "message", "role": "user", "content": [sound]}

    with pytest.raises(ClientError) as caught:
        convert(target, message)

    assert f"input[0].content[0]{path}" == caught.value.param


def update(effort: str) -> dict[str, Any]:
    return {"type": "configuration_update", "reasoning": {"effort": effort}}


@pytest.mark.parametrize("fields", [{}, {"reasoning": {"effort": "low"}}])
def test_the_last_update_of_the_effort_is_that_of_the_answer(
    fields: dict[str, Any],
) -> None:
    converted = convert("chat", update("low"), ASK, update("high"), ASK, **fields)

    assert "high" == converted.body["reasoning_effort"]
    assert () == converted.dropped
    thinks = convert("messages", ASK, update("high"), **fields).body
    assert {"effort": "high"} == thinks["output_config"]


def test_a_message_of_an_agent_reaches_a_text_only_model() -> None:
    body = {"model": "m", "input": [from_agent(text("I found it."))]}
    options = Options(images=False)
    converted = convert_request(
        "responses", "chat", body, model="m", upstream_model="m", options=options
    )

    assert converted.body["messages"][0]["content"].endswith("I found it.")
