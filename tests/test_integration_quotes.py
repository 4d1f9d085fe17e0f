"""The provider's own words behind the gateway's sentence, where the operator allows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, Play, ScriptedUpstream

SAID = "upstream exploded at 10.1.2.3 with sk-chat-key-123 for ops@acme.example"
QUOTED = '"upstream exploded at [redacted] with [redacted] for [redacted]"'

each_client = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
each_account = pytest.mark.parametrize("spoken", answers.PROTOCOLS)
each_kind = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def refusal(status: int, code: str = "server_error") -> Play:
    async def play(exchange: Exchange) -> None:
        error = {"message": SAID, "type": code, "code": code, "param": None}
        document: dict[str, Any] = {"error": error}
        if exchange.request.protocol == "messages":
            document["type"] = "error"
        await exchange.reply(status, json.dumps(document).encode())

    return play


def message_of(protocol: str, reply: Reply) -> str:
    """The message of a failure, before the stream or in it."""
    if reply.status != 200:
        return endings.before(protocol, reply).message
    error = reply.last.json.get("error") or reply.last.json["response"]["error"]
    return str(error["message"])


async def quoting(serve: Serve) -> Gateway:
    return await serve(upstream={"quote_errors": True, "max_switches": 0})


@each_kind
@each_client
@each_account
async def test_the_words_of_an_error_status_are_quoted(
    serve: Serve, upstream: ScriptedUpstream, spoken: str, protocol: str, stream: bool
) -> None:
    gateway = await quoting(serve)
    upstream.next(refusal(500))
    reply = await gateway.client().ask(protocol, f"{spoken}-x", stream=stream)

    suffix = f"{QUOTED} (request id: {reply.request_id})"
    assert 500 <= reply.status
    assert message_of(protocol, reply).endswith(": " + suffix) or (
        message_of(protocol, reply).endswith("s: " + suffix)
    )


@each_client
@each_account
@pytest.mark.parametrize("deltas", [-1, 0, 2], ids=["at-once", "preamble", "within"])
async def test_the_words_of_a_failure_inside_the_stream_are_quoted(
    serve: Serve, upstream: ScriptedUpstream, spoken: str, protocol: str, deltas: int
) -> None:
    gateway = await quoting(serve)
    upstream.next(plays.failed("server_error", SAID, deltas=deltas))
    reply = await gateway.client().ask(protocol, f"{spoken}-x")

    assert (reply.status == 200) == (deltas > 0)
    assert f"{QUOTED} (request id: {reply.request_id})" in message_of(protocol, reply)


@each_client
@each_kind
@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(401, "invalid_api_key", id="401"),
        pytest.param(402, "payment_required", id="402"),
        pytest.param(403, "permission_error", id="403"),
        pytest.param(403, "server_error", id="403-by-its-status-alone"),
        pytest.param(429, "insufficient_quota", id="429-quota"),
        pytest.param(400, "billing_error", id="400-billing"),
        pytest.param(500, "insufficient_quota", id="500-quota"),
        pytest.param(451, "server_error", id="451-region"),
    ],
)
async def test_what_is_the_operators_business_is_never_quoted(
    serve: Serve,
    upstream: ScriptedUpstream,
    protocol: str,
    stream: bool,
    status: int,
    code: str,
) -> None:
    gateway = await quoting(serve)
    upstream.next(refusal(status, code))
    reply = await gateway.client().ask(protocol, "responses-x", stream=stream)

    assert "exploded" not in reply.body.decode()


@each_client
@pytest.mark.parametrize("code", ["insufficient_quota", "invalid_api_key"])
async def test_nor_inside_a_stream(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, code: str
) -> None:
    gateway = await quoting(serve)
    for deltas in (-1, 2):
        upstream.next(plays.failed(code, SAID, deltas=deltas))
        reply = await gateway.client("bob").ask(protocol, f"{protocol}-x")

        assert "exploded" not in reply.body.decode()


@each_client
@each_kind
async def test_by_default_nothing_is_quoted(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    """The words are in the log; the client reads our sentence."""
    gateway = await serve()
    upstream.next(refusal(500))
    reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=stream)
    [line] = gateway.log.events("attempt.failed")

    assert "exploded" not in reply.body.decode()
    assert "upstream exploded" in line["detail"]


async def test_a_quote_has_200_characters_at_most(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await quoting(serve)
    upstream.next(plays.failed("server_error", 'a "b"\n' * 100))
    reply = await gateway.client().ask("chat", "chat-x")
    said = message_of("chat", reply).partition(': "')[2].rpartition('" (request')[0]

    assert 200 == len(said)
    assert said.startswith("a 'b' a 'b'") and said.endswith("…")
