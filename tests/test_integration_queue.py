"""
Waiting for a slot, as clients and the upstream see it.

The upstream counts what really runs at once; a test never sleeps to make something
happen, it waits for the moment at which it has.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.queueing import ONE, holding, queued
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@each_protocol
async def test_a_waiting_client_sees_its_place_and_is_then_served(
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

    async def wait(name: str) -> None:
        async with gateway.client(name).open("chat", f"chat-{name}") as response:
            await queued(response)
            started.release()
            await response.content.read()

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

    error = endings.before(protocol, reply)
    assert (429, "rate_limit_error") == (reply.status, error.type)
    assert "Concurrency limit exceeded for user (1 of 1 running, 1 waiting)" in (
        error.message
    )
    assert error.retry_after_s
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

    error = endings.before(protocol, reply)
    assert (429, True) == (reply.status, error.retry_after_s is not None)
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
    gateway = await serve(limits={**ONE, "queue_timeout_s": 0.9})
    async with holding(gateway.client(), upstream):
        reply = await gateway.client().ask(protocol, f"{protocol}-x")

    error = endings.in_stream(protocol, reply)
    assert "rate_limit_error" == error.type
    assert len(reply.queued) in range(1, 19)
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
    limits = {"max_concurrent": 9, "ping_interval_s": 0.05, "queue_timeout_s": 0.9}
    gateway = await serve(accounts=rows, limits=limits)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    client = gateway.client()
    holder = asyncio.create_task(client.ask(protocol, f"{protocol}-x"))
    await upstream.wait_for(1)
    reply = await client.ask(protocol, f"{protocol}-x")
    gate.set()
    await holder

    error = endings.in_stream(protocol, reply)
    assert error.message.startswith("Concurrency limit exceeded for account")
    await gateway.explained(reply)
