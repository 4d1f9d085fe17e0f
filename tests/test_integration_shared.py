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
from tests.kit import endings, settings
from tests.kit.asking import Client
from tests.kit.daemon import Daemon, running
from tests.kit.engine import Engine, running_engine
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
