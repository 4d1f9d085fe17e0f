"""
``python -m benchmarks.ablation``: what each layer of a request costs.

A gateway serves with one layer taken out at a time, in interleaved rounds: the
difference to the whole is that layer's cost. Counted are the calls of Python functions
and of built-ins, which are the same on every machine, and CPU time of the process,
which is not.

Each gateway is one process, without its parent; the tools are those of ``benchmarks``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import peers, scripts, table
from benchmarks.layers import LAYERS

CLIENTS = 32
REQUESTS = 3000
COUNTED = 200
COUNTED_CLIENTS = 3  # fewer than would slow an answer until its row is written twice
WARM = 60
KINDS: dict[str, dict[str, Any]] = {
    "stream": {"events": 1},
    "whole": {"events": 0},
    "1 MiB": {"events": 1, "kib": 1024, "items": 1500},
}
HERE = Path(__file__).parent
Figures = dict[str, list[float]]


def main(words: list[str] | None = None) -> int:
    """Measure, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of a round")
    parser.add_argument("--kinds", nargs="*", default=["stream", "whole"])
    parser.add_argument("--layers", nargs="*", default=list(LAYERS))
    parser.add_argument("--functions", type=int, default=0, help="the most called")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.serve:
        layer, port, config = args.serve
        LAYERS[layer]()
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(int(port), Path(config), args.count))
        return 0
    with tempfile.TemporaryDirectory(prefix="gateway-ablation-") as name:
        bench = Ablation(Path(name))
        try:
            for kind in args.kinds:
                if args.functions:
                    bench.print_functions(kind, args.functions)
                else:
                    bench.print_table(kind, args.layers, args.rounds, args.requests)
        finally:
            bench.upstream.stop()
    return 0


class Ablation:
    """
    Args:
        folder: for the programs and their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        peers.build(folder)
        self.upstream = peers.Upstream(folder)

    def print_table(
        self, kind: str, layers: list[str], rounds: int, requests: int
    ) -> None:
        """One row for each of *layers*; without rounds its calls alone."""
        calls = {name: self.calls(kind, name)["calls"] for name in layers}
        figures = self._cpu(kind, layers, rounds, requests) if rounds else {}
        print("\n".join(_rows(kind, calls, figures)), flush=True)

    def _cpu(self, kind: str, layers: list[str], rounds: int, requests: int) -> Figures:
        """Microseconds of a request in each round, by layer."""
        running = {name: Served(self, name) for name in layers}
        figures: Figures = {name: [] for name in layers}
        try:
            for served in running.values():
                served.measure(kind, WARM)
            for number in range(rounds):
                for name in layers[:: 1 if number % 2 else -1]:
                    cpu_s = running[name].measure(kind, requests)["cpu_s"]
                    figures[name].append(cpu_s / requests * 1e6)
        finally:
            for served in running.values():
                served.stop()
        return figures

    def calls(self, kind: str, layer: str) -> dict[str, Any]:
        """The calls of a request, in all and by function."""
        served = Served(self, layer, count=True)
        try:
            served.measure(kind, WARM)
            found = served.measure(kind, COUNTED, COUNTED_CLIENTS)
        finally:
            served.stop()
        by_name = {name: n / COUNTED for name, n in found["functions"].items()}
        return {"calls": sum(by_name.values()), "functions": by_name}

    def print_functions(self, kind: str, most: int) -> None:
        """The functions that a request calls most often."""
        found = self.calls(kind, "nothing")
        print(f"{kind}: {found['calls']:.1f} calls")
        for name, count in Counter(found["functions"]).most_common(most):
            print(f"{count:8.2f}  {name}")


class Served:
    """
    One gateway.

    Args:
        layer: what it serves without.
        count: whether it counts calls.
    """

    def __init__(self, bench: Ablation, layer: str, *, count: bool = False) -> None:
        self._bench = bench
        self._port = peers.free_port()
        folder = bench.folder / f"{layer}{'-counted' * count}".replace(" ", "-")
        folder.mkdir(exist_ok=True)
        config = folder / "config.toml"
        facts: dict[str, object] = {"port": self._port, "upstream": bench.upstream.port}
        facts |= {"scheme": "http", "coalesce_ms": 0.0, "protocol": "responses"}
        facts["slots"] = peers.MANY_SLOTS
        key = hashlib.sha256(peers.KEY.encode()).hexdigest()
        config.write_text(peers.CONFIG.format(**facts, key=key, queue_key="0" * 64))
        words = [sys.executable, "-m", "benchmarks.ablation", "--serve", layer]
        words += [str(self._port), str(config), *["--count"] * count]
        with open(folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*peers.on_core(peers.TEST_CORE), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "BENCH_UPSTREAM_KEY": "sk-scripted"},
                cwd=HERE.parent,
            )
        assert self._process.stdout and self._process.stdout.readline(), layer

    def measure(
        self, kind: str, requests: int, clients: int = CLIENTS
    ) -> dict[str, Any]:
        """What *requests* of them cost."""
        what = KINDS[kind]
        events, markers = what["events"], scripts.PROTOCOLS["responses"]
        play = scripts.stream("responses", events) if events else None
        self._bench.upstream.script(markers.path, play or scripts.whole("responses"))
        rest = {name: value for name, value in what.items() if name != "events"}
        request = scripts.request("responses", peers.KEY, stream=events > 0, **rest)
        self._ask("begin")
        load = peers.load(
            self._port,
            request,
            self._bench.folder,
            clients=clients,
            total=requests,
            seconds=60,
            events=events,
            delta=markers.delta,
            end=markers.end,
        )
        found = self._ask("end")
        if load["bad"] or load["good"] != requests:
            raise RuntimeError(f"{kind}: {load}")
        return found

    def _ask(self, word: str) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.communicate()


def _rows(kind: str, calls: Mapping[str, float], figures: Figures) -> list[str]:
    """The table; a layer's part is the difference to the first row."""
    whole, whole_us = next(iter(calls.values())), next(iter(figures.values()), [])
    names = ("calls", "its part") + ("CPU µs", "its part") * bool(figures)
    lines = table.head(f"{kind}, without", *names)
    for name, count in calls.items():
        cells: list[object] = [name, f"{count:.0f}", f"{whole - count:.0f}"]
        if values := figures.get(name):
            gain = statistics.median(a - b for a, b in zip(whole_us, values))
            cells += [f"{statistics.median(values):.0f}", f"{gain:.0f}"]
        lines.append(table.row(*cells))
    return lines


# --- in the process that serves -------------------------------------------------------


def loop_factory() -> Any:
    """The event loop of the daemon."""
    import uvloop

    return uvloop.new_event_loop


class CallCounter:
    """Counts calls in all threads while it is on."""

    def __init__(self) -> None:
        self.functions: Counter[Any] = Counter()
        self.on = False

    def install(self) -> None:
        """See every call from now on, in threads that begin later, too."""
        threading.setprofile(self._saw)
        sys.setprofile(self._saw)

    def _saw(self, frame: FrameType, event: str, what: Any) -> None:
        if not self.on:
            return
        if event == "call":
            self.functions[frame.f_code] += 1
        elif event == "c_call":
            self.functions[what.__qualname__, frame.f_code] += 1

    def found(self) -> dict[str, int]:
        """Counts by name."""
        return {
            (
                f"{what[0]} in {_name(what[1])}"
                if isinstance(what, tuple)
                else _name(what)
            ): count
            for what, count in self.functions.items()
        }


def _name(code: Any) -> str:
    path = Path(code.co_filename)
    return f"{path.parent.name}/{path.name}:{code.co_firstlineno} {code.co_qualname}"


async def serve(port: int, config: Path, count: bool) -> None:
    """Serve *config*; what was used is asked for by ``begin`` and ``end`` on stdin."""
    from aiohttp import web

    from gateway.config.load import load_served
    from gateway.daemon.app import build_app, build_runner, components_of
    from gateway.daemon.process import tune_garbage_collection
    from gateway.telemetry import log

    counter = CallCounter()
    if count:
        counter.install()
    out, sys.stdout = sys.stdout, open(config.parent / "log.json", "w")
    log.set_up("info", "json")
    app = await build_app(load_served(config).config, config.parent)
    runner = await build_runner(app, 1.0)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await components_of(app).price_list.warm_up()
    tune_garbage_collection()
    began = [0.0]

    def answer() -> None:
        word = sys.stdin.readline().strip()
        if not word:
            os._exit(0)
        facts: dict[str, Any] = {}
        if word == "begin":
            counter.functions.clear()
            counter.on, began[0] = count, time.process_time()
        else:
            counter.on = False
            facts = {"cpu_s": time.process_time() - began[0]}
            facts["functions"] = counter.found()
        print(json.dumps(facts), file=out, flush=True)

    asyncio.get_running_loop().add_reader(sys.stdin, answer)
    print("ready", file=out, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
