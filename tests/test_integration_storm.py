"""
A pool that is wholly dead, and two hundred clients before it.

What it may cost the upstreams is little, what it costs the clients is a reason and a
time to come back, and when the pool is there again, so is the service.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.gateway import Gateway
from tests.kit.scripted import Play, ScriptedUpstream
from tests.kit.settings import account

CLIENTS = 200
FLOOR, SHARE = 32, 0.2  # the retry budget, as gateway.accounts.budget says
BACK_WITHIN_S = 15.0  # 5 by the simulation's clock; here machines may be slow
DEATHS: dict[str, Play] = {
    "503": plays.status(503),
    "reset": plays.reset(None),
    "overloaded-in-stream": plays.failed("server_is_overloaded"),
    "429": plays.status(429, headers={"retry-after": "2"}),
}


async def pool(serve: Serve, upstream: ScriptedUpstream, protocol: str) -> Gateway:
    rows = [account(upstream, f"{protocol}-{n}") for n in range(3)]
    limits = {"max_concurrent": CLIENTS, "max_queued": CLIENTS}
    patient = {"ping_interval_s": 60}  # nothing is sent before the reason is known
    return await serve(accounts=rows, limits={**limits, **patient})


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_dead_pool_is_asked_little_and_every_request_is_answered(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, death: str
) -> None:
    if protocol != "responses" and death == "overloaded-in-stream":
        upstream.always(plays.failed("overloaded_error"))
    else:
        upstream.always(DEATHS[death])
    gateway = await pool(serve, upstream, protocol)
    begun = time.monotonic()

    replies = await asyncio.gather(
        *(gateway.client().ask(protocol, f"{protocol}-x") for _ in range(CLIENTS))
    )

    took_s = time.monotonic() - begun
    further = SHARE * CLIENTS + FLOOR + 2 * took_s + 2
    assert len(upstream.received()) <= CLIENTS + further
    for reply in replies:
        assert reply.status in (429, 502, 503, 529)
        error = endings.before(protocol, reply)
        assert error.retry_after_s and error.type and error.message
    for reply in replies[::40]:
        line = await gateway.explained(reply)
        assert (reply.status, True) == (line["status"], line["outcome"] != "ok")


@pytest.mark.parametrize("death", DEATHS)
async def test_service_is_back_soon_after_the_pool(
    serve: Serve, upstream: ScriptedUpstream, death: str
) -> None:
    """Whatever killed it, and although clients went on asking all the time."""
    gateway = await pool(serve, upstream, "responses")
    upstream.always(DEATHS[death])
    for _ in range(3):
        await asyncio.gather(
            *(gateway.client().ask("responses", "responses-x") for _ in range(40))
        )
        await asyncio.sleep(0.2)
    upstream.always(plays.ok())
    async with asyncio.timeout(BACK_WITHIN_S):
        while (await gateway.client().ask("responses", "responses-x")).status != 200:
            await asyncio.sleep(0.1)

    replies = await asyncio.gather(
        *(gateway.client().ask("responses", "responses-x") for _ in range(60))
    )
    for reply in replies:
        endings.whole("responses", reply)


async def test_a_pool_whose_port_is_closed_and_opens_again(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await pool(serve, upstream, "chat")
    await upstream.stop()
    replies = await asyncio.gather(
        *(gateway.client().ask("chat", "chat-x") for _ in range(CLIENTS))
    )
    assert all(endings.before("chat", reply).retry_after_s for reply in replies)
    assert {"upstream_connect", "cooling_down"} >= {
        (await gateway.finished(reply))["error_code"] for reply in replies
    }
    await upstream.start()
    async with asyncio.timeout(BACK_WITHIN_S):
        while (await gateway.client().ask("chat", "chat-x")).status != 200:
            await asyncio.sleep(0.1)
