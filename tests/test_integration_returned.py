"""
Over real sockets: an upstream that wants back what it alone can use, and refuses the
turn without it; a client that repeats what it got.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, ScriptedUpstream
from tests.kit.settings import account

PATHS = {
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
}
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOLS: dict[str, Any] = {
    "responses": [{"type": "function", **TOOL}],
    "messages": [{"name": "f", "input_schema": TOOL["parameters"]}],
    "chat": [{"type": "function", "function": TOOL}],
}


async def gemini(exchange: Exchange) -> None:
    """A call in each turn, signed; the next turn must bring the signature back."""
    turns = [m for m in exchange.request.json["messages"] if "tool_calls" in m]
    for n, turn in enumerate(turns):
        if turn["tool_calls"][0].get("extra_content") != signature(n):
            words = (
                "Function call is missing a thought_signature in functionCall parts."
            )
            body = {"error": {"code": 400, "message": words}}
            return await exchange.reply(400, json.dumps(body).encode())
    call = {
        "id": f"functions.f:{len(turns)}",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": signature(len(turns)),
    }
    await answer(exchange, {"tool_calls": [call]})


def signature(n: int) -> dict[str, Any]:
    return {"google": {"thought_signature": f"signed-{n}"}}


async def answer(exchange: Exchange, message: dict[str, Any]) -> None:
    """A Chat answer, streamed or whole as it was asked for."""
    if exchange.request.json.get("stream"):
        choice = {"index": 0, "delta": message, "finish_reason": "stop"}
        data = json.dumps({"id": "c", "choices": [choice]})
        await exchange.head()
        await exchange.send(f"data: {data}\n\ndata: [DONE]\n\n".encode())
        return await exchange.end()
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    await exchange.reply(200, json.dumps({"id": "c", "choices": [choice]}).encode())


async def anthropic(exchange: Exchange) -> None:
    """Signed thinking and a call; a turn whose thinking is missing is refused."""
    turns = [m for m in exchange.request.json["messages"] if m["role"] == "assistant"]
    if any(turn["content"][0].get("signature") != "signed" for turn in turns):
        error = {"type": "invalid_request_error", "message": "Expected `thinking`"}
        body = json.dumps({"type": "error", "error": error})
        return await exchange.reply(400, body.encode())
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "signed"},
        {"type": "tool_use", "id": f"toolu_{len(turns)}", "name": "f", "input": {}},
    ]
    message = {"id": "m", "type": "message", "role": "assistant", "content": content}
    usage = {"input_tokens": 1, "output_tokens": 1}
    body = json.dumps({**message, "stop_reason": "tool_use", "usage": usage})
    await exchange.reply(200, body.encode())


class Talk:
    """A client that repeats its conversation, in turns that are not streamed."""

    def __init__(self, gateway: Gateway, client: str, model: str, **extra: Any) -> None:
        self.gateway, self.client, self.model, self.extra = (
            gateway,
            client,
            model,
            extra,
        )
        self.history: list[Any] = [{"role": "user", "content": "Go"}]

    async def turn(self) -> Reply:
        key = "input" if self.client == "responses" else "messages"
        body = {"model": self.model, key: self.history, "tools": TOOLS[self.client]}
        if self.client == "messages":
            body["max_tokens"] = 99
        reply = await self.gateway.client().send(
            PATHS[self.client],
            json.dumps({**body, **self.extra}),
            headers={"x-session-id": "s"},
        )
        if reply.status == 200:
            self._remember(reply.json)
        return reply

    def _remember(self, body: dict[str, Any]) -> None:
        if self.client == "responses":
            self.history += body["output"]
            self.history += [
                {
                    "type": "function_call_output",
                    "call_id": item["call_id"],
                    "output": "ok",
                }
                for item in body["output"]
                if item["type"] == "function_call"
            ]
        elif self.client == "messages":
            results = [
                {"type": "tool_result", "tool_use_id": part["id"], "content": "ok"}
                for part in body["content"]
                if part["type"] == "tool_use"
            ]
            self.history.append({"role": "assistant", "content": body["content"]})
            self.history.append({"role": "user", "content": results})
        else:
            said = body["choices"][0]["message"]
            calls = said["tool_calls"]
            self.history.append({"role": "assistant", "tool_calls": calls})
            self.history += [
                {"role": "tool", "tool_call_id": call["id"], "content": "ok"}
                for call in calls
            ]


@pytest.mark.parametrize(
    "client, extra",
    [
        ("responses", {}),
        ("messages", {"thinking": {"type": "adaptive"}}),
        ("messages", {}),
    ],
    ids=("responses", "messages", "messages-without-thinking"),
)
async def test_three_turns_with_a_server_that_signs_its_calls(
    serve: Serve, upstream: ScriptedUpstream, client: str, extra: dict[str, Any]
) -> None:
    upstream.always(gemini)
    gateway = await serve(accounts=[account(upstream, "chat-1", dialect="gemini")])
    talk = Talk(gateway, client, "chat-x", **extra)

    statuses = [(await talk.turn()).status for _ in range(3)]

    assert [200, 200, 200] == statuses
    last = upstream.received()[-1].json["messages"]
    assert ["functions.f:0", "functions.f:1"] == [
        turn["tool_call_id"] for turn in last if turn["role"] == "tool"
    ]


async def test_three_turns_of_a_chat_client_whose_account_signs_its_thinking(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.always(anthropic)
    gateway = await serve(accounts=[account(upstream, "messages-1")])
    talk = Talk(gateway, "chat", "messages-x")

    assert [200, 200, 200] == [(await talk.turn()).status for _ in range(3)]


async def test_no_client_sees_the_address_of_the_account(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.always(gemini)
    gateway = await serve(accounts=[account(upstream, "chat-1")])

    reply = await Talk(gateway, "responses", "chat-x").turn()

    [sealed] = [i for i in reply.json["output"] if i["type"] == "reasoning"]
    address = upstream.base_url("chat-1").partition("://")[2].partition("/")[0]
    assert address and address not in str(_opened(sealed["encrypted_content"]))


def _opened(text: str) -> bytes:
    body = text.rpartition(".")[2]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
