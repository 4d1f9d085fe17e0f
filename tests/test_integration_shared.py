"""Two real daemons on one engine, at one scripted upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gateway.shared.address import parse_address
from gateway.shared.dialing import dial
from tests.kit import endings, plays, settings
from tests.kit.admin import over_unix
from tests.kit.asking import Client
from tests.kit.daemon import Daemon, running
from tests.kit.engine import Engine, running_engine
from tests.kit.event_reader import reading
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream

LEDGER = {"ledger": {"url": "sqlite:///../gateway.db"}}


class Pair:
    """Two daemons, each in a folder of its own, with one ledger."""

    def __init__(
        self, engine: Engine, daemons: list[Daemon], session: aiohttp.ClientSession
    ) -> None:
        self.engine = engine
        self.daemons = daemons
        self._session = session

    def client(self, number: int, user: str = "alice") -> Client:
        """A client of the daemon *number*, modulo 2."""
        base_url = self.daemons[number % 2].base_url
        return Client(base_url, settings.key_of(user), self._session)

    async def get(self, number: int, path: str) -> tuple[int, str]:
        """Status and body of a ``GET``."""
        url = self.daemons[number].base_url + path
        async with self._session.get(url) as reply:
            return reply.status, await reply.text()


@asynccontextmanager
async def pair(
    folder: Path, accounts: list[settings.Table], **config: Any
) -> AsyncIterator[Pair]:
    """Two running daemons."""
    async with AsyncExitStack() as stack:
        engine = stack.enter_context(running_engine())
        shared = {"url": engine.url, **config.pop("shared", {})}
        daemons = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            more = {**LEDGER, "shared": shared, **config}
            one = running(folder / name, accounts, **more)
            daemons.append(await stack.enter_async_context(one))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        yield Pair(engine, daemons, session)


async def set_aside(engine: Engine, gate: str, count: int) -> None:
    """Wait until so many slots are set aside for daemons that lose the engine."""
    look = await dial(parse_address(engine.url), "look")
    async with asyncio.timeout(10):
        while await look.send("HGET", "{gw1}:lim", f"~{gate}") != b"%d" % count:
            await asyncio.sleep(0.01)
    await look.closed()


async def test_two_daemons_keep_one_limit_and_outlive_their_engine(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    one = settings.account(upstream, "chat", max_concurrent=3)
    limits = {"max_concurrent": 0, "max_queued": 500, "queue_timeout_s": 25.0}
    async with pair(tmp_path, [one], limits=limits) as both:

        async def ask(number: int) -> None:
            user = ("alice", "bob")[number % 2]
            client = both.client(number // 2, user)
            endings.whole("chat", await client.ask("chat", "chat-x"))

        await asyncio.gather(*map(ask, range(60)))
        assert upstream.most["chat"] <= 3
        ready = [await both.get(n, "/readyz") for n in (0, 1)]
        assert [orjson.loads(text)["engine"] for _, text in ready] == ["shared"] * 2

        await set_aside(both.engine, "achat", 3)
        both.engine.kill()
        for daemon in both.daemons:
            await daemon.log.wait_events("engine.lost", 1)
        status, text = await both.get(0, "/readyz")
        assert (status, orjson.loads(text)["engine"]) == (200, "alone")
        await asyncio.gather(*map(ask, range(40)))
        assert upstream.most["chat"] <= 3
        assert "gateway_engine_up 0.0" in (await both.get(1, "/metrics"))[1]

        both.engine.start()
        for daemon in both.daemons:
            await daemon.log.wait_events("engine.healed", 1)
        await asyncio.gather(*map(ask, range(40)))
        assert upstream.most["chat"] <= 3
        assert "gateway_engine_up 1.0" in (await both.get(1, "/metrics"))[1]
        for daemon in both.daemons:
            assert len(daemon.log.events("engine.lost")) == 1
            assert len(daemon.log.events("engine.healed")) == 1


async def test_each_process_answers_the_operator_for_all(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """What runs, waits, ends and warns at one is seen at the other as at its own."""
    one = settings.account(upstream, "chat", max_concurrent=4)
    more = {"admin": settings.ADMIN, "limits": {"max_concurrent": 1}}
    async with AsyncExitStack() as stack:
        both = await stack.enter_async_context(pair(tmp_path, [one], **more))
        here = await stack.enter_async_context(over_unix(tmp_path / "a"))
        events = await stack.enter_async_context(reading(here))
        await events.next("snapshot")
        async with holding(both.client(1), upstream, "chat-a"):
            running = await events.next("request", state="running", model="chat-a")
            task = asyncio.create_task(both.client(1).ask("chat", "chat-b"))
            waits = await events.next("request", state="waiting", position=1)
            await events.next("user", name="alice", running=1, waiting=1)
            listed = (await here.get("/requests"))["data"]
            detail = await here.get(f"/requests/{waits['request_id']}")
            [account] = (await here.get("/accounts"))["data"]
        ident = running["request_id"]
        ended = await events.next("request", request_id=ident, state="ended")
        reply = await task
        await events.next("request", request_id=reply.request_id, outcome="ok")
        rates = await events.next("rates")
        upstream.next(plays.status(429, headers={"retry-after": "50"}))
        await both.client(1).ask("chat", "chat-x")
        await events.next("log", event="account.cooled")

    states = {row["request_id"]: row["state"] for row in listed}
    assert {ident: "running", waits["request_id"]: "waiting"}.items() <= states.items()
    assert "chat-b" == waits["model"] == detail["model"]
    assert "queued" == detail["timeline"][-1]["event"]
    assert {"in_use": 1, "limit": 4} == account["slots"]
    assert ("ok", 1) == (ended["outcome"], ended["attempts"])
    assert ended["output_tokens"] and running["node"] == ended["node"] != ""
    assert rates["requests_per_s"] > 0
