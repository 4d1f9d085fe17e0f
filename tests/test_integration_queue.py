"""
Waiting for a slot, as clients and the upstream see it.

The upstream counts what really runs at once; a test never sleeps to make something
happen, it waits for the moment at which it has.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.asking import Client, Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, user

ONE = {"max_concurrent": 1, "ping_interval_s": 0.05}
COMMENT = re.compile(rb": queued position=(\d+)( expected=\d+s)?")

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@asynccontextmanager
async def holding(
    client: Client, upstream: ScriptedUpstream, model: str = "responses-hold"
) -> AsyncIterator[asyncio.Event]:
    """Somebody of this user runs until the event is set, or the block is over."""
    gate = asyncio.Event()
    upstream.next(plays.held(gate), model=model)
    before = len(upstream.received())
    task = asyncio.create_task(client.ask("responses", model))
    await upstream.wait_for(before + 1)
    try:
        yield gate
    finally:
        gate.set()
        endings.whole("responses", await task)


async def queued(response: object) -> int:
    """The place in the queue that the next comment tells."""
    line = await response.content.readuntil(b"\n\n")  # type: ignore[attr-defined]
    match = COMMENT.match(line)
    assert match, line
    return int(match[1])


@each_protocol
async def test_a_waiting_client_is_told_its_place_and_then_served(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(limits=ONE)
    client = gateway.client()
    async with holding(client, upstream) as gate:
        async with client.open(protocol, f"{protocol}-x") as response:
            assert 1 == await queued(response)
            assert 1 == len(upstream.received())
            gate.set()
            body = await response.content.read()

    assert b"well" in body
    line = await gateway.log.wait_finished(response.headers["x-request-id"])
    assert "ok" == line["outcome"]
    assert line["queue_ms"] >= 50


async def test_waiters_of_one_user_are_served_in_the_order_of_their_coming(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(limits={**ONE, "ping_interval_s": 0.02})
    client = gateway.client()
    order: list[str] = []

    async def wait(model: str) -> None:
        async with client.open("chat", model) as response:
            await queued(response)
            started.release()
            await response.content.read()

    started = asyncio.Semaphore(0)
    async with holding(client, upstream):
        tasks = []
        for n in range(8):
            tasks.append(asyncio.create_task(wait(f"chat-{n}")))
            await started.acquire()
    await asyncio.gather(*tasks)

    order = [request.model for request in upstream.received("chat")]
    assert [f"chat-{n}" for n in range(8)] == order
    assert 1 == upstream.most["chat"]


async def test_one_users_queue_does_not_stand_before_anothers_first(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """One slot of the account, six of alice waiting: bob is served within two turns."""
    rows = [account(upstream, "chat", max_concurrent=1)]
    limits = {"max_concurrent": 10, "ping_interval_s": 0.02}
    gateway = await serve(accounts=rows, limits=limits)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    started = asyncio.Semaphore(0)

    async def wait(name: str) -> Reply:
        async with gateway.client(name).open("chat", f"chat-{name}") as response:
            await queued(response)
            started.release()
            await response.content.read()
        return response.headers["x-request-id"]

    first = asyncio.create_task(gateway.client().ask("chat", "chat-first"))
    await upstream.wait_for(1)
    tasks = []
    for name in ["alice"] * 6 + ["bob"]:
        tasks.append(asyncio.create_task(wait(name)))
        await started.acquire()
    gate.set()
    await asyncio.gather(first, *tasks)

    order = [request.model for request in upstream.received()]
    assert "chat-bob" in order[1:3]
    assert 1 == upstream.most["chat"]


@each_protocol
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "non-stream"])
async def test_a_full_queue_refuses_at_once(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    gateway = await serve(limits={**ONE, "max_queued": 1})
    client = gateway.client()
    async with holding(client, upstream):
        async with client.open("chat", "chat-x") as waiting:
            await queued(waiting)
            reply = await client.ask(protocol, f"{protocol}-x", stream=stream)

    told = endings.before(protocol, reply)
    assert (429, "rate_limit_error") == (reply.status, told.type)
    assert "Concurrency limit exceeded for user (1 of 1 running, 1 waiting)" in (
        told.message
    )
    assert told.retry_after_s
    line = await gateway.explained(reply)
    assert ("refused", "gateway", "queue_full") == (
        line["outcome"],
        line["origin"],
        line["error_code"],
    )


@each_protocol
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "non-stream"])
async def test_a_time_out_before_any_ping_is_a_plain_429(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    limits = {**ONE, "ping_interval_s": 5.0, "queue_timeout_s": 0.1}
    gateway = await serve(limits=limits)
    async with holding(gateway.client(), upstream):
        reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=stream)

    told = endings.before(protocol, reply)
    assert (429, True) == (reply.status, told.retry_after_s is not None)
    line = await gateway.explained(reply)
    assert ("refused", "queue_timeout", 429, 0) == (
        line["outcome"],
        line["error_code"],
        line["status"],
        line["attempts"],
    )


@each_protocol
async def test_a_time_out_after_pings_is_the_ending_in_the_stream(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(limits={**ONE, "queue_timeout_s": 0.2})
    async with holding(gateway.client(), upstream):
        reply = await gateway.client().ask(protocol, f"{protocol}-x")

    told = endings.in_stream(protocol, reply)
    assert "rate_limit_error" == told.type
    assert len(reply.comments) in range(1, 5)
    assert 1 == len(upstream.received())
    assert "queue_timeout" == (await gateway.explained(reply))["error_code"]


async def test_a_non_stream_request_waits_silently(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(limits=ONE)
    client = gateway.client()
    async with holding(client, upstream) as gate:
        task = asyncio.create_task(client.ask("messages", "messages-x", stream=False))
        await gateway.inside.waiting("alice", 1)
        async with client.open("chat", "chat-x") as behind:
            assert 2 == await queued(behind)
            gate.set()
            await behind.content.read()
        reply = await task

    assert 200 == reply.status
    assert "All is well." == reply.json["content"][0]["text"]


@each_protocol
async def test_the_accounts_own_limit_is_waited_for_too(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    rows = [account(upstream, protocol, max_concurrent=1)]
    limits = {"max_concurrent": 9, "ping_interval_s": 0.05, "queue_timeout_s": 0.3}
    gateway = await serve(accounts=rows, limits=limits)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    client = gateway.client()
    holder = asyncio.create_task(client.ask(protocol, f"{protocol}-x"))
    await upstream.wait_for(1)
    reply = await client.ask(protocol, f"{protocol}-x")
    gate.set()
    await holder

    told = endings.in_stream(protocol, reply)
    assert told.message.startswith("Concurrency limit exceeded for account")
    await gateway.explained(reply)


# --- who leaves ---


async def left(gateway: Gateway, request_id: str) -> None:
    line = await gateway.log.wait_finished(request_id)
    assert ("client_gone", "client") == (line["outcome"], line["origin"])


@each_protocol
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "non-stream"])
async def test_who_leaves_the_queue_frees_the_place_and_reaches_no_account(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    """The place behind is told its new position; < 50 ms from leaving to the log."""
    gateway = await serve(limits={**ONE, "ping_interval_s": 0.01})
    client = gateway.client()
    async with holding(client, upstream):
        leaver = asyncio.create_task(
            client.ask(protocol, f"{protocol}-leaver", stream=stream)
        )
        await gateway.inside.waiting("alice", 1)
        async with client.open("chat", "chat-behind") as behind:
            while await queued(behind) != 2:
                pass
            leaver.cancel()
            gone_at = time.monotonic()
            while await queued(behind) != 1:
                pass
            took_s = time.monotonic() - gone_at
            request_id = client.asked[-2]
            await left(gateway, request_id)
            behind.close()

    assert took_s < 0.05 + 0.02  # a ping's interval passes until we are told
    await upstream.idle()
    assert ["responses"] == [request.account for request in upstream.received()]


@each_protocol
async def test_who_leaves_a_stream_frees_its_slot_at_once(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """``client_gone_drain_s = 0``: the upstream connection is cancelled."""
    gateway = await serve(limits=ONE, upstream={"client_gone_drain_s": 0.0})
    client = gateway.client()
    upstream.next(plays.silence(1))
    async with client.open(protocol, f"{protocol}-x") as response:
        await response.content.readany()
        response.close()
    await upstream.idle()
    reply = await client.ask("chat", "chat-next")

    endings.whole("chat", reply)
    assert not reply.comments
    assert upstream.received()[0].cut_by_client
    await left(gateway, client.asked[0])


@each_protocol
async def test_who_leaves_a_non_stream_request_frees_its_slot(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(limits=ONE, upstream={"client_gone_drain_s": 0.0})
    client = gateway.client()
    upstream.next(plays.silence(None))
    task = asyncio.create_task(client.ask(protocol, f"{protocol}-x", stream=False))
    await upstream.wait_for(1)
    task.cancel()
    await upstream.idle()

    endings.whole("chat", await client.ask("chat", "chat-next"))
    await left(gateway, client.asked[0])


async def test_limits_are_kept_and_everything_is_given_back(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """A few hundred requests that come, leave and fail at random."""
    chance = random.Random(7)
    rows = [account(upstream, name, max_concurrent=4) for name in answers.PROTOCOLS]
    users = [user("alice", max_concurrent=5), user("bob", max_concurrent=2)]
    limits = {"max_queued": 500, "ping_interval_s": 0.02, "queue_timeout_s": 30.0}
    gateway = await serve(
        accounts=rows,
        users=users,
        limits=limits,
        upstream={"client_gone_drain_s": 0.0},
    )
    upstream.always(plays.ok(interval_s=0.002))
    upstream.always(plays.cut(1), model="chat-cut")

    impatient: set[str] = set()

    async def one(name: str) -> None:
        protocol = chance.choice(answers.PROTOCOLS)
        model = chance.choice([f"{protocol}-x", f"{protocol}-y", "chat-cut"])
        request_id = str(uuid.uuid4())
        asking = gateway.client(name).ask(
            protocol, model, headers={"x-request-id": request_id}
        )
        if chance.random() < 0.3:
            try:
                await asyncio.wait_for(asking, chance.uniform(0.005, 0.2))
            except TimeoutError:
                impatient.add(request_id)
        else:
            assert 200 == (await asking).status

    async with asyncio.timeout(40):
        await asyncio.gather(
            *(one(chance.choice(("alice", "bob"))) for _ in range(250))
        )
    await upstream.idle()

    assert max(upstream.most.values()) <= 4
    for client in gateway.clients.values():  # who gave up before it was heard
        client.asked[:] = [
            asked
            for asked in client.asked
            if asked not in impatient or gateway.log.grep(asked)
        ]
    upstream.requests.clear()
    gate = asyncio.Event()
    upstream.always(plays.held(gate))
    again = [
        asyncio.create_task(gateway.client(name).ask("responses", "responses-x"))
        for name in ["alice", "alice", "bob", "bob"]
    ]
    await upstream.wait_for(4)
    gate.set()
    assert not any(reply.comments for reply in await asyncio.gather(*again))
