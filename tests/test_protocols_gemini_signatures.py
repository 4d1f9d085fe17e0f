"""
Calls that lack the signature without which Gemini 3 refuses a turn.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures: the first call of each
step is signed; for calls that another model made there is a filler.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from gateway.protocols import dialects
from gateway.protocols.chat.gemini_signatures import FILLER, signed
from gateway.protocols.request_converter import convert_request
from tests.conftest import Serve
from tests.kit import settings
from tests.kit.scripted import ScriptedUpstream

Body = dict[str, Any]
FILLED = {"google": {"thought_signature": FILLER}}
TRUE = {"google": {"thought_signature": "c2lnbmVk"}}
PATH = "/v1/chat/completions"
LONG = 123456789012345678901234567890


def call(call_id: str, extra: Body | None = None) -> Body:
    function = {"name": "f", "arguments": "{}"}
    form = {"id": call_id, "type": "function", "function": function}
    return form if extra is None else {**form, "extra_content": extra}


def step(*calls: Body) -> list[Body]:
    """A turn of the assistant with *calls*, and their results."""
    said = {"role": "assistant", "content": None, "tool_calls": list(calls)}
    results = [
        {"role": "tool", "tool_call_id": one["id"], "content": "r"} for one in calls
    ]
    return [said, *results]


def extras(messages: list[Body]) -> list[Body | None]:
    return [
        one.get("extra_content")
        for message in messages
        for one in message.get("tool_calls", ())
    ]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([call("a")], [FILLED]),
        ([call("a"), call("b")], [FILLED, None]),
        ([call("a", TRUE), call("b")], [TRUE, None]),
        ([call("a", {}), call("b", TRUE)], [FILLED, TRUE]),
        ([call("a", {"x": {"y": 1}})], [{"x": {"y": 1}, **FILLED}]),
        ([call("a", {"google": {"thought_signature": ""}})], [FILLED]),
    ],
)
def test_the_first_call_of_a_step_is_signed(
    calls: list[Body], expected: list[Body | None]
) -> None:
    messages = step(*calls)
    before = copy.deepcopy(messages)

    assert expected == extras(signed(messages))
    assert before == messages


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "x"}],
        step(call("a", TRUE)),
        [None, 5, {"role": "assistant", "tool_calls": "x"}, {"tool_calls": [None, 5]}],
    ],
)
def test_what_lacks_nothing_stays_the_same_object(messages: list[Any]) -> None:
    assert signed(messages) is messages


MODELS = [
    ("gemini-3-pro-preview", [FILLED, FILLED]),
    ("gemini-flash-latest", [FILLED, FILLED]),
    ("gemini-10-pro", [FILLED, FILLED]),
    ("gemini-2.5-pro", [None, None]),
    ("gemini-1.5-flash", [None, None]),
]
SESSION: Body = {
    "model": "m",
    "input": [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "r"},
        {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "b", "output": "r"},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
}


@pytest.mark.parametrize(("model", "expected"), MODELS)
def test_a_session_that_moves_to_gemini(model: str, expected: list[Body]) -> None:
    names = {"model": "m", "upstream_model": model}
    options = dialects.options("gemini", {})
    converted = convert_request("responses", "chat", SESSION, options=options, **names)

    assert expected == extras(converted.body["messages"])


@pytest.mark.parametrize(
    "dialect",
    [name for name in dialects.DIALECTS if name not in ("gemini", "anthropic")],
)
def test_no_other_server_gets_the_filler(dialect: str) -> None:
    names = {"model": "m", "upstream_model": "gemini-3-pro"}
    options = dialects.options(dialect, {})
    converted = convert_request("responses", "chat", SESSION, options=options, **names)

    assert [None, None] == extras(converted.body["messages"])


@pytest.mark.parametrize("unsigned_calls", ["fill", "keep"])
async def test_a_chat_client_that_keeps_no_signature(
    serve: Serve, upstream: ScriptedUpstream, unsigned_calls: str
) -> None:
    """Its body is changed there alone, and no number loses a digit."""
    options = {"unsigned_calls": unsigned_calls}
    account = settings.account(upstream, "chat", dialect="gemini", convert=options)
    gateway = await serve(accounts=[account])
    body = {"model": "chat-x", "seed": LONG, "messages": step(call("a"), call("b"))}

    reply = await gateway.client().send(PATH, json.dumps(body).encode())

    assert 200 == reply.status
    [request] = upstream.received()
    sent = json.loads(request.body)
    if unsigned_calls == "keep":
        assert body == sent
        return
    assert [FILLED, None] == extras(sent["messages"])
    del sent["messages"][0]["tool_calls"][0]["extra_content"]
    assert body == sent
