"""
The first account fails before any output; the second is healthy: no client notices.

Every row of ``TROUBLE`` is played by the preferred account, for all three protocols.
The client gets one clean answer with one id and no trace of the first account; only
the log tells of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.gateway import Gateway
from tests.kit.scripted import Play, ScriptedUpstream
from tests.kit.settings import HASTY, Table, account

GOOD = Answer(id="good")

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


def hidden(protocol: str, *codes: str) -> list[Any]:
    """Each code in each form of *protocol*, as the first event and after a preamble."""
    return [
        pytest.param(
            protocol,
            plays.failed(code, form=form, deltas=deltas),
            id=f"{protocol}-{form}-{code}{'-after-preamble' if deltas == 0 else ''}",
        )
        for code in codes
        for form in plays.FAILURES[protocol]
        for deltas in (-1, 0)
    ]


COMMON = {
    **{f"status-{code}": plays.status(code) for code in (401, 402, 403, 408)},
    **{f"status-{code}": plays.status(code) for code in (500, 502, 503, 504, 529)},
    "429": plays.status(429),
    "429-retry-after": plays.status(429, headers={"retry-after": "20"}),
    "429-nonsense-header": plays.status(429, headers={"retry-after": "year 9999"}),
    "429-negative-header": plays.status(429, headers={"retry-after": "-5"}),
    "502-html": plays.status(502, "<html>Bad gateway</html>"),
    "503-empty": plays.status(503, ""),
    "closed-before-head": plays.cut(None),
    "reset-before-head": plays.reset(None),
    "empty": plays.EMPTY,
    "eof-after-preamble": plays.eof(0),
    "cut-after-head": plays.cut(-1),
    "cut-after-preamble": plays.cut(0),
    "reset-after-preamble": plays.reset(0),
    "html-with-200": plays.HTML,
    "json-for-sse": plays.JSON_FOR_SSE,
    "only-comments": plays.raw(b": ping\n\n: ping\n\n"),
}
SLOW: dict[str, Play] = {
    "no-head": plays.silence(None),
    "head-then-silence": plays.silence(-1),
    "preamble-then-silence": plays.silence(0),
    "one-byte-a-while": plays.trickle(1.5),
}
TROUBLE: list[Any] = [
    pytest.param(protocol, play, id=f"{protocol}-{name}")
    for protocol in answers.PROTOCOLS
    for name, play in (COMMON | SLOW).items()
]
TROUBLE += hidden(
    "responses", "server_is_overloaded", "slow_down", "rate_limit_exceeded"
)
TROUBLE += hidden("responses", "server_error", "insufficient_quota")
TROUBLE += hidden("chat", "rate_limit_exceeded", "server_error", "overloaded_error")
TROUBLE += hidden("messages", "overloaded_error", "api_error", "rate_limit_error")


async def pair(
    serve: Serve,
    upstream: ScriptedUpstream,
    protocol: str,
    *,
    waits: Table | None = None,
    **config: Any,
) -> Gateway:
    """
    A gateway with two accounts of *protocol*: "…-first" is preferred.

    Args:
        waits: the limits of the upstream.
    """
    rows = [
        account(upstream, f"{protocol}-first", priority=1),
        account(upstream, f"{protocol}-second", priority=2),
    ]
    upstream.always(plays.ok(GOOD), account=f"{protocol}-second")
    return await serve(accounts=rows, upstream=waits, **config)


@pytest.mark.parametrize("protocol, play", TROUBLE)
async def test_the_client_does_not_notice(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, play: Play
) -> None:
    waits = HASTY if play in SLOW.values() else None
    gateway = await pair(serve, upstream, protocol, waits=waits)
    upstream.always(play, account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.whole(protocol, reply)
    assert b"first" not in reply.body and b"boom" not in reply.body
    ids = {m["id"] for e in reply.events if (m := message_of(protocol, e)) is not None}
    assert {answers.body(protocol, GOOD, {})["id"]} == ids
    line = await gateway.finished(reply)
    assert ("ok", 2, f"{protocol}-second") == (
        line["outcome"],
        line["attempts"],
        line["account"],
    )
    failed = gateway.log.events("attempt.failed", request_id=reply.request_id)
    assert [(f"{protocol}-first", 1)] == [
        (line["account"], line["attempt"]) for line in failed
    ]
    assert failed[0]["error_code"]


def message_of(protocol: str, event: Any) -> dict[str, Any] | None:
    """The part of *event* that bears the answer's id, if it does."""
    if event.data == "[DONE]":
        return None
    data: dict[str, Any] = event.json
    if protocol == "chat":
        return data
    return data.get("response") or data.get("message")


@each_protocol
async def test_a_non_stream_request_moves_too(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    upstream.always(plays.status(503), account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=False)

    assert 200 == reply.status
    assert answers.body(protocol, GOOD, {"model": f"{protocol}-x"}) == reply.json
    assert 2 == (await gateway.finished(reply))["attempts"]


@each_protocol
async def test_output_that_fails_in_the_same_breath_reaches_no_client(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """The second account is asked what the client asked; of the first is no trace."""
    gateway = await pair(serve, upstream, protocol)
    code = "overloaded_error" if protocol == "messages" else "server_error"
    upstream.always(plays.failed_at_once(code), account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.whole(protocol, reply)
    assert "x-codex-plan-type" not in reply.headers
    first, second = upstream.received()
    assert first.json == second.json
    assert 2 == (await gateway.finished(reply))["attempts"]


@each_protocol
async def test_it_moves_after_queue_pings_too(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Our own keepalives are no output."""
    limits = {"max_concurrent": 1, "ping_interval_s": 0.05}
    gateway = await pair(serve, upstream, protocol, limits=limits)
    gate = asyncio.Event()
    upstream.next(plays.held(gate), account=f"{protocol}-first")
    upstream.always(plays.failed("server_is_overloaded"), account=f"{protocol}-first")
    client = gateway.client()
    holder = asyncio.create_task(client.ask(protocol, f"{protocol}-x"))
    await upstream.wait_for(1)
    async with client.open(protocol, f"{protocol}-x") as response:
        assert (await response.content.readany()).startswith(b": queued position=1")
        gate.set()
        rest = await response.content.read()

    assert b"boom" not in rest and b"well" in rest
    assert answers.body(protocol, GOOD, {})["id"].encode() in rest
    await holder


@each_protocol
async def test_after_the_first_output_no_other_account_is_asked(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    upstream.always(plays.cut(1), account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.in_stream(protocol, reply)
    assert [] == upstream.received(f"{protocol}-second")
    assert 1 == (await gateway.explained(reply))["attempts"]


@each_protocol
@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_clients_own_mistake_is_tried_nowhere_else(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, status: int
) -> None:
    gateway = await pair(serve, upstream, protocol)
    upstream.always(plays.status(status), account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    assert (status, plays.error_body(protocol, status)) == (reply.status, reply.json)
    assert [] == upstream.received(f"{protocol}-second")
    await gateway.finished(reply)


@each_protocol
async def test_both_accounts_refuse_in_turn(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    upstream.always(plays.status(401), account=f"{protocol}-first")
    upstream.always(plays.status(529), account=f"{protocol}-second")

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    error = endings.before(protocol, reply)
    kind = "overloaded_error" if protocol == "messages" else "upstream_error"
    assert kind == error.type
    assert 2 == (await gateway.explained(reply))["attempts"]


@pytest.mark.parametrize("most, asked", [(0, 1), (1, 2), (2, 3), (99, 5)])
async def test_no_more_than_max_switches_others_are_asked(
    serve: Serve, upstream: ScriptedUpstream, most: int, asked: int
) -> None:
    rows = [account(upstream, f"chat-{n}", priority=n) for n in range(1, 6)]
    gateway = await serve(accounts=rows, upstream={"max_switches": most})
    upstream.always(plays.status(500))

    reply = await gateway.client().ask("chat", "chat-x")

    assert 502 == reply.status
    assert [f"chat-{n}" for n in range(1, asked + 1)] == [
        request.account for request in upstream.received()
    ]
    assert asked == (await gateway.explained(reply))["attempts"]


@each_protocol
async def test_a_cooling_account_is_left_alone(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    upstream.always(
        plays.status(429, headers={"retry-after": "20"}), account=f"{protocol}-first"
    )

    for _ in range(3):
        endings.whole(protocol, await gateway.client().ask(protocol, f"{protocol}-x"))

    assert 1 == len(upstream.received(f"{protocol}-first"))
    cooled = gateway.log.events("account.cooled", account=f"{protocol}-first")
    assert 1 == len(cooled)
    assert cooled[0]["until_s"] and cooled[0]["reason"]


@each_protocol
async def test_all_cooling_says_until_when(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    wait = {"retry-after": "20"}
    upstream.always(plays.status(429, headers=wait), account=f"{protocol}-first")
    upstream.always(plays.status(429, headers=wait), account=f"{protocol}-second")
    await gateway.client().ask(protocol, f"{protocol}-x")
    before = len(upstream.received())

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    error = endings.before(protocol, reply)
    assert (429, "rate_limit_error") == (reply.status, error.type)
    assert error.retry_after_s in range(15, 26)
    assert before == len(upstream.received())
    assert "cooling_down" == (await gateway.explained(reply))["error_code"]
