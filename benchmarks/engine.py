"""A real engine for the benchmark, and what runs at nodes that are admission alone."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import TICKS
from gateway.shared.node_timing import NodeTiming
from tests.kit.nodes import Node

START_S = 10.0
WAIT_S = 600.0
REJOIN_S = 6.0  # a node that is declared dead has noticed by then
TIMING: dict[str, Any] = {"timing": NodeTiming(), "max_queued": 100_000}


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


class Load:
    """
    What runs at nodes at this moment, counted where it runs.

    Args:
        limits: how many may run at once, by name.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = limits
        self._now: dict[str, dict[object, tuple[Node, float]]] = {}
        self._excess: list[tuple[float, str, list[tuple[Node, float]]]] = []

    @contextmanager
    def one(self, node: Node, *names: str) -> Iterator[None]:
        """Something runs at *node* that counts for *names*."""
        key, since = object(), time.monotonic()
        for name in names:
            runs = self._now.setdefault(name, {})
            runs[key] = (node, since)
            if 0 < self._limits[name] < len(runs):
                self._excess.append((since, name, list(runs.values())))
        try:
            yield
        finally:
            for name in names:
                del self._now[name][key]

    def above(self) -> tuple[int, int]:
        """
        How many names were above their limit; and how many without what ran at nodes
        that were late and declared dead: they joined again while it ran, or soon after.
        """
        all_names = {name for _, name, _ in self._excess}
        unexplained = {
            name
            for at, name, runs in self._excess
            if sum(not _was_dead(*one, at) for one in runs) > self._limits[name]
        }
        return len(all_names), len(unexplained)


def _was_dead(node: Node, since: float, at: float) -> bool:
    return any(since < joined < at + REJOIN_S for joined in node.joined_at)


@asynccontextmanager
async def request(
    node: Node, user: str, accounts: tuple[str, ...]
) -> AsyncIterator[str]:
    """A request of *user* with both its slots; its account."""
    slot, holder = await node.user(user, WAIT_S, ahead=lambda: (accounts,))
    with slot, await node.account(holder, (accounts,), WAIT_S) as granted:
        yield granted.account
