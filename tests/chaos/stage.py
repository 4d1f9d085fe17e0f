"""Real daemons on one real engine, each with a network of its own, and one upstream."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.journal import Journal, Limit, Over
from tests.chaos.link import Link
from tests.chaos.upstream import CountingUpstream
from tests.kit import settings
from tests.kit.daemon import Daemon
from tests.kit.engine import Engine, running_engine

ACCOUNTS = {"responses-1": 6, "chat-1": 6}
PROBE = "chat-probe"
USERS = {"alice": 4, "bob": 4, "carol": 6}
CLIENTS = {"alice": 7, "bob": 7, "carol": 10}
LIMITS = {"max_queued": 500, "queue_timeout_s": 60.0, "ping_interval_s": 2.0}
PREFIX = "chaos"
LOOK_S = 0.5
START_S = 60.0


class Stage:
    """
    Attributes:
        daemons: by number; one that was killed may have been replaced.
        past: the logs of daemons that are gone.
        locks: of what a fault breaks, until it is mended.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        upstream: CountingUpstream,
        journal: Journal,
        *,
        nodes: int,
        workers: int,
        seed: int,
    ) -> None:
        self.folder, self.engine, self.upstream = folder, engine, upstream
        self.journal = journal
        self.limits = dict(ACCOUNTS)
        self.links = [Link(engine.socket, seed + n) for n in range(nodes)]
        self.past: list[Daemon] = []
        self.locks: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(
            asyncio.Lock
        )
        self._workers = workers
        self.daemons: list[Daemon] = []
        for number in range(nodes):
            (folder / f"n{number}").mkdir()
            self.daemons.append(self._daemon(number))

    def _daemon(self, number: int) -> Daemon:
        daemon = Daemon(self.folder / f"n{number}", self._accounts())
        self._configure(daemon, number)
        return daemon

    def _configure(self, daemon: Daemon, number: int) -> None:
        server = {"workers": self._workers} if self._workers > 1 else None
        daemon.configure(
            accounts=self._accounts(),
            users=[
                *(settings.user(n, max_concurrent=most) for n, most in USERS.items()),
                settings.user("probe", max_concurrent=0),
            ],
            limits=LIMITS,
            ledger={"url": "sqlite:///../gateway.db"},
            shared={"url": self.links[number].url, "prefix": PREFIX},
            server=server,
            upstream={"client_gone_drain_s": 0.5},
        )

    def _accounts(self) -> list[settings.Table]:
        one = settings.account
        work = [
            one(self.upstream, name, max_concurrent=most, models=["work_*"])
            for name, most in self.limits.items()
        ]
        probe = one(self.upstream, PROBE, max_concurrent=0, models=["probe_*"])
        return [*work, probe]

    async def start(self) -> None:
        """Start everything that is not started yet."""
        self.say_limits()
        for name, most in USERS.items():
            self.journal.limits.append(Limit(time.monotonic(), "user", name, most))
        for link in self.links:
            await link.start()
        for daemon in self.daemons:
            await daemon.start(START_S)

    def say_limits(self) -> None:
        """Note the limits of the accounts."""
        for name, most in self.limits.items():
            limit = Limit(time.monotonic(), "account", name, most)
            self.journal.limits.append(limit)

    async def replace(self, number: int) -> None:
        """A new daemon at the address of one whose parent is gone."""
        old = self.daemons[number]
        self.past.append(old)
        new = self._daemon(number)
        new.port, new.listen, new.base_url = old.port, old.listen, old.base_url
        self._configure(new, number)
        self.daemons[number] = new
        await new.start(START_S)

    async def reload(self) -> None:
        """All nodes read their config again."""
        self.say_limits()
        for number, daemon in enumerate(self.daemons):
            self._configure(daemon, number)
        for daemon in self.daemons:
            with suppress(ProcessLookupError):
                daemon.reload()

    async def look(self) -> None:
        """Note what the nodes show to run above limits, until cancelled."""
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                for daemon in list(self.daemons):
                    with suppress(aiohttp.ClientError, OSError, TimeoutError):
                        async with session.get(f"{daemon.base_url}/metrics") as reply:
                            self._note(await reply.text())
                await asyncio.sleep(LOOK_S)

    def _note(self, metrics: str) -> None:
        now = time.monotonic()
        for line in metrics.splitlines():
            if line.startswith("gateway_slots_over{") and not line.endswith(" 0.0"):
                name, scope = (part.split('"')[1] for part in line.split(",", 1))
                self.journal.over.append(Over(now, scope, name))

    async def stop(self) -> None:
        """Stop all daemons, politely."""
        await asyncio.gather(*(one.stop() for one in self.daemons))
        for link in self.links:
            await link.stop()


@asynccontextmanager
async def stage(folder: Path, journal: Journal, **more: Any) -> AsyncIterator[Stage]:
    """A running stage."""
    with running_engine() as engine:
        async with CountingUpstream(journal, more["seed"]) as upstream:
            made = Stage(folder, engine, upstream, journal, **more)
            try:
                await made.start()
                yield made
            finally:
                engine.resume()
                await made.stop()
