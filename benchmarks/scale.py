"""
``python -m benchmarks.scale``: several workers, the engine's cost, a thousand nodes.

    cores    CPU of one, two and four workers with as much load each, parent,
             workers and engine too
    engine   CPU of the admission of a request, and how long a slot takes from one
             process to another
    nodes    a thousand processes that are admission alone, on one real engine: exact?
             work-conserving? what does the engine use?
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from benchmarks import peers, scripts, table
from benchmarks.engine import TIMING, Engine, Load, binary, engine, request
from benchmarks.peers import Program, Upstream
from tests.kit.nodes import nodes

OUT = Path(".cache/benchmark")
CORES = ((1, False), (1, True), (2, False), (4, False))  # workers, with a shared engine
LOADS: dict[str, dict[str, int]] = {
    "one event": {"clients": 16, "events": 1, "rate": 0},
    "200 events, 50/s": {"clients": 100, "events": 200, "rate": 50},
}
HELD_S = (0.2, 1.8)  # a slot of a simulated node, from and to
Rows = list[dict[str, Any]]


def main(words: list[str] | None = None) -> int:
    """Measure, print and keep what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("parts", nargs="*", default=["cores", "engine", "nodes"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(words)
    if not binary():
        print("not found: valkey-server or redis-server", file=sys.stderr)
        return 1
    found: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory(prefix="gateway-scale-") as name:
        folder = Path(name)
        with engine(folder) as running:
            if "cores" in args.parts:
                found["cores"] = cores(folder, running, args.rounds, args.seconds)
            if "engine" in args.parts:
                found["engine"] = asyncio.run(engine_costs(running, args.seconds))
            if "nodes" in args.parts:
                found["nodes"] = asyncio.run(
                    many_nodes(running, args.nodes, args.seconds)
                )
    lines = [table.machine(), ""]
    for rows in found.values():
        lines += [*markdown(rows), ""]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scale.md").write_text("\n".join(lines))
    (args.out / "scale.json").write_text(json.dumps(found, indent=1))
    print("\n".join(lines))
    return 0


def markdown(rows: Rows) -> list[str]:
    """*rows* as a table."""
    heads = list(rows[0]) if rows else []
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def quantile(values: list[float], part: float) -> float:
    """A quantile of *values*, which are not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


# --- cores ----------------------------------------------------------------------------


def cores(folder: Path, shared: Engine, rounds: int, seconds: int) -> Rows:
    """CPU of one, two and four workers; the load grows with them."""
    peers.build(folder)
    upstream = Upstream(folder)
    programs: dict[str, tuple[int, Program]] = {}
    cpu: dict[tuple[str, str], list[float]] = {}
    try:
        for workers, on_engine in CORES:
            name = f"{workers} worker{'s' * (workers > 1)}{', engine' * on_engine}"
            url = shared.url if on_engine else ""
            program = _gateway(folder, upstream, workers, url)
            programs[name] = (workers, program)
        for number in range(rounds):
            for name, (workers, program) in sorted(
                programs.items(), reverse=bool(number % 2)
            ):
                for load in LOADS:
                    engine_s = shared.cpu_s if name.endswith("engine") else None
                    used = _load(
                        folder, upstream, program, workers, load, seconds, engine_s
                    )
                    cpu.setdefault((name, load), []).append(used)
    finally:
        for _, program in programs.values():
            program.stop()
        upstream.stop()
    return _cores_rows(programs, cpu)


def _cores_rows(
    programs: dict[str, tuple[int, Program]], cpu: dict[tuple[str, str], list[float]]
) -> Rows:
    rows: Rows = []
    first = next(iter(programs))
    for name, (workers, _) in programs.items():
        row: dict[str, Any] = {"gateway": name}
        for load in LOADS:
            used = statistics.median(cpu[name, load])
            alone = statistics.median(cpu[first, load])
            row[f"{load}: CPU ms a request"] = used
            row[f"{load}: x one worker"] = workers * alone / used
        rows.append(row)
    return rows


def config(port: int, upstream_port: int, workers: int, url: str) -> str:
    """The config of a gateway of *workers*, at the engine *url* unless it is empty."""
    text = peers.config(port, upstream_port)
    text = text.replace("[server]\n", f"[server]\nworkers = {workers}\n")
    return f'{text}[shared]\nurl = "{url}"\n' if url else text


def _gateway(folder: Path, upstream: Upstream, workers: int, url: str) -> Program:
    own = folder / f"gateway-{workers}{'-engine' * bool(url)}"
    own.mkdir()
    port = peers.free_port()
    text = config(port, upstream.port, workers, url)
    (own / "config.toml").write_text(text)
    command = [sys.executable, "-m", "gateway", "serve", "--config"]
    command.append(str(own / "config.toml"))
    return Program(own.name, command, port, "0-1", folder)


def _load(
    folder: Path,
    upstream: Upstream,
    program: Program,
    workers: int,
    load: str,
    seconds: int,
    engine_s: Callable[[], float] | None,
) -> float:
    """CPU milliseconds of everything for a request."""
    asked, markers = LOADS[load], scripts.PROTOCOLS["responses"]
    delay_us = 1_000_000 // asked["rate"] if asked["rate"] else 0
    script = scripts.stream("responses", asked["events"], delay_us=delay_us)
    upstream.script(markers.path, script)

    def used() -> float:
        return program.cpu_s() + (engine_s() if engine_s else 0.0)

    before_s = used()
    sample = peers.load(
        program.port,
        scripts.request("responses", peers.KEY),
        folder,
        clients=asked["clients"] * workers,
        seconds=seconds,
        ramp_ms=1000 if asked["rate"] else 0,
        events=asked["events"],
        delta=markers.delta,
        end=markers.end,
    )
    if sample["bad"]:
        raise RuntimeError(f"{load}: {sample['trouble']}\n{program.output()}")
    requests = (
        sample["events"] / asked["events"]
    )  # streams that still run count in part
    return 1000 * (used() - before_s) / max(1, requests)


# --- engine ---------------------------------------------------------------------------


async def engine_costs(running: Engine, seconds: float) -> Rows:
    """CPU of a request's admission, by how many are asked at once; the hand-off."""
    rows: Rows = []
    for at_once in (1, 32):
        limits = {"users": {"u": 0}, "accounts": {"a": 50}}
        async with nodes(running.url, 1, **limits, **TIMING) as [node]:
            count = 0
            until = time.monotonic() + seconds

            async def ask() -> None:
                nonlocal count
                while time.monotonic() < until:
                    async with request(node, "u", ("a",)):
                        count += 1

            own_s, engine_s = time.process_time(), running.cpu_s()
            await asyncio.gather(*(ask() for _ in range(at_once)))
            own_s, engine_s = time.process_time() - own_s, running.cpu_s() - engine_s
            rows.append(
                {
                    "admission of a request": f"{at_once} at once",
                    "worker, µs": 1e6 * own_s / count,
                    "engine, µs": 1e6 * engine_s / count,
                    "requests/s": count / seconds,
                }
            )
    waits = await _hand_offs(running, seconds)
    rows.append(
        {
            "admission of a request": f"hand-off between two, n {len(waits)}",
            "worker, µs": f"p50 {1e6 * quantile(waits, 0.5):.0f}",
            "engine, µs": f"p99 {1e6 * quantile(waits, 0.99):.0f}",
            "requests/s": f"most {1e6 * max(waits):.0f} µs",
        }
    )
    return rows


async def _hand_offs(running: Engine, seconds: float) -> list[float]:
    """From the release of a slot at one node until the other has it."""
    waits: list[float] = []
    released = 0.0
    until = time.monotonic() + seconds
    limits = {"users": {"u": 1}, "accounts": {"a": 1}}
    async with nodes(running.url, 2, **limits, **TIMING) as both:

        async def take_turns(number: int) -> None:
            nonlocal released
            while time.monotonic() < until:
                async with request(both[number], "u", ("a",)):
                    if released:
                        waits.append(time.monotonic() - released)
                    await asyncio.sleep(0.002)  # the other waits in line by now
                    released = time.monotonic()

        await asyncio.gather(take_turns(0), take_turns(1))
    return waits


# --- nodes ----------------------------------------------------------------------------


async def many_nodes(running: Engine, count: int, seconds: float) -> Rows:
    """*count* nodes, each user and account short of slots, service times at random."""
    users = {f"u{n}": 20 for n in range(50)}
    accounts = {f"a{n}": 40 for n in range(10)}
    chance, load = random.Random(1), Load({**users, **accounts})
    served, used_s = 0, 0.0
    limits = {"users": users, "accounts": accounts}
    async with nodes(running.url, count, **limits, **TIMING) as some:
        begun, engine_s, own_s = time.monotonic(), running.cpu_s(), time.process_time()
        until = begun + seconds

        async def client(user: str) -> None:
            nonlocal served, used_s
            while time.monotonic() < until:
                node = chance.choice(some)
                async with request(node, user, tuple(accounts)) as account:
                    with load.one(node, user, account):
                        since = time.monotonic()
                        await asyncio.sleep(chance.uniform(*HELD_S))
                        used_s += min(time.monotonic(), until) - min(since, until)
                    served += 1

        await asyncio.gather(*(client(user) for user in users for _ in range(20)))
        spent = time.monotonic() - begun
        engine_s, own_s = running.cpu_s() - engine_s, time.process_time() - own_s
        again = sum(len(node.joined_at) - 1 for node in some)
    slots = sum(accounts.values())
    above, unexplained = load.above()
    return [
        {
            "nodes": count,
            "requests": served,
            "names above their limit": above,
            "also without nodes declared dead": unexplained,
            "slots used while all wait": used_s / (slots * seconds),
            "joined again": again,
            "engine, part of a core": engine_s / spent,
            "nodes, part of a core": own_s / spent,
        }
    ]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    sys.exit(main())
