"""Cursor's requests: Chat's path, the shape of Responses."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import ClientError
from gateway.protocols.chat.responses_shape import nested
from gateway.protocols.request_converter import convert_request
from tests.conftest import Serve
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

SCHEMA = {"type": "object", "properties": {"p": {"type": "string"}}}
FLAT = {"type": "function", "name": "read", "description": "d", "parameters": SCHEMA}
NESTED = {
    "type": "function",
    "function": {"name": "read", "description": "d", "parameters": SCHEMA},
}
USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("tool", "read"),
    [
        pytest.param(FLAT, NESTED, id="flat"),
        pytest.param(
            {"name": "read", "description": "d", "input_schema": SCHEMA},
            NESTED,
            id="anthropic",
        ),
        pytest.param(NESTED, NESTED, id="nested"),
        pytest.param(
            {"type": "custom", "name": "patch", "format": {"type": "text"}},
            {
                "type": "custom",
                "custom": {"name": "patch", "format": {"type": "text"}},
            },
            id="custom",
        ),
        pytest.param({"type": "web_search"}, {"type": "web_search"}, id="hosted"),
        pytest.param("read", "read", id="no-tool"),
    ],
)
def test_a_tool_is_read_where_its_meaning_is_plain(tool: Any, read: Any) -> None:
    assert [read] == nested({"tools": [tool]})["tools"]


def test_what_is_chat_already_is_not_touched() -> None:
    body = {"messages": [USER], "tools": [NESTED], "tool_choice": "auto"}

    assert nested(body) is body


@pytest.mark.parametrize("target", ["responses", "messages"])
@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER], "tools": [FLAT], "tool_choice": FLAT},
        {
            "input": [{"type": "message", **USER}],
            "tools": [FLAT],
            "tool_choice": {"type": "function", "name": "read"},
        },
    ],
    ids=["flat-tools", "whole-body"],
)
def test_it_reaches_accounts_of_other_protocols(
    target: str, body: dict[str, Any]
) -> None:
    converted = convert_request(
        "chat", target, {"model": "m", **body}, model="m", upstream_model="m"
    )

    [tool] = converted.body["tools"]
    assert "read" == tool["name"] == converted.body["tool_choice"]["name"]
    assert SCHEMA in (tool.get("parameters"), tool.get("input_schema"))
    assert 1 == len(converted.body.get("input", converted.body.get("messages")))


def test_a_body_that_says_nothing_is_still_refused() -> None:
    with pytest.raises(ClientError) as caught:
        convert_request(
            "chat", "messages", {"model": "m"}, model="m", upstream_model="m"
        )

    assert "messages" == caught.value.param


async def test_a_chat_account_gets_chat(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """No byte is changed without need; here the upstream would refuse the request."""
    gateway = await serve(accounts=[account(upstream, "chat", models=["*"])])
    client = gateway.client()

    first = await client.ask("chat", "m", tools=[FLAT], seed=7)
    second = await client.ask("chat", "m", messages=None, input="say something")

    assert (200, 200) == (first.status, second.status)
    tools, whole = (request.json for request in upstream.received())
    assert ([NESTED], 7) == (tools["tools"], tools["seed"])
    assert "say something" == whole["messages"][-1]["content"]
    assert "input" not in whole and whole["stream_options"]["include_usage"]
