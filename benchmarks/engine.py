"""A real engine for the benchmark, and nodes of a gateway that are admission alone."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import TICKS
from gateway.admission.shared_registry import SharedRegistry
from gateway.admission.slot import Holder
from gateway.shared.address import parse_address
from gateway.shared.bus import Bus
from gateway.shared.membership import Membership

START_S = 10.0
WAIT_S = 600.0


def binary() -> str:
    """The engine's program; "" where there is none."""
    return shutil.which("valkey-server") or shutil.which("redis-server") or ""


class Engine(NamedTuple):
    """A running engine."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used so far."""
        text = Path(f"/proc/{self.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """An engine for the block, on a unix socket in *folder*."""
    path = folder / "engine.sock"
    command = [binary(), "--port", "0", "--unixsocket", str(path), "--save", ""]
    command += ["--appendonly", "no", "--maxclients", "4000", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while not path.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the engine did not start")
            time.sleep(0.01)
        yield Engine(f"unix://{path}", process.pid)
    finally:
        process.terminate()
        process.wait()


class SimulatedNode:
    """
    Admission of one process: its connection, its beat, its requests; no HTTP.

    Args:
        users, accounts: their limits.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        number: int,
        users: Mapping[str, int],
        accounts: Mapping[str, int],
    ) -> None:
        self._numbers = itertools.count(1)
        self._name = f"bench:{number}:{time.monotonic_ns()}"
        self.registry = SharedRegistry()
        self.engine = Membership(
            parse_address(url), prefix, self._name, self.registry.side, learn=False
        )
        self.registry.attach(self.engine, Bus(self.engine))
        for user, most in users.items():
            self.registry.set_user(user, most, 100_000)
        for account, most in accounts.items():
            self.registry.set_account(account, most)

    @asynccontextmanager
    async def request(self, user: str, accounts: tuple[str, ...]) -> AsyncIterator[str]:
        """A request of *user* with both its slots; its account."""
        holder = Holder(f"{self._name}.{next(self._numbers)}", user)
        until = time.monotonic() + WAIT_S
        with await self.registry.user_slot(user, holder, until):
            slot = await self.registry.account_slot((accounts,), holder, until)
            with slot as granted:
                yield granted.account


@asynccontextmanager
async def simulated(
    url: str,
    count: int,
    users: Mapping[str, int],
    accounts: Mapping[str, int],
    prefix: str = "bench",
) -> AsyncIterator[list[SimulatedNode]]:
    """*count* nodes that have joined."""
    nodes = [SimulatedNode(url, prefix, n, users, accounts) for n in range(count)]
    try:
        for node in nodes:
            await node.engine.start()
        yield nodes
    finally:
        for node in nodes:
            await node.engine.stop()


class AtOnce:
    """
    What runs at this moment.

    Attributes:
        most: the most at once, by name.
    """

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    @contextmanager
    def one(self, *names: str) -> Iterator[None]:
        """Something runs that counts for *names*."""
        for name in names:
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        try:
            yield
        finally:
            for name in names:
                self.now[name] -= 1
