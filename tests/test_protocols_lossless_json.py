"""Whole numbers keep their digits, beyond 64 bits too."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.body import parse
from gateway.errors import ClientError
from gateway.protocols.json_reader import encoded
from gateway.protocols.lossless_json import dumps, has_long_number, loads
from gateway.protocols.request_converter import convert_request
from gateway.protocols.tool_carrier import as_arguments, as_object
from tests.conftest import Serve
from tests.kit import plays
from tests.kit.answer import Answer, Tool
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

LARGE = 2**64 + 12345
ODD = -123456789012345678901234567890

NUMBERS = st.integers(-(10**40), 10**40)
VALUES = st.recursive(
    NUMBERS | st.text() | st.none() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)


@given(VALUES)
def test_there_and_back_is_the_same(value: Any) -> None:
    assert value == loads(dumps(value))


@pytest.mark.parametrize(
    ("text", "long"),
    [
        (b'{"a":1234567890123456789}', True),
        (b'{"a":123456789012345678}', False),
        (b'{"a":"1","b":234567890123456789}', False),
        (b"", False),
    ],
)
def test_only_long_numbers_take_the_slow_way(text: bytes, long: bool) -> None:
    assert long is has_long_number(text)


def test_more_digits_than_any_number_has_are_no_json() -> None:
    """orjson's own bound, 308 digits, keeps Python's slow reader from thousands."""
    assert 10**308 == loads(b"[1%b]" % (b"0" * 308))[0]
    with pytest.raises(orjson.JSONDecodeError):
        loads(b"[%b]" % (b"9" * 400))


def test_too_deep_is_still_too_deep() -> None:
    deep: Any = LARGE
    for _ in range(3000):
        deep = [deep]

    with pytest.raises(ClientError):
        encoded(deep)


def test_a_body_is_read_exactly_only_when_it_is_written_again() -> None:
    ask = parse(b'{"model":"m","n":%d}' % LARGE)

    assert float(LARGE) == ask.document["n"]
    assert ask.keep_digits()
    assert LARGE == ask.document["n"]
    assert not ask.keep_digits()
    ask.forget_document()
    assert LARGE == ask.document["n"]


@pytest.mark.parametrize("number", [LARGE, ODD])
def test_arguments_keep_them_both_ways(number: int) -> None:
    text = f'{{"n":{number}}}'

    assert {"n": number} == as_object(text)
    assert text == as_arguments(as_object(text))


TARGETS = ("chat", "responses")


def bodies(number: int) -> dict[str, dict[str, Any]]:
    """A history with a call whose argument is *number*, in each protocol."""
    text = f'{{"n":{number}}}'
    call = {"id": "c1", "type": "function"}
    use = {"type": "tool_use", "id": "c1", "name": "f", "input": {"n": number}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "y"}
    user = {"role": "user", "content": "x"}
    return {
        "messages": {
            "model": "m",
            "max_tokens": 9,
            "messages": [
                user,
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [result]},
            ],
        },
        "chat": {
            "model": "m",
            "messages": [
                user,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {**call, "function": {"name": "f", "arguments": text}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "y"},
            ],
        },
        "responses": {
            "model": "m",
            "input": [
                {"type": "message", **user},
                {
                    "type": "function_call",
                    "call_id": "c1",
                    "name": "f",
                    "arguments": text,
                },
                {"type": "function_call_output", "call_id": "c1", "output": "y"},
            ],
        },
    }


@pytest.mark.parametrize("source", ["messages", "chat", "responses"])
@pytest.mark.parametrize("target", ["messages", "chat", "responses"])
def test_a_history_keeps_them(source: str, target: str) -> None:
    if source == target:
        return
    body = bodies(ODD)[source]
    converted = convert_request(source, target, body, model="m", upstream_model="m")

    assert str(ODD).encode() in converted.encoded()


@pytest.mark.parametrize("protocol", TARGETS)
async def test_a_request_keeps_them_on_its_way(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """The digits are lost where a body is parsed, before anything is converted."""
    gateway = await serve(accounts=[account(upstream, protocol, models=["*"])])
    body = bodies(LARGE)["messages"]

    await gateway.client().ask("messages", body.pop("model"), **body)

    assert str(LARGE).encode() in upstream.received()[0].body


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("protocol", ["messages", "chat", "responses"])
@pytest.mark.parametrize("client", ["messages", "chat", "responses"])
async def test_an_answer_keeps_them(
    serve: Serve, upstream: ScriptedUpstream, client: str, protocol: str, stream: bool
) -> None:
    gateway = await serve(accounts=[account(upstream, protocol, models=["*"])])
    upstream.next(plays.ok(Answer(tool=Tool("f", {"n": ODD}))))

    reply = await gateway.client().ask(client, "m", stream=stream)

    delta = r'"(?:partial_json|arguments|delta)":\s*"((?:[^"\\]|\\.)*)"'
    pieces = re.findall(delta, reply.body.decode())
    assert str(ODD) in "".join(pieces) + reply.body.decode()
