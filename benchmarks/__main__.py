"""``python -m benchmarks``: measure, print a table, write it as JSON and SVG."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import goals, rivals, table
from benchmarks.measures import Bench, Scenario, bench, scenarios

OUT = Path(".cache/benchmark")


def main(words: list[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="scenarios that hold this text")
    parser.add_argument("--seconds", type=int, default=0, help="of each scenario")
    parser.add_argument("--scenarios-alone", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--programs", nargs="*", default=[], help="these alone")
    parser.add_argument("--install", action="store_true", help="the other gateways")
    args = parser.parse_args(words)
    if args.install:
        rivals.install()
        return 0
    if missing := [name for name in ("cc",) if not shutil.which(name)]:
        print(f"not found: {missing[0]} (Debian: gcc libc6-dev)", file=sys.stderr)
        return 1
    fitting = [
        _fitting(scenario, args.seconds, args.programs)
        for scenario in scenarios()
        if args.only in scenario.name
    ]
    chosen = [scenario for scenario in fitting if scenario.programs]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        with bench(Path(folder)) as running:
            results = running.rounds(chosen, args.rounds)
            single = {} if args.scenarios_alone else _single(running)
    text = "\n".join(
        [
            f"{table.machine()}; medians of {args.rounds} interleaved rounds on one "
            f"core, {time.monotonic() - begun:.0f} s in all",
            *goals.lines(results, single),
            *table.lines(results, single),
            "",
        ]
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(text)
    (args.out / "plot.svg").write_text(table.plot(results))
    kept = {"machine": table.machine(), "scenarios": results, "single": single}
    (args.out / "results.json").write_text(json.dumps(kept, indent=1))
    print(text)
    print(f"written to {args.out}/: table.md, results.json, plot.svg")
    return 0


def _fitting(scenario: Scenario, seconds: int, wanted: list[str]) -> Scenario:
    """*scenario* with those of *wanted* that are installed, and with *seconds*."""
    left_out = set(rivals.NAMES) - rivals.installed()
    if not shutil.which("nginx"):
        left_out |= {"nginx", "nginx-tls", "gateway-tls"}
    names = tuple(name for name in scenario.programs if name not in left_out)
    if wanted:
        names = tuple(name for name in names if name in wanted)
    return scenario._replace(programs=names, seconds=seconds or scenario.seconds)


def _single(running: Bench) -> dict[str, Any]:
    others = [name for name in ("nginx", "relay") if name in running.programs]
    names = [*others, "gateway"]
    return {
        "seconds from start to listening": running.starts("gateway", 5),
        "idle MB": running.memory_idle(),
        "MB per 1000 open streams": {n: running.memory_open(n, 1000) for n in names},
        "MB per 1000 queued requests": running.memory_queued(1000),
        "MB for 20 clients that stop reading 11 MB": {
            name: running.memory_stalled(name) for name in names
        },
        "100 clients that hang up": running.aborted("gateway"),
        "ms to a durable row, 100 endings/s": running.commits(),
    }


if __name__ == "__main__":
    sys.exit(main())
