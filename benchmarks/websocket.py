"""
``python -m benchmarks.websocket``: what a websocket costs beside HTTP.

Two gateways serve the same answers, one from an account over HTTP, one from the same
account over websockets, to clients of both kinds. Rounds take turns, so other load of
the machine affects all alike; the figures are medians of the rounds, CPU is that of the
gateway's process, and an event is one read of it.

    CPU of an answer     of 6 events
    CPU of an event      of a longer answer, without what an answer costs
    first event          warm, with 1 kB of input, and with 400 kB of history
    an interrupt         from its message to ``response.incomplete``
    memory               of idle connections
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import peers
from benchmarks.peers import Program
from benchmarks.socket_peers import Account, PostClient, SocketClient

KINDS: dict[str, type[PostClient | SocketClient]] = {
    "POST": PostClient,
    "websocket": SocketClient,
}
ACCOUNTS = {"HTTP": "gateway", "websocket": "gateway-websocket"}
SHORT, LONG = 1, 401  # deltas of an answer
CLIENTS = 8
IDLE = 1000
HISTORY_BYTES = 400_000
IDENT = "resp_bench"

Samples = dict[str, list[float]]


def main(words: list[str] | None = None) -> int:
    """Measure, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.websocket")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--answers", type=int, default=400, help="short ones a round")
    parser.add_argument("--long", type=int, default=40, help="long answers a round")
    parser.add_argument("--interrupts", type=int, default=400)
    parser.add_argument("--idle", type=int, default=IDLE, help="connections")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="gateway-websocket-") as folder:
        figures = uvloop.run(measure(Path(folder), args))
    for name, value in figures.items():
        print(f"{name:<58}{value}")
    return 0


async def measure(folder: Path, args: argparse.Namespace) -> dict[str, str]:
    """All figures by name."""
    bench = SocketBench(folder)
    await bench.account.start()
    try:
        samples: Samples = {}
        for number in range(args.rounds + 1):
            found = await bench.round(args.answers, args.long, number % 2)
            for name, value in found.items() if number else ():  # the first warms up
                samples.setdefault(name, []).append(value)
        figures = _ratios({n: statistics.median(v) for n, v in samples.items()})
        figures |= await bench.first_events()
        if args.interrupts:
            figures |= await bench.interrupts(args.interrupts)
        for kind in KINDS if args.idle else ():
            name = f"MB for {args.idle} idle connections, {kind}"
            figures[name] = f"{await bench.idle_mb(kind, args.idle):.1f}"
        return figures
    finally:
        bench.stop()


def _ratios(medians: dict[str, float]) -> dict[str, str]:
    """Each figure, and how it stands to that of HTTP on both sides."""
    figures = {}
    for name, value in medians.items():
        what = name.partition(":")[0]
        ratio = value / medians[f"{what}: POST, account over HTTP"]
        figures[name] = f"{value:8.3f}  x {ratio:.2f}"
    return figures


def _spread(took: list[float]) -> str:
    """Median, 95th percentile and maximum in ms of a number of seconds."""
    took = sorted(one * 1e3 for one in took)
    p50, p95 = took[len(took) // 2], took[len(took) * 95 // 100]
    return f"p50 {p50:.1f}, p95 {p95:.1f}, max {took[-1]:.1f} of {len(took)}"


class SocketBench:
    """
    Args:
        folder: for the gateways, their files and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.account = Account()
        self._folder = folder
        self._running: dict[str, Program] = {}
        self._clients: dict[tuple[str, str], list[Any]] = {}

    def stop(self) -> None:
        """Stop the gateways."""
        for program in self._running.values():
            program.stop()

    async def _program(self, name: str) -> Program:
        if name not in self._running:
            self._running[name] = await asyncio.to_thread(
                peers.start, name, self.account, self._folder
            )
        return self._running[name]

    async def _open(self, account: str, kind: str) -> list[Any]:
        """Open connections of the clients; they stay open."""
        if (account, kind) not in self._clients:
            program = await self._program(ACCOUNTS[account])
            made = [KINDS[kind](self.account, f"{kind}{n}") for n in range(CLIENTS)]
            for client in made:
                await client.open(program.port)
            self._clients[account, kind] = made
        return self._clients[account, kind]

    # --- CPU ----------------------------------------------------------------------

    async def round(self, answers: int, long: int, backwards: int) -> dict[str, float]:
        """CPU of an answer in ms and of an event in µs, for every pair of sides."""
        found: dict[str, float] = {}
        pairs = [(account, kind) for account in ACCOUNTS for kind in KINDS]
        for account, kind in pairs[:: -1 if backwards else 1]:
            short_s = await self._cpu_s(account, kind, SHORT, answers)
            long_s = await self._cpu_s(account, kind, LONG, long)
            sides = f"{kind}, account over {account}"
            found[f"CPU of an answer, ms: {sides}"] = short_s * 1e3
            found[f"CPU of an event, us: {sides}"] = (
                (long_s - short_s) * 1e6 / (LONG - SHORT)
            )
        return dict(sorted(found.items()))

    async def _cpu_s(self, account: str, kind: str, deltas: int, count: int) -> float:
        """Seconds of CPU that one of *count* answers takes."""
        clients = await self._open(account, kind)
        program = self._running[ACCOUNTS[account]]
        self.account.answers.deltas = deltas
        before_s = program.exact_cpu_s()

        async def ask(client: Any, times: int) -> None:
            for _ in range(times):
                await client.ask([_message("Say it again.")])

        await asyncio.gather(*[ask(one, count // CLIENTS) for one in clients])
        await asyncio.sleep(0.1)  # rows that are written behind the answer
        return (program.exact_cpu_s() - before_s) / (count // CLIENTS * CLIENTS)

    # --- times --------------------------------------------------------------------

    async def first_events(self, times: int = 200) -> dict[str, str]:
        """The median wait for the first event in ms, in turns."""
        self.account.answers.deltas = SHORT
        took: Samples = {}
        sides = [(account, kind) for account in ACCOUNTS for kind in KINDS]
        long = [_message("x" * (HISTORY_BYTES // 100)) for _ in range(100)]
        for number in range(times):
            for account, kind in sides[:: 1 if number % 2 else -1]:
                client = (await self._open(account, kind))[0]
                where = f"{kind}, account over {account}"
                await client.ask([_message("x" * 1000)])
                name = f"first event, ms, 1 kB: {where}"
                took.setdefault(name, []).append(client.first_s)
                if number % 10:
                    continue
                name = f"first event, ms, 400 kB: {where}"
                await self._with_history(client, kind, long)
                took.setdefault(name, []).append(client.first_s)
        return {
            n: f"{statistics.median(v) * 1e3:8.2f}" for n, v in sorted(took.items())
        }

    async def _with_history(self, client: Any, kind: str, history: list[Any]) -> None:
        """Ask with a long *history*, which a websocket holds already."""
        more = {}
        if kind == "websocket":
            await client.ask(history)
            more = {"previous_response_id": IDENT}
            history = []
        await client.ask([*history, _message("and now?")], **more)

    async def interrupts(self, times: int) -> dict[str, str]:
        """
        How long an interrupt takes, by what the account speaks, and, between them, a
        message that needs no account, task or row: what is the machine's.
        """
        figures = {}
        for account in ACCOUNTS:
            client = (await self._open(account, "websocket"))[0]
            self.account.answers.deltas = LONG
            interrupts, others = [], []
            for _ in range(times):
                client.paced = False
                await client.ask([_message("Say it again.")])
                interrupts.append(await client.interrupt(IDENT))
                client.paced = True
                others.append(await client.answered())
            where = f"account over {account}"
            figures[f"an interrupt, ms: {where}"] = _spread(interrupts)
            figures[f"a message that needs nothing, ms: {where}"] = _spread(others)
        return figures

    # --- memory -------------------------------------------------------------------

    async def idle_mb(self, kind: str, count: int) -> float:
        """Megabytes for *count* idle connections that have asked for nothing."""
        program = await self._program("gateway")
        before_mb = program.memory_mb()
        clients = [KINDS[kind](self.account, f"idle{n}") for n in range(count)]
        for client in clients:
            await client.open(program.port)
        await asyncio.sleep(0.5)
        grown_mb = program.memory_mb() - before_mb
        for client in clients:
            client.close()
        await asyncio.sleep(0.5)
        return grown_mb


def _message(text: str) -> dict[str, Any]:
    part = {"type": "input_text", "text": text}
    return {"type": "message", "role": "user", "content": [part]}


if __name__ == "__main__":
    sys.exit(main())
