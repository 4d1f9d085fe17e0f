"""
A client that leaves, waiting or within an answer, frees everything at once.

The upstream counts what really runs at once; a test never sleeps to make something
happen, it waits for the moment at which it has.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid

import pytest

from gateway.ledger.ledger import Ledger
from gateway.record import Record
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.gateway import Gateway
from tests.kit.queueing import ONE, holding, queued
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, user

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


async def left(gateway: Gateway, request_id: str) -> None:
    line = await gateway.log.wait_finished(request_id)
    assert ("client_gone", "client") == (line["outcome"], line["origin"])


@each_protocol
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "non-stream"])
async def test_who_leaves_the_queue_frees_the_place_and_reaches_no_account(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    """The place behind moves up within 50 ms, by the best of three."""
    gateway = await serve(limits={**ONE, "ping_interval_s": 0.01})
    client = gateway.client()
    delays = []
    async with holding(client, upstream):
        for _ in range(3):
            asking = client.ask(protocol, f"{protocol}-leaver", stream=stream)
            leaver = asyncio.create_task(asking)
            await gateway.inside.waiting("alice", 1)
            async with client.open("chat", "chat-behind") as behind:
                while await queued(behind) != 2:
                    pass
                leaver.cancel()
                gone_at = time.monotonic()
                while await queued(behind) != 1:
                    pass
                delays.append(time.monotonic() - gone_at)
                await left(gateway, client.asked[-2])
                behind.close()
            await gateway.inside.waiting("alice", 0)

    assert min(delays) < 0.05
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
    assert not reply.queued
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


@each_protocol
@pytest.mark.parametrize("upstreams", answers.PROTOCOLS)
@pytest.mark.parametrize(
    ("stream", "pace_s"),
    [
        pytest.param(True, 0.0, id="stream-at-once"),
        pytest.param(True, 0.01, id="stream-in-pieces"),
        pytest.param(False, 0.0, id="non-stream"),
    ],
)
async def test_a_client_that_leaves_while_its_row_is_made_durable_stops_no_other(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    upstreams: str,
    stream: bool,
    pace_s: float,
) -> None:
    """The answer is whole, nothing is left to read, and what it cost is known."""
    asked, taken = asyncio.Event(), asyncio.Event()
    records: list[Record] = []
    close = Ledger.close

    async def slow(ledger: Ledger, record: Record) -> None:
        records.append(record)
        asked.set()
        await taken.wait()
        await close(ledger, record)

    monkeypatch.setattr(Ledger, "close", slow)
    upstream.next(plays.ok(interval_s=pace_s))
    client = gateway.client()
    asking = client.ask(protocol, f"{upstreams}-x", stream=stream)
    leaver = asyncio.create_task(asking)
    await asked.wait()
    leaver.cancel()
    line = await gateway.log.wait_finished(client.asked[0])
    taken.set()

    assert "client_gone" == line["outcome"]  # it has not had it
    assert line["output_tokens"] and "estimated" not in line
    facts = {event: facts for _, event, facts in records[0].marks}
    assert "whole" == facts["terminal"]["outcome"]
    assert 1 == [event for _, event, _ in records[0].marks].count("first_event")
    endings.whole("chat", await client.ask("chat", "chat-next"))


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

    assert all(upstream.most_served(name) <= 4 for name in answers.PROTOCOLS)
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
    assert not any(reply.queued for reply in await asyncio.gather(*again))
