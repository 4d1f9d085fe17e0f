"""Two gateways in the test's own process: one engine, one ledger, one upstream."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from gateway.config.schema import Config
from gateway.daemon.app import components_of
from gateway.daemon.wiring import Components
from tests.kit import settings
from tests.kit.engine import Engine
from tests.kit.gateway import Gateway
from tests.kit.inprocess import logging_to, serving
from tests.kit.logs import Log

LEDGER = {"url": "sqlite:///../gateway.db"}
_numbers = itertools.count(1)


class Pair:
    """
    Attributes:
        one, other: the gateways; ``log`` is that of both.
    """

    def __init__(self, one: Gateway, other: Gateway) -> None:
        self.one, self.other = one, other
        self.log = one.log

    async def heard(self) -> None:
        """Return once each knows all that the other has said until now."""
        for gateway in (self.one, self.other):
            await components(gateway).registry.holders()

    async def show(self, *states: str) -> None:
        """Wait until both see this of every request that is inside."""
        async with asyncio.timeout(10):
            for gateway in (self.one, self.other):
                holders = components(gateway).registry.holders
                while sorted(one.state for one in await holders()) != [*states]:
                    await asyncio.sleep(0.005)

    async def check(self) -> None:
        """As ``Gateway.check``, for what was asked of either."""
        for gateway in (self.one, self.other):
            await gateway.check()


@asynccontextmanager
async def pair(
    engine: Engine, folder: Path, accounts: Sequence[settings.Table], **config: Any
) -> AsyncIterator[Pair]:
    """Two that run; each of their requests must leave one canonical line."""
    shared = {"prefix": f"pair{next(_numbers)}"}
    async with AsyncExitStack() as stack:
        log = stack.enter_context(logging_to(Log()))
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector)
        await stack.enter_async_context(session)
        both = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            parts = {"ledger": LEDGER, "shared": shared, **config}
            running = serving(folder / name, accounts, log, engine.choice, **parts)
            process = await stack.enter_async_context(running)
            both.append(Gateway(process, session))
        found = Pair(*both)
        await found.heard()
        yield found
        await found.check()


def components(gateway: Gateway) -> Components:
    """The parts of a gateway in this process."""
    return components_of(gateway.inside.app)


def with_users(config: Config, **limits: Any) -> Config:
    """*config* with other limits of every user."""
    users = tuple(replace(user, **limits) for user in config.user)
    return replace(config, user=users)
