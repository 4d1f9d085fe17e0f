"""
``python -m benchmarks.instructions``: what a request takes, in instructions.

Valgrind counts the instructions that the gateway and the bare relay run in user space,
each thread by itself. A count is the same on every machine and under any load, to a few
percent; it knows nothing of the kernel, of caches, or of waiting for the interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers, scripts, table
from benchmarks.ablation import CLIENTS, KINDS

WARM = 400
START_S = 60.0
HERE = Path(__file__).parent
TOTALS = re.compile(r"^thread: (\d+)$.*?^totals: (\d+)$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("relay", "gateway")


def main(words: list[str] | None = None) -> int:
    """Count, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--kinds", nargs="*", default=["stream", "whole"])
    parser.add_argument("--programs", nargs="*", default=PROGRAMS)
    args = parser.parse_args(words)
    if not shutil.which("valgrind"):
        print("valgrind is not installed", file=sys.stderr)
        return 1
    lines = table.head("thousands of instructions", "program", "loop", "other threads")
    with tempfile.TemporaryDirectory(prefix="gateway-instructions-") as name:
        folder = Path(name)
        peers.build(folder)
        upstream = peers.Upstream(folder)
        try:
            for kind in args.kinds:
                for program in args.programs:
                    counted = count(program, kind, args.requests, upstream, folder)
                    loop, others = (f"{one / 1000:.0f}" for one in counted)
                    lines.append(table.row(kind, program, loop, others))
        finally:
            upstream.stop()
    print("\n".join(lines))
    return 0


def count(
    program: str, kind: str, requests: int, upstream: peers.Upstream, folder: Path
) -> tuple[float, float]:
    """The instructions of a request: of the event loop's thread, and of all others."""
    port, out = peers.free_port(), folder / f"{program}-{kind.replace(' ', '-')}"
    out.mkdir()
    served = _start(program, port, upstream, out)
    try:
        send = _load_of(kind, port, upstream, folder)
        send(WARM)
        _control(served.pid, "-i", "on")
        send(requests)
        _control(served.pid, "-i", "off")
        _control(served.pid, "-d")
    finally:
        served.kill()
        served.wait()
    by_thread = totals([file.read_text(errors="replace") for file in out.glob("out*")])
    loop = by_thread.pop(1)
    return loop / requests, sum(by_thread.values()) / requests


def totals(dumps: list[str]) -> dict[int, int]:
    """The instructions by thread, of the *dumps* that callgrind writes."""
    found = [match for dump in dumps if (match := TOTALS.search(dump))]
    return {int(match[1]): int(match[2]) for match in found}


def _start(
    program: str, port: int, upstream: peers.Upstream, out: Path
) -> subprocess.Popen[bytes]:
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    command += ["--separate-threads=yes", f"--callgrind-out-file={out}/out"]
    if program == "relay":
        words = [str(HERE / "plain_relay.py"), str(port), str(upstream.port)]
    else:
        config = out / "config.toml"
        config.write_text(peers.config(port, upstream.port, tick_ms=0.0))
        words = ["-m", "benchmarks.ablation", "--serve", "nothing"]
        words += [str(port), str(config)]
    with open(out / "log", "wb") as log:
        served = subprocess.Popen(
            [*command, sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "BENCH_UPSTREAM_KEY": "sk-scripted"},
            cwd=HERE.parent,
        )
    begun = time.monotonic()
    while not peers.listens(port):
        if served.poll() is not None or time.monotonic() - begun > START_S:
            served.kill()
            raise RuntimeError(f"{program}: {(out / 'log').read_text()[-2000:]}")
        time.sleep(0.1)
    return served


def _load_of(kind: str, port: int, upstream: peers.Upstream, folder: Path) -> Any:
    """What sends so many requests of a *kind*; a bad answer ends the count."""
    what = {**KINDS[kind]}
    events, markers = what.pop("events"), scripts.PROTOCOLS["responses"]
    play = scripts.stream("responses", events) if events else None
    upstream.script(markers.path, play or scripts.whole("responses"))
    request = scripts.request("responses", peers.KEY, stream=events > 0, **what)

    def send(total: int) -> None:
        load = peers.load(
            port,
            request,
            folder,
            clients=CLIENTS,
            total=total,
            seconds=300,
            events=events,
            delta=markers.delta,
            end=markers.end,
        )
        if load["bad"] or load["good"] != total:
            raise RuntimeError(f"{kind}: {load}")

    return send


def _control(pid: int, *words: str) -> None:
    subprocess.run(
        ["callgrind_control", *words, str(pid)], check=True, capture_output=True
    )


if __name__ == "__main__":
    sys.exit(main())
