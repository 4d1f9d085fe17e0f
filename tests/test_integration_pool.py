"""
Many clients before several accounts: who stays where, and what a dead pool costs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import pytest
from blockbuster import blockbuster_ctx

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

MANY = {"max_concurrent": 500, "max_queued": 500}
SESSION = {
    "responses": "session-id",
    "chat": "x-session-id",
    "messages": "x-claude-code-session-id",
}


async def four(serve: Serve, upstream: ScriptedUpstream, protocol: str) -> Gateway:
    """A gateway with four equal accounts."""
    rows = [account(upstream, f"{protocol}-{n}") for n in range(4)]
    return await serve(accounts=rows, limits=MANY)


async def converse(gateway: Gateway, protocol: str, session: str) -> None:
    reply = await gateway.client().ask(
        protocol, f"{protocol}-x", headers={SESSION[protocol]: session}
    )
    endings.whole(protocol, reply)


def places(upstream: ScriptedUpstream, protocol: str) -> dict[str, str]:
    """The account that each session was last sent to."""
    return {
        request.headers[SESSION[protocol]]: request.account
        for request in upstream.received()
    }


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_sessions_spread_evenly_stay_and_move_only_when_they_must(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await four(serve, upstream, protocol)
    names = [f"session-{n:04}" for n in range(400)]
    for start in range(0, 400, 50):
        some = names[start : start + 50]
        await asyncio.gather(*(converse(gateway, protocol, name) for name in some))
    first = places(upstream, protocol)
    shares = Counter(first.values())

    assert all(80 <= shares[f"{protocol}-{n}"] <= 120 for n in range(4)), shares

    again = names[::8]
    await asyncio.gather(*(converse(gateway, protocol, name) for name in again))

    assert first == places(upstream, protocol)

    dead = f"{protocol}-2"
    upstream.always(plays.status(503), account=dead)
    await asyncio.gather(*(converse(gateway, protocol, name) for name in again))
    upstream.always(plays.ok(), account=dead)
    moved = {
        name
        for name, place in places(upstream, protocol).items()
        if place != first[name]
    }

    assert moved == {name for name in again if first[name] == dead}


async def test_a_dead_pool_costs_no_storm_and_every_request_is_answered(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """200 clients: few attempts more than clients, every one with a Retry-After."""
    gateway = await four(serve, upstream, "chat")
    upstream.always(plays.status(503))

    replies = await asyncio.gather(
        *(gateway.client().ask("chat", "chat-x") for _ in range(200))
    )

    assert len(upstream.received()) <= 200 * 1.2 + 40
    assert {429, 502, 503} >= {reply.status for reply in replies}
    for reply in replies:
        assert endings.before("chat", reply).retry_after_s

    before, begun = len(upstream.received()), time.monotonic()
    late = [await gateway.client().ask("chat", "chat-x") for _ in range(20)]
    probes = 4 + 2 * (time.monotonic() - begun)
    assert len(upstream.received()) - before <= probes
    assert all(endings.before("chat", reply).retry_after_s for reply in late)


async def test_a_pool_without_a_usable_account_is_not_ready(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = [account(upstream, "chat")]
    gateway = await serve(accounts=rows)
    upstream.always(plays.status(401))
    await gateway.client().ask("chat", "chat-x")

    reply = await gateway.client().send("/readyz", method="GET")

    assert 503 == reply.status
    assert "chat" in json.dumps(reply.json)
    assert gateway.log.events("account.cooled", account="chat")


async def test_a_response_is_asked_for_where_it_was_made(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """``GET``, ``DELETE``, ``cancel`` and ``input_items`` know the account."""
    gateway = await four(serve, upstream, "responses")
    reply = await gateway.client().ask("responses", "responses-x")
    made = reply.events[0].json["response"]["id"]
    home = upstream.received()[0].account

    for method, tail in (
        ("GET", ""),
        ("GET", "/input_items"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ):
        await gateway.client().send(
            f"/v1/responses/{made}{tail}", method=method, headers={}
        )
        request = upstream.requests[-1]
        assert (method, f"/responses/{made}{tail}") == (request.method, request.path)
        assert home == request.account

    unknown = await gateway.client().send("/v1/responses/resp_none", method="GET")
    assert 404 == unknown.status


async def test_nothing_blocks_the_event_loop(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """A blocking call anywhere in the gateway raises while this runs."""
    gateway = await serve()
    trouble = [plays.cut(1), plays.status(500), plays.EMPTY, plays.failed("api_error")]
    with blockbuster_ctx("gateway"):
        for protocol in answers.PROTOCOLS:
            for play in [plays.ok(), *trouble]:
                upstream.next(play)
                for stream in (True, False):
                    await gateway.client().ask(protocol, f"{protocol}-x", stream=stream)
            await gateway.client().ask(protocol, "trial")
            await gateway.client().ask(protocol, "unknown")
        for path in ("/v1/models", "/readyz", "/metrics"):
            await gateway.client().send(path, method="GET")
        await gateway.log.each_finished_once(gateway.client().asked)
