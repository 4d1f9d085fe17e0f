"""An upstream that says it is alive has not answered: the first event is waited for."""

from __future__ import annotations

import asyncio

import pytest

from gateway.relay import streamed_attempt
from tests.conftest import Serve
from tests.kit import answers, endings
from tests.kit.scripted import Exchange, Play, ScriptedUpstream

SHORT = {"first_event_timeout_s": 0.5, "idle_timeout_s": 20.0}
SIGNS = {
    "responses": b'event: keepalive\ndata: {"type":"keepalive"}\n\n',
    "chat": b'data: {"id":"","choices":[]}\n\n',
    "messages": b'event: ping\ndata: {"type":"ping"}\n\n',
}


def alive(sign: bytes, content_type: str = "text/event-stream") -> Play:
    """*sign* again and again, and nothing else."""

    async def play(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": content_type})
        while True:
            await exchange.send(sign)
            await asyncio.sleep(0.01)

    return play


@pytest.mark.parametrize("kind", ["comment", "ping"])
@pytest.mark.parametrize("upstreams", answers.PROTOCOLS)
@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_signs_of_life_alone_are_no_answer(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, upstreams: str, kind: str
) -> None:
    gateway = await serve(upstream=SHORT)
    upstream.next(alive(b": ping\n\n" if kind == "comment" else SIGNS[upstreams]))
    reply = await gateway.client().ask(protocol, f"{upstreams}-x")

    assert 502 == reply.status
    line = await gateway.explained(reply)
    [failed] = gateway.log.events("attempt.failed", request_id=line["request_id"])
    assert "upstream_timeout" == failed["error_code"]


@pytest.mark.parametrize("upstreams", answers.PROTOCOLS)
@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_whole_answer_that_drips_blanks_is_none(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, upstreams: str
) -> None:
    gateway = await serve(upstream=SHORT)
    upstream.next(alive(b" ", "application/json"))
    reply = await gateway.client().ask(protocol, f"{upstreams}-x", stream=False)

    assert 502 == reply.status
    line = await gateway.explained(reply)
    [failed] = gateway.log.events("attempt.failed", request_id=line["request_id"])
    assert "upstream_timeout" == failed["error_code"]


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_many_signs_of_life_are_dropped_not_let_go(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    """However many came, another account may still answer."""
    monkeypatch.setattr(streamed_attempt, "HOLD_BACK_BYTES", 100)
    gateway = await serve()

    async def play(exchange: Exchange) -> None:
        stream = answers.stream(protocol, answers.Answer(), exchange.request.json)
        await exchange.head()
        for _ in range(20):
            await exchange.send(b": processing\n\n")
            await asyncio.sleep(0)
        await exchange.send(b"".join(stream.whole()))
        await exchange.end()

    upstream.next(play)
    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.whole(protocol, reply)
    assert len(b"".join(reply.comments)) < 150


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_preamble_is_held_back_up_to_a_bound(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    """What is longer reaches the client, though nothing of the answer has come."""
    monkeypatch.setattr(streamed_attempt, "HOLD_BACK_BYTES", 10_000)
    gateway = await serve()
    gate = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        stream = answers.stream(protocol, answers.Answer(), exchange.request.json)
        await exchange.head()
        await exchange.send(b"".join(stream.preamble))
        for _ in range(20):
            await exchange.send(b": " + b"x" * 1000 + b"\n\n")
        await gate.wait()
        await exchange.send(b"".join(stream.deltas + stream.tail))
        await exchange.end()

    upstream.next(play)
    async with gateway.client().open(protocol, f"{protocol}-x") as response:
        held = await response.content.readexactly(10_000)
        gate.set()
        rest = await response.content.read()

    assert b"x" * 1000 in held
    assert b"well" in rest
