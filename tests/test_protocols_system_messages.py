"""One system message, in front, for servers whose templates take no other."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import ClientError
from gateway.protocols import dialects
from gateway.protocols.options import Options
from gateway.protocols.request_converter import convert_request

HOIST = Options(system_messages="hoist")


def message(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


CODEX = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        message("developer", "You are Codex."),
        message("system", "Sandbox: none."),
        message("user", "Hello"),
        message("assistant", "Hi."),
        message("developer", "The mode is now: plan."),
        message("user", "Go on"),
    ],
}


def convert(target: str, body: dict[str, Any], options: Options) -> dict[str, Any]:
    source = "responses" if target == "chat" else "chat"
    return convert_request(
        source, target, body, model="m", upstream_model="m", options=options
    ).body


def test_one_system_message_leads_and_later_ones_are_turns_of_the_user() -> None:
    """Qwen 3.5's template: "System message must be at the beginning"."""
    assert [
        ("system", "Be brief.\n\nYou are Codex.\n\nSandbox: none."),
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "[System message]\n\nThe mode is now: plan."),
        ("user", "Go on"),
    ] == [
        (said["role"], said["content"])
        for said in convert("chat", CODEX, HOIST)["messages"]
    ]


def test_a_responses_server_gets_them_as_instructions() -> None:
    messages = [
        {"role": "system", "content": "A"},
        {"role": "developer", "content": "B"},
        {"role": "user", "content": "x"},
        {"role": "system", "content": [{"type": "text", "text": "C"}]},
    ]
    body = convert("responses", {"model": "m", "messages": messages}, HOIST)

    assert "A\n\nB" == body["instructions"]
    assert ["user", "user"] == [item["role"] for item in body["input"]]


@pytest.mark.parametrize(
    ("dialect", "systems"),
    [("openai", 4), ("azure", 4)]
    + [
        (name, 1)
        for name in dialects.DIALECTS
        if name not in ("openai", "azure", "anthropic")
    ],
)
def test_only_openais_own_servers_get_several(dialect: str, systems: int) -> None:
    body = convert("chat", CODEX, dialects.options(dialect, {}))

    roles = [said["role"] for said in body["messages"]]
    assert systems == roles.count("system")


def test_an_account_can_keep_them() -> None:
    options = dialects.options("vllm", {"system_messages": "keep"})

    roles = [said["role"] for said in convert("chat", CODEX, options)["messages"]]
    assert 4 == roles.count("system")


def test_a_system_message_that_is_no_text_is_refused() -> None:
    picture = {"type": "input_image", "image_url": "https://h/i.png"}
    item = {"type": "message", "role": "developer", "content": [picture]}

    with pytest.raises(ClientError) as caught:
        convert("chat", {"model": "m", "input": [item, message("user", "x")]}, HOIST)

    assert "input[0].content[0]" == caught.value.param


def test_a_system_message_within_a_tool_call_stays_behind_its_result() -> None:
    items = [
        message("user", "x"),
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        message("developer", "Careful."),
        {"type": "function_call_output", "call_id": "c", "output": "done"},
    ]
    body = convert("chat", {"model": "m", "input": items}, HOIST)

    roles = [said["role"] for said in body["messages"]]
    assert ["user", "assistant", "tool", "user"] == roles
