"""
One request, one record: the same story in the log, the ledger, the metrics, the trace.

The sums of what the upstream reported and of what the ledger holds must be equal, also
after a crash; and one id opens the whole story.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.daemon.app import components_of
from gateway.ledger import report
from gateway.ledger.narrative import sentences
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import Reply, read_reply
from tests.kit.daemon import Daemon
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, accounts, user

LIMITS = {"max_concurrent": 50, "max_queued": 500}


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the ledger of a gateway in *folder* answers to *sql*."""
    with sqlite3.connect(folder / "gateway.db") as connection:
        found: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
    connection.close()
    return found


async def measured(gateway: Gateway) -> dict[str, float]:
    """Every line of /metrics: name with labels → value."""
    reply = await gateway.client().send("/metrics", method="GET")
    lines = reply.body.decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


# --- the ledger ---


async def test_the_ledger_holds_exactly_what_the_upstream_reported(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Streams and bodies, three protocols, cut and refused ones among them."""
    chance = random.Random(11)
    gateway = await serve(limits=LIMITS)
    sums = [0, 0, 0]

    async def one(number: int) -> None:
        protocol = chance.choice(answers.PROTOCOLS)
        read, cached, written = chance.randrange(50, 999), 7, chance.randrange(9, 99)
        model = f"{protocol}-{number}"
        bad = number % 10 == 0
        answer = Answer(usage=(read, cached, written, 1))
        upstream.next(plays.status(400) if bad else plays.ok(answer), model=model)
        stream = chance.random() < 0.6
        reply = await gateway.client().ask(protocol, model, stream=stream)
        assert reply.status == (400 if bad else 200)
        if not bad:
            sums[0] += read
            sums[1] += cached
            sums[2] += written

    await asyncio.gather(*(one(number) for number in range(200)))
    await gateway.log.each_finished_once(gateway.client().asked)
    columns = "sum(input_tokens), sum(cached_tokens), sum(output_tokens)"

    assert [tuple(sums)] == rows(tmp_path, f"select {columns} from request")
    counted = "select outcome, count(*) from request group by outcome order by outcome"
    assert [("failed", 20), ("ok", 180)] == rows(tmp_path, counted)
    assert [(200,)] == rows(tmp_path, "select count(*) from attempt")
    metrics = await measured(gateway)
    tokens = [
        value
        for name, value in metrics.items()
        if name.startswith("gateway_tokens_total{") and 'kind="input"' in name
    ]
    assert sums[0] == sum(tokens)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_requests_without_a_valid_key_are_counted_and_logged_but_not_kept(
    serve: Serve, tmp_path: Path, protocol: str, stream: bool
) -> None:
    """Else anyone who reaches the port could fill the disk."""
    gateway = await serve()
    client, model = gateway.client(), f"{protocol}-x"
    for headers in (
        {"authorization": "Bearer gw-wrong"},
        {"authorization": "", "x-api-key": "gw-wrong"},
        {"authorization": ""},
    ):
        reply = await client.ask(protocol, model, stream=stream, headers=headers)
        assert 401 == reply.status
    # The ledger writes in order: behind this row, nothing from before is missing.
    await client.ask(protocol, model)
    await gateway.log.each_finished_once(client.asked)

    assert [("alice",)] == rows(tmp_path, "select user from request")
    for table in ("attempt", "timeline"):
        assert [(1,)] == rows(tmp_path, f"select count(*) from {table}")
    assert 3 == len(gateway.log.events("request.finished", user="", status=401))
    labels = f'origin="client",outcome="refused",protocol="{protocol}"'
    assert 3 == (await measured(gateway))[f"gateway_requests_total{{{labels}}}"]


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_missing_usage_is_estimated_and_never_zero(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve()
    upstream.next(plays.cut(2))
    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    line = await gateway.explained(reply)
    assert line["output_tokens"] and line.get("estimated")


async def test_a_client_that_left_is_charged_what_its_answer_cost(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """The gateway reads on for it, for a while."""
    gateway = await serve(upstream={"client_gone_drain_s": 20.0})
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with gateway.client().open("messages", "messages-x") as response:
        await response.content.readany()
        response.close()
    gate.set()
    line = await gateway.log.wait_finished(gateway.client().asked[0])

    assert "client_gone" == line["outcome"]
    assert (11, 7) == (line["input_tokens"], line["output_tokens"])


async def test_a_success_that_a_client_saw_outlives_a_kill(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """kill -9 during twenty streams: no success is lost, and no row stays open."""
    daemon = Daemon(tmp_path, accounts(upstream), limits=LIMITS)
    await daemon.start()
    upstream.next(plays.held(asyncio.Event()))
    upstream.always(plays.ok(interval_s=0.01))
    seen: list[str] = []
    async with aiohttp.ClientSession() as session:
        client = Gateway(daemon, session).client()
        cut = asyncio.create_task(client.ask("responses", "responses-x"))
        async with asyncio.timeout(20):
            while not rows(tmp_path, "select 1 from request where outcome = 'open'"):
                await asyncio.sleep(0.01)

        async def keep_asking(protocol: str) -> None:
            """Until the daemon is gone."""
            with suppress(aiohttp.ClientError):
                while True:
                    reply = await client.ask(protocol, f"{protocol}-x")
                    if reply.broken:
                        return
                    endings.whole(protocol, reply)
                    seen.append(reply.request_id)

        asking = [
            asyncio.create_task(keep_asking(answers.PROTOCOLS[n % 3]))
            for n in range(20)
        ]
        async with asyncio.timeout(20):
            while len(seen) < 60:
                await asyncio.sleep(0.01)
        await daemon.kill()
        await asyncio.gather(*asking)
        assert (await cut).broken

    kept = rows(tmp_path, "select request_id from request where outcome = 'ok'")
    assert set(seen) <= {one for one, in kept}
    assert len(kept) == len(set(kept))

    again = Daemon(tmp_path, accounts(upstream))
    await again.start()
    assert 0 == await again.stop()
    left = rows(tmp_path, "select count(*) from request where outcome = 'open'")
    assert [(0,)] == left
    # Of the short ones some were open too, if their time to be written ahead had come.
    crashed = "select outcome from request where error_code = 'crashed'"
    assert {("failed",)} == set(rows(tmp_path, crashed))


# --- the metrics ---

NAMES = [
    "gateway_requests_total",
    "gateway_stream_endings_total",
    "gateway_slots_in_use",
    "gateway_queue_waiting",
    "gateway_queue_wait_seconds",
    "gateway_first_event_seconds",
    "gateway_upstream_failures_total",
    "gateway_account_available",
    "gateway_tokens_total",
    "gateway_event_loop_lag_seconds",
]


async def test_the_metrics_tell_what_happened(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve()
    for play in (plays.ok(), plays.cut(1), plays.status(400)):
        upstream.next(play)
        await gateway.client().ask("chat", "chat-x")
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    running = asyncio.create_task(gateway.client().ask("messages", "messages-x"))
    await upstream.wait_for(4)

    metrics = await measured(gateway)
    gate.set()
    await running

    for name in NAMES:
        assert any(line.startswith(name) for line in metrics), name
    count = 'gateway_requests_total{origin="%s",outcome="%s",protocol="chat"}'
    assert 1 == metrics[count % ("", "ok")]
    assert 1 == metrics[count % ("upstream", "failed")]
    assert 1 == metrics[count % ("client", "failed")]
    ending = 'gateway_stream_endings_total{ending="%s",protocol="chat"}'
    assert (1, 1) == (metrics[ending % "completed"], metrics[ending % "failed"])
    assert 1 == metrics['gateway_slots_in_use{name="alice",scope="user"}']
    assert 1 == metrics['gateway_slots_in_use{name="messages",scope="account"}']
    assert 0 == metrics['gateway_slots_in_use{name="chat",scope="account"}']
    after = await measured(gateway)
    assert 0 == after['gateway_slots_in_use{name="alice",scope="user"}']


# --- the command line ---


async def story_of(gateway: Gateway, *ids: str) -> str:
    """The timeline, which must be the same by each id."""
    texts = []
    for one in ids:
        status, text = await gateway.daemon.command("trace", one)
        assert 0 == status, (one, text)
        texts.append(text)
    assert 1 == len(set(texts))
    return texts[0]


async def test_one_id_tells_of_a_wait_a_failover_and_a_cut(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    first = account(upstream, "responses-1", priority=1)
    second = account(upstream, "responses-2", priority=2)
    gateway = await serve(
        daemon=True,
        accounts=[first, second],
        users=[user("alice", max_concurrent=1, ping_interval_s=0.05)],
    )
    client = gateway.client()
    gate = asyncio.Event()
    upstream.next(plays.held(gate), plays.status(503), account="responses-1")
    upstream.next(plays.cut(2), account="responses-2")
    holder = asyncio.create_task(client.ask("responses", "responses-x"))
    await upstream.wait_for(1)
    async with client.open(
        "responses", "responses-x", headers={"session-id": "my-session-1"}
    ) as response:
        assert b"position" in await response.content.readuntil(b"\n\n")
        gate.set()
        reply = await read_reply(response, 0.0)
    await holder
    line = await gateway.explained(reply)
    shown = reply.last.json["response"]["id"]

    bare = reply.request_id.replace("-", "")
    text = await story_of(gateway, reply.request_id, bare, shown, "my-session-1")
    marks = ["queued", "responses-1", "503", "responses-2", "cut", "keepalive"]
    assert [mark for mark in marks if mark not in text] == []
    assert line["attempts"] == 2
    status, data = await gateway.daemon.command("trace", reply.request_id, "--json")
    assert 0 == status
    assert [
        line
        for line in json.loads(data)["why"]
        if not line.startswith(("Waited", "Attempt", "While it waited"))
    ] == [
        "The client got an ending in its stream (upstream_cut), caused by the upstream:"
        ' "The upstream closed the stream before it finished".'
    ]


async def test_a_wait_says_who_held_the_slots(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    one = account(upstream, "chat-1", max_concurrent=2)
    gateway = await serve(accounts=[one], users=[user("alice"), user("bob")])
    gate = asyncio.Event()
    upstream.next(plays.held(gate), plays.held(gate), account="chat-1")
    holders = [
        asyncio.create_task(gateway.client("bob").ask("chat", "chat-x"))
        for _ in range(2)
    ]
    await upstream.wait_for(2)
    waiter = asyncio.create_task(gateway.client("alice").ask("chat", "chat-x"))
    parts = components_of(gateway.inside.app)
    await gateway.log.wait_for(
        lambda: any(one.waiting for one in parts.registry.counts("account")),
        "alice does not wait",
    )
    gate.set()
    reply = await waiter
    await asyncio.gather(*holders)
    await gateway.finished(reply)

    ledger = parts.ledger
    (row,) = await ledger.read(lambda c: report.find(c, reply.request_id))
    found = await ledger.read(lambda c: sentences(report.history(c, row)))
    assert found[0].startswith("Waited ")
    assert found[0].endswith(
        " for a slot of chat-1: bob held 2 of the 2 slots of chat-1."
    )


async def test_an_unknown_id_is_exit_1(serve: Serve) -> None:
    gateway = await serve(daemon=True)

    assert 1 == (await gateway.daemon.command("trace", "no-such-id"))[0]


async def test_usage_sums_by_user_and_model(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(daemon=True)
    replies: list[Reply] = []
    for name, model in (("alice", "chat-a"), ("alice", "chat-a"), ("bob", "chat-b")):
        replies.append(await gateway.client(name).ask("chat", model))
    await gateway.finished(replies[-1])

    status, text = await gateway.daemon.command("usage", "--by", "user,model", "--json")

    sums = {(row["user"], row["model"]): row for row in json.loads(text)}
    assert 0 == status
    assert {("alice", "chat-a"), ("bob", "chat-b")} == set(sums)
    assert (22, 14) == (
        sums["alice", "chat-a"]["input_tokens"],
        sums["alice", "chat-a"]["output_tokens"],
    )
    status, table = await gateway.daemon.command("usage")
    assert 0 == status and "alice" in table and "bob" in table
