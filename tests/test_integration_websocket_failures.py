"""Websockets to an account that break, refuse, or fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account
from tests.kit.socket_account import (
    MODEL,
    NEXT,
    TURN,
    no_leak,
    ok_line,
    over_sockets,
    pool_of,
)
from tests.kit.socket_upstream import (
    Ask,
    Refusal,
    SocketUpstream,
    begun,
    closes,
    error,
    messages_of,
    ok,
    silent,
)

CODES = (1000, 1001, 1006, 1008, 1009, 1011, 1012, 1013, 4000)
each_code = pytest.mark.parametrize("code", CODES)
each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
both = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@pytest.fixture
async def gateway(serve: Serve, sockets: SocketUpstream) -> AsyncIterator[Gateway]:
    gateway = await serve(accounts=[over_sockets(sockets)])
    yield gateway
    await no_leak(gateway)


# --- sockets that are lost ----------------------------------------------------------


@each_code
@both
@pytest.mark.parametrize("count", [0, 1, 2], ids=["nothing", "created", "preamble"])
async def test_a_socket_lost_before_output_is_replaced_unseen(
    gateway: Gateway, sockets: SocketUpstream, code: int, stream: bool, count: int
) -> None:
    client = gateway.client()
    await client.ask("responses", MODEL, stream=stream, input=TURN)
    sockets.next(begun(count, closes(code)))

    reply = await client.ask("responses", MODEL, stream=stream, input=NEXT)

    assert 200 == reply.status
    if stream:
        endings.whole("responses", reply)
        created = [e for e in reply.events if e.kind == "response.created"]
        assert created[0].json["response"]["id"] == reply.last.json["response"]["id"]
        assert 1 == len(created)
    await ok_line(gateway)
    if code == 1009 and count == 0:
        assert [NEXT] == [body["input"] for body in sockets.posted]
    else:
        assert NEXT == sockets.asked[-1].json["input"]
        assert 2 == len(sockets.handshakes)


@each_code
@each_protocol
async def test_a_socket_lost_behind_output_is_a_cut_stream(
    gateway: Gateway, sockets: SocketUpstream, code: int, protocol: str
) -> None:
    sockets.next(begun(6, closes(code)))

    reply = await gateway.client().ask(protocol, MODEL)

    seen = endings.in_stream(protocol, reply)
    assert endings.FAILED[protocol] == seen.type
    line = await gateway.explained(reply)
    assert line["error_code"] in ("upstream_cut", "upstream_reset")
    assert 1 == len(sockets.asked)


async def test_a_cut_at_any_message_is_unseen_or_one_ending(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    whole = len(messages_of(Answer(), {}))
    for count in range(whole):
        sockets.next(begun(count, closes(1006)))
        reply = await gateway.client().ask("responses", MODEL)
        if reply.last.kind == "response.completed":
            endings.whole("responses", reply)
            assert count < 5
        else:
            endings.in_stream("responses", reply)
            assert count >= 4


async def test_an_idle_socket_that_was_closed_is_no_loss(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    for code in (1000, 1001, 1006, 1012):
        await gateway.client().ask("responses", MODEL)
        (ws,) = sockets.live
        if code == 1006:
            Ask(ws, {}, 0).cut()
        else:
            await ws.close(code=code)
        await gateway.log.wait_for(lambda: not pool_of(gateway).live, "still there")
        await ok_line(gateway)

    assert [1, 2, 3, 4] == [ask.number for ask in sockets.asked]
    assert not gateway.log.events("attempt.failed")


async def test_a_socket_at_its_age_limit_is_replaced_unseen(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    async def old(ask: Ask) -> None:
        await error(None, "websocket_connection_limit_reached")(ask)
        await ask.ws.close(code=1000)

    await gateway.client().ask("responses", MODEL)
    sockets.next(old, begun(2, old))
    reply = await gateway.client().ask("responses", MODEL)

    endings.whole("responses", reply)
    await ok_line(gateway)
    assert [1, 1, 2, 3] == [ask.number for ask in sockets.asked]


async def test_sockets_that_never_last_lead_to_http(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    sockets.always = closes(1011)

    for _ in range(2):
        endings.whole("responses", await gateway.client().ask("responses", MODEL))
        await ok_line(gateway)

    assert (3, 2) == (len(sockets.asked), len(sockets.posted))
    assert 1 == len(gateway.log.events("websocket.refused", account="ws"))


async def test_what_comes_between_two_answers_costs_the_socket_at_most(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    strays = [
        ({"type": "codex.rate_limits"}, True),
        ({"type": "keepalive"}, True),
        ({"type": "response.created", "response": {"id": "resp_s"}}, False),
        ({"type": "error", "error": {"code": "x"}}, False),
    ]
    for stray, keeps in strays:

        async def play(ask: Ask, stray: Any = stray) -> None:
            await ok()(ask)
            await ask.send(stray)

        sockets.next(play)
        before = len(sockets.handshakes)
        endings.whole("responses", await gateway.client().ask("responses", MODEL))
        if not keeps:
            await gateway.log.wait_for(lambda: not sockets.live, "it is kept")
        endings.whole("responses", await gateway.client().ask("responses", MODEL))
        assert (before in (0, len(sockets.handshakes))) is keeps or before == 0


# --- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 301, 400, 404, 405, 426, 501, 0])
@both
async def test_an_upgrade_refused_for_good_leads_to_http_unseen(
    gateway: Gateway, sockets: SocketUpstream, status: int, stream: bool
) -> None:
    sockets.refusals.append(Refusal(status))

    for _ in range(2):
        reply = await gateway.client().ask("responses", MODEL, stream=stream)
        assert (
            200 == reply.status
            and "All is well."
            in reply.body.decode().replace('"delta":"', "").replace('"', "")
            or stream
        )
        await ok_line(gateway, status=200)

    assert (1, 2, 0) == (
        len(sockets.handshakes),
        len(sockets.posted),
        len(sockets.asked),
    )
    (line,) = gateway.log.events("websocket.refused", account="ws")
    assert line["for_s"] == (60.0 if status in (0, 400) else 600.0)


@pytest.mark.parametrize(
    ("status", "seen", "code"),
    [
        (401, 502, "upstream_refused"),
        (403, 502, "upstream_refused"),
        (429, 429, "upstream_rate_limited"),
        (500, 502, "upstream_status"),
        (503, 502, "upstream_status"),
        (529, 503, "upstream_overloaded"),
    ],
)
async def test_an_upgrade_refused_for_the_account_is_its_failure(
    gateway: Gateway, sockets: SocketUpstream, status: int, seen: int, code: str
) -> None:
    body = b'{"error":{"message":"not you","type":"x"}}'
    sockets.refusals.append(Refusal(status, body, {"retry-after": "7"}))

    reply = await gateway.client().ask("responses", MODEL)

    line = await gateway.finished(reply)
    assert (seen, code) == (reply.status, line["error_code"])
    assert not sockets.posted and not sockets.asked
    if status == 429:
        assert reply.headers["retry-after"] in ("7", "8")


async def test_one_socket_too_many_goes_over_http_alone(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    gate = asyncio.Event()

    async def held(ask: Ask) -> None:
        await gate.wait()
        await ok()(ask)

    sockets.next(held)
    client = gateway.client()
    running = asyncio.create_task(client.ask("responses", MODEL))
    await gateway.log.wait_for(lambda: sockets.asked, "nothing asked")
    sockets.refusals.append(Refusal(403))
    endings.whole("responses", await client.ask("responses", MODEL))
    endings.whole("responses", await client.ask("responses", MODEL))
    gate.set()
    endings.whole("responses", await running)

    assert (1, 2) == (len(sockets.posted), len(sockets.asked))
    assert not gateway.log.events("websocket.refused")


@pytest.mark.parametrize(
    ("status", "code", "seen"),
    [
        (401, "invalid_api_key", (502, "upstream_refused")),
        (429, "rate_limit_exceeded", (429, "upstream_rate_limited")),
        (500, "server_error", (502, "upstream_status")),
        (503, "server_is_overloaded", (503, "upstream_overloaded")),
    ],
)
@pytest.mark.parametrize("count", [0, 2], ids=["first", "behind-the-preamble"])
@both
async def test_an_error_message_is_what_its_status_would_be(
    gateway: Gateway,
    sockets: SocketUpstream,
    status: int,
    code: str,
    seen: tuple[int, str],
    count: int,
    stream: bool,
) -> None:
    sockets.next(
        begun(count, error(status, code, headers={"Retry-After": 9, "x-y": "z"}))
    )

    reply = await gateway.client().ask("responses", MODEL, stream=stream)

    line = await gateway.finished(reply)
    assert seen[0] == reply.status, reply.body
    if count == 0 or status != 500:
        assert seen[1] == line["error_code"]
    cooled = gateway.log.events("account.cooled")
    if status == 429:
        assert reply.headers["retry-after"] in ("9", "10") and cooled
    assert not sockets.posted


@pytest.mark.parametrize("status", [400, 404, 413, 422])
@each_protocol
async def test_a_client_s_mistake_is_passed_on_and_keeps_the_socket(
    gateway: Gateway, sockets: SocketUpstream, status: int, protocol: str
) -> None:
    sockets.next(error(status, "invalid_prompt"))

    reply = await gateway.client().ask(protocol, MODEL)
    endings.whole(protocol, await gateway.client().ask(protocol, MODEL))

    assert status == reply.status
    assert "invalid_prompt" in reply.body.decode()
    assert [1, 1] == [ask.number for ask in sockets.asked]
    assert not gateway.log.events("account.cooled")


async def test_failover_between_a_websocket_account_and_an_http_account(
    serve: Serve, upstream: ScriptedUpstream, sockets: SocketUpstream
) -> None:
    http = account(upstream, "http", "responses", models=["responses-*"])
    both_ways = [over_sockets(sockets, priority=1), {**http, "priority": 2}]
    gateway = await serve(accounts=both_ways)
    sockets.next(error(500, "server_error"))

    reply = await gateway.client().ask("responses", MODEL)

    endings.whole("responses", reply)
    line = await gateway.finished(reply)
    assert ("http", 2) == (line["account"], line["attempts"])


async def test_failover_from_an_http_account_to_a_websocket_account(
    serve: Serve, upstream: ScriptedUpstream, sockets: SocketUpstream
) -> None:
    http = account(upstream, "http", "responses", models=["responses-*"])
    gateway = await serve(
        accounts=[over_sockets(sockets, priority=2), {**http, "priority": 1}]
    )
    upstream.always(plays.status(500))

    reply = await gateway.client().ask("responses", MODEL)

    endings.whole("responses", reply)
    line = await gateway.finished(reply)
    assert ("ws", 2) == (line["account"], line["attempts"])


# --- clients that leave, upstreams that are silent ----------------------------------


async def leave(gateway: Gateway, sockets: SocketUpstream, stream: bool) -> None:
    """Hang up once the answer is under way."""
    async with gateway.client().open("responses", MODEL, stream=stream) as response:
        if stream:
            await response.content.readany()
        response.close()


@pytest.mark.parametrize("drain_s", [0.0, 5.0], ids=["cancelled", "drained"])
async def test_a_client_that_leaves_never_leaves_an_unread_answer_in_the_pool(
    serve: Serve, sockets: SocketUpstream, drain_s: float
) -> None:
    gateway = await serve(
        accounts=[over_sockets(sockets)], upstream={"client_gone_drain_s": drain_s}
    )
    gone = asyncio.Event()

    async def slow(ask: Ask) -> None:
        messages = messages_of(Answer(), ask.json)
        await ask.send(*messages[:6])
        await gone.wait()
        await ask.send(*messages[6:])

    sockets.next(slow)
    await leave(gateway, sockets, True)
    if drain_s:
        gone.set()
    line = await gateway.log.wait_finished(gateway.client().asked[-1])
    gone.set()

    assert "client_gone" == line["outcome"]
    if drain_s:
        assert (11, 7) == (line["input_tokens"], line["output_tokens"])
    endings.whole("responses", await gateway.client().ask("responses", MODEL))
    await no_leak(gateway)
    assert [1, 1 if drain_s else 2] == [ask.number for ask in sockets.asked]


async def test_a_lost_socket_is_not_replaced_for_a_client_that_left(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    left = asyncio.Event()

    async def play(ask: Ask) -> None:
        await ask.send(*messages_of(Answer(), ask.json)[:2])
        await left.wait()
        ask.cut()

    sockets.next(play)
    asking = asyncio.create_task(gateway.client().ask("responses", MODEL))
    await gateway.log.wait_for(lambda: sockets.asked, "nothing asked")
    drains = components_of(gateway.inside.app).drains

    def head_is_there() -> bool:
        return any(
            not one.is_idle and one.socket._listener and one.socket._listener.status
            for one in pool_of(gateway).live.values()
        )

    await gateway.log.wait_for(head_is_there, "no head")
    asking.cancel()
    await gateway.log.wait_for(lambda: drains._tasks, "no drain")
    left.set()
    line = await gateway.log.wait_finished(gateway.client().asked[-1])

    assert "client_gone" == line["outcome"]
    assert 1 == len(sockets.asked)


@pytest.mark.parametrize(
    ("count", "code"), [(0, "upstream_timeout"), (2, "upstream_idle"), (6, None)]
)
async def test_silence_ends_by_the_limit_of_its_state(
    serve: Serve, sockets: SocketUpstream, count: int, code: str | None
) -> None:
    first_s, idle_s = (0.3, 60.0) if count == 0 else (60.0, 0.3)
    limits = {"first_event_timeout_s": first_s, "idle_timeout_s": idle_s}
    gateway = await serve(accounts=[over_sockets(sockets)], upstream=limits)
    sockets.next(begun(count, silent))

    reply = await gateway.client().ask("responses", MODEL)

    line = await gateway.finished(reply)
    assert (code or "upstream_idle") == line["error_code"]
    assert (502 if code else 200) == reply.status
    await gateway.log.wait_for(lambda: not pool_of(gateway).live, "it is kept")
