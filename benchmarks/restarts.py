"""
Rolling restarts under load: is anything refused, cut, lost, or above a limit?

    python -m benchmarks.restarts [--workers N] [--count RESTARTS]

A real gateway before a scripted upstream that counts. Some clients keep their
connections, others open one for each request; one answer in eight streams for seconds,
so several generations of processes finish at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit import answers, endings, plays, settings
from tests.kit.answer import Answer
from tests.kit.asking import Client
from tests.kit.daemon import Daemon, running
from tests.kit.scripted import ScriptedUpstream

LIMIT = 6  # of each account
RESTART_S = 120.0
LONG = Answer(pieces=("word ",) * 60)
TEXTS = {"long": LONG.text, "short": Answer().text}
CLIENTS = 16  # half of them with a new connection for each request
CONFIG: dict[str, Any] = {
    "users": [settings.user("alice", max_concurrent=0)],
    "limits": {"queue_timeout_s": 120.0, "max_queued": 1000},
}


@dataclass
class Found:
    """
    What was seen.

    Attributes:
        whole: ids of the requests whose answer was.
        bad: the others, by what came instead.
        restarts_s: how long each restart took.
    """

    whole: list[str] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)
    restarts_s: list[float] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    def lines(self) -> list[str]:
        """As text."""
        ordered = sorted(self.restarts_s)
        return [
            f"{len(ordered)} restarts, each {ordered[len(ordered) // 2]:.2f} s at the"
            f" median, {ordered[-1]:.2f} s at most",
            f"{len(self.whole)} answers whole; others: {dict(self.bad) or 'none'}",
            f"rows: {dict(self.rows)}; of whole answers without one: {self.lost}",
            f"most at once: {self.most}, where {LIMIT} may",
        ]


async def measure(folder: Path, workers: int, count: int) -> Found:
    """Restart a gateway *count* times."""
    found, over = Found(), asyncio.Event()
    async with ScriptedUpstream(default=plays.ok(interval_s=0.02)) as upstream:
        accounts = [
            settings.account(upstream, name, max_concurrent=LIMIT)
            for name in answers.PROTOCOLS
        ]
        for name in answers.PROTOCOLS:
            long = plays.ok(LONG, interval_s=0.05)
            upstream.always(long, model=f"{name}-long")
        config = {**CONFIG, "server": {"workers": workers}}
        async with running(folder, accounts, **config) as daemon:
            asking = [
                asyncio.ensure_future(_ask(daemon, number, found, over))
                for number in range(CLIENTS)
            ]
            for _ in range(count):
                found.restarts_s.append(await _restart(daemon))
            over.set()
            await asyncio.gather(*asking)
        found.most = {name: upstream.most_served(name) for name in answers.PROTOCOLS}
    _read_rows(folder, found)
    return found


async def _ask(daemon: Daemon, number: int, found: Found, over: asyncio.Event) -> None:
    """One client."""
    connector = aiohttp.TCPConnector(force_close=bool(number % 2))
    async with aiohttp.ClientSession(connector=connector) as session:
        client = Client(daemon.base_url, settings.key_of("alice"), session)
        turn = number
        while not over.is_set():
            protocol, turn = answers.PROTOCOLS[turn % 3], turn + 1
            kind = "long" if turn % 8 == 0 else "short"
            try:
                reply = await client.ask(protocol, f"{protocol}-{kind}")
            except aiohttp.ClientError as error:
                found.bad[type(error).__name__] += 1
                continue
            try:
                endings.whole(protocol, reply, TEXTS[kind])
            except AssertionError:
                cut = "cut" if reply.status == 200 else f"status {reply.status}"
                found.bad[cut] += 1
            else:
                found.whole.append(reply.request_id)


async def _restart(daemon: Daemon) -> float:
    """The seconds that it took until all new processes served."""
    begun, before = time.monotonic(), len(daemon.log.events("server.restarted"))
    daemon.process.send_signal(signal.SIGUSR2)
    async with asyncio.timeout(RESTART_S):
        while len(daemon.log.events("server.restarted")) == before:
            if failed := daemon.log.events("restart.failed"):
                raise RuntimeError(str(failed))
            await asyncio.sleep(0.02)
    return time.monotonic() - begun


def _read_rows(folder: Path, found: Found) -> None:
    with sqlite3.connect(folder / "gateway.db") as ledger:
        rows = dict(ledger.execute("SELECT request_id, outcome FROM request"))
    ledger.close()
    found.rows = Counter(rows.values())
    found.lost = sum(rows.get(one) != "ok" for one in found.whole)


def main(words: Sequence[str] | None = None) -> None:
    """Restart, and say what was seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restarts")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="gateway-restarts-") as folder:
        found = asyncio.run(measure(Path(folder), args.workers, args.count))
    print("\n".join(found.lines()))


if __name__ == "__main__":
    main()
