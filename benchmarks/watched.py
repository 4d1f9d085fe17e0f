"""
``python -m benchmarks.watched``: what it costs that operators look.

Two gateways serve the same load of 10 000 requests a minute. One is left alone, the
other has 20 slow readers of its events and an open page, which asks for the view Now as
often as its script does. Rounds take turns, so other load of the machine affects both.

    CPU of a request        watched against left alone
    time to whole answers   the same
    memory                  of the watched one, before its readers and at most
    a day                   as many events as a day has, read by one reader to the end
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers, scripts
from benchmarks.measures import Bench

NAMES = ("gateway-alone", "gateway-watched")
SLOW_READERS = 20
A_MINUTE = 10_000
CLIENTS = 50
BYTES_S = 2000  # that a slow reader takes
REST_FACTOR = 25  # as in page.js
REST_S_A_RATE = 0.06
DAY_EVENTS = 100_000


def main(words: list[str] | None = None) -> int:
    """Measure, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watched")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=20, help="of each round")
    parser.add_argument("--day", type=int, default=DAY_EVENTS, help="events of a day")
    parser.add_argument("--watch", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.watch:
        asyncio.run(watch(args.watch))
        return 0
    with tempfile.TemporaryDirectory(prefix="gateway-watched-") as folder:
        running = Bench(Path(folder))
        try:
            figures = measure(running, args.rounds, args.seconds, args.day)
        finally:
            running.stop()
    for name, value in figures.items():
        print(f"{name:<52}{value}")
    return 0


def measure(running: Bench, rounds: int, seconds: int, day: int) -> dict[str, Any]:
    """All figures by name."""
    path = scripts.PROTOCOLS["responses"].path
    delay_us = int(CLIENTS * 60e6 / A_MINUTE)
    running.upstream.script(path, scripts.stream("responses", 1, first_us=delay_us))
    for name in NAMES:
        _round(running, name, 3)
        _round(running, name, seconds)  # what a process grows to at first
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    watched = running.programs[NAMES[1]]
    before_mb, peak_mb = watched.memory_mb(), 0.0
    socket = running.folder / NAMES[1] / "admin.sock"
    watcher = _watcher(socket)
    try:
        time.sleep(1.0)
        for number in range(rounds):
            for name in NAMES[:: 1 if number % 2 else -1]:
                samples[name].append(_round(running, name, seconds))
            peak_mb = max(peak_mb, watched.memory_mb())
    finally:
        watcher.terminate()
        counted, _ = watcher.communicate()
    alone, seen = (_medians(samples[name]) for name in NAMES)
    figures: dict[str, Any] = {
        "requests a minute": round(seen["a_minute"]),
        "CPU of a request, left alone, ms": round(alone["cpu_ms"], 3),
        "CPU of a request, watched, ms": round(seen["cpu_ms"], 3),
        "more CPU of the process, ms a second": round(
            (seen["cpu_ms"] - alone["cpu_ms"]) * seen["a_minute"] / 60, 1
        ),
        "answer p50 and p99, left alone, ms": _times(alone),
        "answer p50 and p99, watched, ms": _times(seen),
        "memory before and at most, MB": f"{before_mb:.1f}, {peak_mb:.1f}",
        "watchers": counted.decode().strip(),
    }
    if day:
        before_mb = watched.memory_mb()
        figures["events of a day"] = _day(running, socket, day)
        figures["memory before and after the day, MB"] = (
            f"{before_mb:.1f}, {watched.memory_mb():.1f}"
        )
    return figures


def _round(running: Bench, name: str, seconds: int) -> dict[str, float]:
    program = running.program(name)
    before_s, began = program.cpu_s(), time.monotonic()
    request = scripts.request("responses", peers.KEY)
    options = {"clients": CLIENTS, "seconds": seconds, "events": 1, "ramp_ms": 300}
    markers = scripts.PROTOCOLS["responses"]
    result = peers.load(
        program.port,
        request,
        running.folder,
        delta=markers.delta,
        end=markers.end,
        **options,
    )
    if result["bad"]:
        raise RuntimeError(f"{result['trouble']}\n{program.output()}")
    took_s, answers = time.monotonic() - began, result["answer_us"]
    return {
        "cpu_ms": (program.cpu_s() - before_s) * 1000 / result["good"],
        "a_minute": result["good"] * 60 / took_s,
        "p50": answers["p50"] / 1000,
        "p99": answers["p99"] / 1000,
    }


def _medians(samples: list[dict[str, float]]) -> dict[str, float]:
    return {
        name: statistics.median(one[name] for one in samples) for name in samples[0]
    }


def _times(sample: dict[str, float]) -> str:
    return f"{sample['p50']:.1f}, {sample['p99']:.1f}"


# --- those that look ------------------------------------------------------------------


def _watcher(socket: Path) -> subprocess.Popen[bytes]:
    """They run on the core of the tools."""
    words = [sys.executable, "-m", "benchmarks.watched", "--watch", str(socket)]
    return subprocess.Popen(
        [*peers.on_core(peers.TOOL_CORE), *words],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )


async def watch(socket: str) -> None:
    """Look until the signal to stop; then print how often."""
    counts = {"pages": 0, "cut": 0, "resumed": 0}
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()
    loop.add_signal_handler(15, lambda: stopped.done() or stopped.set_result(None))
    tasks = [asyncio.create_task(_slow(socket, counts)) for _ in range(SLOW_READERS)]
    tasks.append(asyncio.create_task(_page(socket, counts)))
    tasks.append(asyncio.create_task(_quick(socket)))
    await stopped
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(counts))


async def _slow(socket: str, counts: dict[str, int]) -> None:
    """Read the events slowly; come back when cut, as a browser does."""
    last_id = b""
    while True:
        reader, writer = await _ask(socket, "/api/v1/events", last_id)
        try:
            while data := await reader.read(BYTES_S):
                for line in data.split(b"\n"):
                    if line.startswith(b"id: ") and len(line) > 12:
                        last_id = line[4:].strip()
                await asyncio.sleep(1.0)
        except OSError:
            pass
        counts["cut"] += 1
        counts["resumed"] += bool(last_id)
        writer.close()
        await asyncio.sleep(1.0)


async def _page(socket: str, counts: dict[str, int]) -> None:
    """Ask for the view Now as often as its script does while much happens."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        reader, writer = await _ask(socket, "/", close=True)
        await reader.read()
        writer.close()
        counts["pages"] += 1
        took_s = loop.time() - began
        rest_s = max(REST_FACTOR * took_s, REST_S_A_RATE * A_MINUTE / 60)
        await asyncio.sleep(max(1.0, min(15.0, rest_s)))


async def _quick(socket: str) -> None:
    """The events of that page."""
    reader, _ = await _ask(socket, "/api/v1/events")
    while await reader.read(1 << 16):
        pass


async def _ask(
    socket: str, path: str, last_id: bytes = b"", close: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(socket, limit=4096)
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
    if last_id:
        head += b"Last-Event-ID: " + last_id + b"\r\n"
    if close:
        head += b"Connection: close\r\n"
    writer.write(head + b"\r\n")
    return reader, writer


# --- a day ----------------------------------------------------------------------------


def _day(running: Bench, socket: Path, count: int) -> str:
    """Let one reader read *count* events while requests end as fast as they can."""
    path = scripts.PROTOCOLS["responses"].path
    running.upstream.script(path, scripts.stream("responses", 1))
    began, read = time.monotonic(), 0
    while read < count:
        load = peers.load_soon(
            running.programs[NAMES[1]].port,
            scripts.request("responses", peers.KEY),
            running.folder,
            clients=16,
            seconds=20,
            events=1,
        )
        read += asyncio.run(_read_events(str(socket), load))
        load.communicate()
    return f"{read} in {time.monotonic() - began:.0f} s"


async def _read_events(socket: str, load: subprocess.Popen[bytes]) -> int:
    """The events until *load* is over."""
    reader, writer = await _ask(socket, "/api/v1/events")
    count, loop = 0, asyncio.get_running_loop()
    ended = loop.run_in_executor(None, load.wait)
    while not ended.done():
        try:
            async with asyncio.timeout(1.0):
                data = await reader.read(1 << 16)
        except TimeoutError:
            continue
        if not data:
            reader, writer = await _ask(socket, "/api/v1/events")
        count += data.count(b"\nevent: ")
    writer.close()
    return count


if __name__ == "__main__":
    sys.exit(main())
