"""Two gateways on one engine: to clients and operators they are one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.shared import steps
from gateway.shared.membership import DIFFERS_S, Membership
from tests.kit import answers, endings, plays, settings
from tests.kit.admin import AdminClient, over_unix
from tests.kit.asking import Client, Reply
from tests.kit.engine import Engine, running_engine
from tests.kit.event_reader import reading
from tests.kit.gateway import Gateway
from tests.kit.nodes import eventually
from tests.kit.pair import Pair, components, pair, with_users
from tests.kit.queueing import ONE, holding
from tests.kit.scripted import ScriptedUpstream

SESSION = {"headers": {"x-session-id": "mine"}}
CLAUDE = {"headers": {"x-claude-code-session-id": "mine"}}
each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as one:
        yield one


def waiting(gateway: Gateway, name: str) -> int:
    """How many requests wait at *gateway* for a slot of that user or account."""
    counts = components(gateway).registry.counts()
    return sum(one.waiting for one in counts if one.name == name)


def two_of_chat(upstream: ScriptedUpstream) -> list[settings.Table]:
    """Two accounts for the same models, of one slot each; the first is preferred."""
    return [
        settings.account(upstream, f"chat-{n}", max_concurrent=1, priority=n)
        for n in (1, 2)
    ]


def asked(upstream: ScriptedUpstream) -> list[str]:
    """The accounts that were asked, in order."""
    return [request.account for request in upstream.received()]


# --- sessions -------------------------------------------------------------------------


@pytest.mark.parametrize("sticky_wait_s", [30.0, 0.1])
async def test_a_session_waits_for_its_account_at_every_process(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path, sticky_wait_s: float
) -> None:
    """A free account that does not know it comes second, and from then on first."""
    accounts, wait = two_of_chat(upstream), {"sticky_wait_s": sticky_wait_s}
    async with pair(engine, tmp_path, accounts, upstream=wait) as both:
        one, other = both.one.client(), both.other.client()
        async with holding_account(one, upstream):
            endings.whole("chat", await one.ask("chat", "chat-x", **SESSION))
        assert ["chat-1", "chat-2"] == asked(upstream)

        await both.heard()
        async with holding_account(one, upstream, **SESSION) as gate:
            assert "chat-2" == asked(upstream)[-1]
            turn = asyncio.create_task(other.ask("chat", "chat-x", **SESSION))
            await eventually(lambda: turn.done() or waiting(both.other, "chat-2") > 0)
            if sticky_wait_s > 1:
                assert not turn.done()
                gate.set()
            reply = await turn
            endings.whole("chat", reply)
        last = "chat-2" if sticky_wait_s > 1 else "chat-1"
        assert last == asked(upstream)[-1]

        await both.heard()
        endings.whole("chat", await one.ask("chat", "chat-x", **SESSION))
        assert last == asked(upstream)[-1]


def holding_account(client: Client, upstream: ScriptedUpstream, **options: Any) -> Any:
    """As ``holding``, with a request over chat."""
    return holding(client, upstream, "chat-hold", protocol="chat", **options)


async def test_a_process_finds_who_made_a_response_in_the_ledger(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    accounts = [
        settings.account(upstream, f"responses-{n}", max_concurrent=1, priority=n)
        for n in (1, 2)
    ]
    async with pair(engine, tmp_path, accounts) as both:
        one, other = both.one.client(), both.other.client()
        async with holding(one, upstream):
            made = await one.ask("responses", "responses-x", stream=False)
        more = {"previous_response_id": made.json["id"]}
        reply = await other.ask("responses", "responses-x", **more)
        endings.whole("responses", reply)
        upstream.next(plays.status(200, "{}"), account="responses-2")
        found = await other.send(f"/v1/responses/{made.json['id']}", method="GET")
        assert 200 == found.status
        again = await one.ask("responses", "responses-x")
        endings.whole("responses", again)

    assert ["responses-1", *["responses-2"] * 2, "responses-1"] == asked(upstream)
    assert made.json["id"] == upstream.received()[2].json["previous_response_id"]


# --- slots ----------------------------------------------------------------------------


async def test_a_drain_ends_for_who_waits_at_another_process(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Until then it is read on, and its slots are taken for all."""
    accounts = [settings.account(upstream, "chat", max_concurrent=1)]
    async with pair(engine, tmp_path, accounts) as both:
        upstream.next(plays.silence(1))
        async with both.one.client().open("chat", "chat-x") as response:
            await response.content.readany()
            await both.show("running")
        await both.show("draining")
        assert not upstream.received()[0].cut_by_client

        endings.whole("chat", await both.other.client("bob").ask("chat", "chat-y"))
        await upstream.idle()
        assert upstream.received()[0].cut_by_client
        line = await both.log.wait_finished(both.one.client().asked[0])
        assert "client_gone" == line["outcome"]
        await both.show()


async def test_a_drain_that_no_request_needs_learns_what_its_answer_cost(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    accounts = [settings.account(upstream, "chat", max_concurrent=2)]
    async with pair(engine, tmp_path, accounts) as both:
        gate = asyncio.Event()
        upstream.next(plays.held(gate))
        async with both.one.client().open("chat", "chat-x") as response:
            await response.content.readany()
        await both.show("draining")
        endings.whole("chat", await both.other.client("bob").ask("chat", "chat-y"))
        gate.set()
        line = await both.log.wait_finished(both.one.client().asked[0])

    assert line["output_tokens"] and "estimated" not in line
    assert not upstream.received()[0].cut_by_client


async def test_a_repeat_at_another_process_keeps_its_place(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Also where the queue is full by now, and the slot and the others are there."""
    accounts = settings.accounts(upstream)
    limits = {**ONE, "max_queued": 1, "queue_timeout_s": 0.4, "ping_interval_s": 30.0}
    async with pair(engine, tmp_path, accounts, limits=limits) as both:
        one, other = both.one.client(), both.other.client()
        async with holding(other, upstream) as gate:
            refused = await one.ask("messages", "messages-x", **CLAUDE)
            assert 429 == refused.status
            for gateway in (both.one, both.other):
                parts = components(gateway)
                parts.reload(with_users(parts._config, queue_timeout_s=30.0))
            await both.heard()
            newcomer = asyncio.create_task(other.ask("chat", "chat-x"))
            await eventually(lambda: waiting(both.other, "alice") == 1)
            beyond = await other.ask("chat", "chat-z")
            asking = other.ask("messages", "messages-x", stream=False, **CLAUDE)
            repeat = asyncio.create_task(asking)
            await eventually(lambda: repeat.done() or waiting(both.other, "alice") == 2)
            gate.set()
            replies: list[Reply] = await asyncio.gather(newcomer, repeat)

    assert (429, [200, 200]) == (beyond.status, [reply.status for reply in replies])
    assert ["responses", "messages", "chat"] == asked(upstream)


# --- operators ------------------------------------------------------------------------


async def test_each_process_answers_the_operator_for_all(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """What runs, waits, ends and warns at one is seen at the other as at its own."""
    account = settings.account(upstream, "chat", max_concurrent=4)
    more = {"admin": settings.ADMIN, "limits": {"max_concurrent": 1}}
    async with (
        pair(engine, tmp_path, [account], **more) as both,
        over_unix(tmp_path / "one") as here,
        reading(here) as events,
    ):
        await events.next("snapshot")
        client = both.other.client()
        async with holding_account(client, upstream):
            running = await events.next("request", state="running", model="chat-hold")
            task = asyncio.create_task(client.ask("chat", "chat-b"))
            waits = await events.next("request", state="waiting", position=1)
            await events.next("user", name="alice", running=1, waiting=1)
            listed = (await here.get("/requests"))["data"]
            detail = await here.get(f"/requests/{waits['request_id']}")
            [one] = (await here.get("/accounts"))["data"]
        ident = running["request_id"]
        ended = await events.next("request", request_id=ident, state="ended")
        reply = await task
        await events.next("request", request_id=reply.request_id, outcome="ok")
        rates = await events.next("rates")
        upstream.next(plays.status(429, headers={"retry-after": "50"}))
        await client.ask("chat", "chat-x")
        await events.next("log", event="account.cooled")

    states = {row["request_id"]: row["state"] for row in listed}
    assert {ident: "running", waits["request_id"]: "waiting"}.items() <= states.items()
    assert "chat-b" == waits["model"] == detail["model"]
    assert "queued" == detail["timeline"][-1]["event"]
    assert {"in_use": 1, "limit": 4} == one["slots"]
    assert ("ok", 1) == (ended["outcome"], ended["attempts"])
    assert ended["output_tokens"] and running["node"] == ended["node"] != ""
    assert rates["requests_per_s"] > 0


@each_protocol
async def test_a_request_is_ended_at_any_process(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path, protocol: str
) -> None:
    """One that streams, one that waits, and one whose client has left."""
    accounts = [settings.account(upstream, protocol, max_concurrent=1)]
    more = {"admin": settings.ADMIN, "limits": {"ping_interval_s": 0.05}}
    gate = asyncio.Event()
    async with (
        pair(engine, tmp_path, accounts, **more) as both,
        over_unix(tmp_path / "other") as there,
    ):
        client = both.one.client()
        upstream.next(plays.held(gate))
        streams = asyncio.create_task(client.ask(protocol, f"{protocol}-x"))
        await upstream.wait_for(1)
        async with client.open(protocol, f"{protocol}-y") as response:
            await both.show("queued_account", "running")
            ended = await end(there, client.asked[1])
            assert "waiting" == ended["state"]
            rest = await response.read()
        ended = await end(there, client.asked[0])
        assert "running" == ended["state"]
        reply = await streams

        assert b"operator" in rest
        assert "operator" in endings.in_stream(protocol, reply).message
        for number in (0, 1):
            line = await both.log.wait_finished(client.asked[number])
            assert ("ended_by_operator", "gateway") == (
                *(line["error_code"], line["origin"]),
            )
        detail = await there.get(f"/requests/{client.asked[0]}")
        [mark] = [one for one in detail["timeline"] if one["event"] == "ended"]
        assert mark["who"].startswith("unix:")
        gone = await there.ask("DELETE", f"/requests/{client.asked[0]}")
        assert 404 == gone.status

        upstream.next(plays.silence(1))
        async with client.open(protocol, f"{protocol}-z") as response:
            await response.content.readany()
        await both.show("draining")
        await end(there, client.asked[2])
        await upstream.idle()
        await both.show()
    gate.set()


async def end(operator: AdminClient, ident: str) -> Any:
    """End a request, once it is seen."""
    async with asyncio.timeout(5):
        while True:
            reply = await operator.ask("DELETE", f"/requests/{ident}")
            if reply.status == 202:
                return reply.json
            assert 404 == reply.status


async def test_a_user_made_at_one_process_is_one_at_the_other_within_a_second(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Its key, its limit over both, a changed limit, and its end."""
    accounts = [settings.account(upstream, "chat")]
    async with (
        pair(engine, tmp_path, accounts, admin=settings.ADMIN) as both,
        over_unix(tmp_path / "one") as here,
        over_unix(tmp_path / "other") as there,
    ):
        body = {"name": "carol", "max_concurrent": 1}
        made = await here.ask("POST", "/users", json=body)
        assert 201 == made.status, made.json
        key = (await here.ask("POST", "/users/carol/keys", json={"label": "x"})).json
        clients = [gateway.client("carol") for gateway in (both.one, both.other)]
        for client in clients:
            client.key = key["key"]
        endings.whole("chat", await clients[0].ask("chat", "chat-x"))
        await within_a_second(clients[1], 200)

        async with holding_account(clients[0], upstream):
            waiter = asyncio.create_task(clients[1].ask("chat", "chat-y"))
            await eventually(lambda: waiting(both.other, "carol") == 1)
            changed = {"max_concurrent": 2}
            reply = await there.ask("PATCH", "/users/carol", json=changed)
            assert 200 == reply.status, reply.json
            endings.whole("chat", await waiter)

        path = f"/users/carol/keys/{key['prefix']}"
        assert (await there.ask("DELETE", path)).status in (200, 204)
        assert 401 == (await clients[1].send("/v1/models", method="GET")).status
        await within_a_second(clients[0], 401)


async def within_a_second(client: Client, status: int) -> None:
    """Wait until *client* gets that status."""
    until = time.monotonic() + 1.0
    while (await client.send("/v1/models", method="GET")).status != status:
        assert time.monotonic() < until, "not within a second"
        await asyncio.sleep(0.02)


async def test_a_process_with_another_config_says_so_once_and_not_at_once(
    engine: Engine, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    now = [100.0]
    accounts = [settings.account(upstream, "chat")]
    async with pair(engine, tmp_path, accounts) as both:
        for gateway in (both.one, both.other):
            membership_of(gateway).clock = lambda: now[0]
        reloaded(both.other)
        await beaten(both)
        now[0] += DIFFERS_S - 1.0
        await beaten(both)
        assert not both.log.events("config.differs")
        now[0] += 2.0
        await beaten(both)
        now[0] += DIFFERS_S
        await beaten(both)
        [line] = both.log.events("config.differs")
        assert components(both.one).ledger.node == line["node"]

        reloaded(both.one)
        await beaten(both)
        now[0] += 2 * DIFFERS_S
        await beaten(both)
        assert [line] == both.log.events("config.differs")


def membership_of(gateway: Gateway) -> Membership:
    sharing = components(gateway).sharing
    assert sharing is not None
    return sharing.engine


def reloaded(gateway: Gateway) -> None:
    """It has read a config with other limits."""
    parts = components(gateway)
    parts.reload(with_users(parts._config, max_concurrent=3))


async def beaten(both: Pair) -> None:
    """Both have taken the answer to a beat."""
    for gateway in (both.one, both.other):
        engine = membership_of(gateway)
        engine._beat()
        await engine.asked(steps.nodes())
