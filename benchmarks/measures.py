"""
What is measured, and how: scenarios in interleaved rounds, then the single measures.

Each round runs every program once, so other load of the machine affects all of them
alike. The ratios count, not the absolute numbers.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers, rivals, scripts
from benchmarks.peers import Program, Upstream
from benchmarks.scripts import PROTOCOLS

CROSS = [(a, b) for a in PROTOCOLS for b in PROTOCOLS if a != b]
ROUTERS = ("smg", "sglang-router")
SLOW = ("portkey", "litellm")
TLS = ("nginx-tls", "gateway-tls")
ALL = ("direct", "nginx", "relay", "gateway")

Sample = dict[str, Any]
Results = dict[str, dict[str, list[Sample]]]
"""Scenario, program, its rounds."""


class Scenario(NamedTuple):
    """
    Attributes:
        programs: what is measured, by name.
        protocol: of the client.
        upstream: of the account, if it is another one.
        rate: events a second of each stream, 0 = as fast as they are read.
        events: of each stream; 0: no stream.
        kib: of the request's body.
        items: of its conversation.
        key: of the user who asks.
    """

    name: str
    programs: tuple[str, ...] = ALL
    clients: int = 32
    protocol: str = "responses"
    upstream: str = ""
    rate: int = 0
    events: int = 1
    kib: int = 1
    items: int = 1
    key: str = peers.KEY
    seconds: int = 2


def scenarios() -> list[Scenario]:
    """All scenarios, in the order of the table."""
    paced = [
        Scenario(f"paced {c}", clients=c, rate=50, events=200, seconds=3)
        for c in (100, 300, 1000, 1500, 2000)
    ]
    paced[1] = paced[1]._replace(programs=(*ALL, "gateway-no-tick", *ROUTERS))
    for place in (3, 4):
        paced[place] = paced[place]._replace(programs=("gateway",))
    paced.append(paced[1]._replace(name="tls 300", programs=TLS))
    requests = [
        Scenario("one event", programs=(*ALL, "gateway-no-ledger", *ROUTERS)),
        Scenario("one event, 64 KiB", programs=("nginx", "relay", "gateway"), kib=64),
        Scenario("no stream", programs=(*ALL, *ROUTERS, *SLOW), events=0),
        Scenario("one event, 1 MiB", ("gateway",), 8, kib=1024, items=1500),
        Scenario("one slot of a user", ("gateway",), 8, rate=500, key=peers.QUEUE_KEY),
        Scenario("one slot of an account", ("gateway-one-slot",), 8, rate=500),
    ]
    full = [
        Scenario(
            f"full {name}",
            programs=("nginx", "relay", _gateway(name)),
            protocol=name,
            events=500,
        )
        for name in PROTOCOLS
    ]
    cross = [
        Scenario(f"full {a} over {b}", (_gateway(b),), 32, a, upstream=b, events=500)
        for a, b in CROSS
    ]
    return [*paced, *requests, *full, *cross]


def _gateway(protocol: str) -> str:
    return "gateway" if protocol == "responses" else f"gateway-{protocol}"


class Bench:
    """
    Args:
        folder: for the programs, their files and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        peers.build(folder)
        self.upstream = Upstream(folder)
        self._failed: set[str] = set()
        self.programs: dict[str, Program] = {}
        self.started_s: dict[str, list[float]] = {}

    def stop(self) -> None:
        """Stop every program."""
        for program in [*self.programs.values(), self.upstream]:
            program.stop()

    def program(self, name: str) -> Program:
        """The running program *name*."""
        if name == "direct":
            return self.upstream
        if name not in self.programs:
            self.programs[name] = peers.start(name, self.upstream, self.folder)
            self.started_s.setdefault(name, []).append(self.programs[name].start_s)
        return self.programs[name]

    # --- rounds -------------------------------------------------------------------

    def run(self, scenario: Scenario, name: str) -> Sample:
        """One round of *scenario* with the program *name*."""
        is_cold = name != "direct" and name not in self.programs
        program = self.program(name)
        if is_cold:
            self._warm(program)
        play = scenario.upstream or scenario.protocol
        self.upstream.script(PROTOCOLS[play].path, _script(scenario, play))
        before_s = program.cpu_s()
        sample = peers.load(
            program.port,
            _request(scenario, program.headers),
            self.folder,
            **_options(scenario),
        )
        sample["cpu_s"] = program.cpu_s() - before_s if name != "direct" else 0.0
        sample["gap_us"] = self.upstream.stats()["gap_us"]
        if sample["bad"]:
            trouble = f"{scenario.name}, {name}: {sample['trouble']}"
            raise RuntimeError(f"{trouble}\n{program.output()}")
        self.settle()
        return sample

    def settle(self, wait_s: float = 3.0) -> None:
        """Wait until the upstream is idle."""
        end = time.monotonic() + wait_s
        while self.upstream.stats()["active"] and time.monotonic() < end:
            time.sleep(0.02)

    def rounds(self, chosen: list[Scenario], rounds: int) -> Results:
        """*rounds* rounds of all of *chosen*, each with all its programs."""
        results: Results = {}
        for number in range(rounds):
            for scenario in chosen:
                names = scenario.programs[:: 1 if number % 2 else -1]
                for name in names:
                    if sample := self._maybe_run(scenario, name):
                        rows = results.setdefault(scenario.name, {})
                        rows.setdefault(name, []).append(sample)
        return results

    def _maybe_run(self, scenario: Scenario, name: str) -> Sample | None:
        """One round; a rival that fails in it takes no part any more."""
        if name in self._failed:
            return None
        try:
            return self.run(scenario, name)
        except RuntimeError as error:
            if name not in rivals.NAMES:
                raise
            print(f"left out from here on: {error}", file=sys.stderr)
            self._failed.add(name)
            return None

    # --- memory ---------------------------------------------------------------------

    def memory_open(self, name: str, count: int) -> float:
        """Megabytes for *count* streams that have started and are silent."""
        self._play(scripts.stream("responses", 2, delay_us=60_000_000))
        return self._growth(name, peers.KEY, count)

    def memory_idle(self) -> float:
        """Megabytes of the gateway before it has served more than a few requests."""
        return self._fresh("gateway").memory_mb()

    def memory_queued(self, count: int) -> float:
        """Megabytes of the gateway for *count* requests that wait for a slot."""
        self._play(scripts.stream("responses", 2, delay_us=60_000_000))
        return self._growth("gateway", peers.QUEUE_KEY, count)

    def memory_stalled(self, name: str, count: int = 20) -> float:
        """Megabytes for *count* clients that stop reading streams of 11 MB."""
        self._play(scripts.stream("responses", 50_000, a_write=16))
        return self._growth(name, peers.KEY, count, seconds=4, stall_ms=60_000)

    def _play(self, script: bytes) -> None:
        self.upstream.script(PROTOCOLS["responses"].path, script)

    def _growth(
        self, name: str, key: str, count: int, seconds: int = 5, **options: object
    ) -> float:
        program = self._fresh(name)
        before = program.memory_mb()
        peak = before
        process = peers.load_soon(
            program.port,
            scripts.request("responses", key),
            self.folder,
            clients=count,
            total=count,
            ramp_ms=1500,
            seconds=seconds,
            events=2,
            **options,
        )
        while process.poll() is None:
            peak = max(peak, program.memory_mb())
            time.sleep(0.1)
        process.communicate()
        self.settle()
        return peak - before

    def _fresh(self, name: str) -> Program:
        """*name*, restarted and warmed up."""
        if old := self.programs.pop(name, None):
            old.stop()
        program = self.program(name)
        warm = scripts.request("responses", peers.KEY)
        peers.load(program.port, warm, self.folder, clients=8, total=8, seconds=1)
        self._rest(program)
        return program

    def _rest(self, program: Program, wait_s: float = 15.0) -> None:
        """Wait until *program* has loaded what it loads while it serves already."""
        end, quiet, used_s = time.monotonic() + wait_s, 0, program.exact_cpu_s()
        while quiet < 4 and time.monotonic() < end:
            time.sleep(0.2)
            before_s, used_s = used_s, program.exact_cpu_s()
            quiet = quiet + 1 if used_s - before_s < 0.02 else 0

    def _warm(self, program: Program) -> None:
        """Let *program* load what it loads at its first requests."""
        for protocol, markers in PROTOCOLS.items():
            self.upstream.script(markers.path, scripts.stream(protocol, 2))
        for protocol in PROTOCOLS:
            warm = scripts.request(protocol, peers.KEY, headers=program.headers)
            peers.load(program.port, warm, self.folder, clients=8, total=8, seconds=2)
        self.settle()

    # --- single measures ------------------------------------------------------------

    def starts(self, name: str, times: int) -> float:
        """Median seconds from start to listening."""
        for _ in range(times):
            if old := self.programs.pop(name, None):
                old.stop()
            self.program(name)
        return statistics.median(self.started_s[name])

    def aborted(self, name: str, count: int = 100) -> dict[str, int]:
        """Streams that are still active after *count* clients hung up in theirs."""
        self._play(scripts.stream("responses", 500, delay_us=20_000))
        load = peers.load(
            self.program(name).port,
            scripts.request("responses", peers.KEY),
            self.folder,
            clients=count,
            total=count,
            seconds=4,
            events=500,
            delta=PROTOCOLS["responses"].delta,
            leave_after=20,
        )
        time.sleep(1.0)
        alive = self.upstream.stats()["active"]
        self.settle(15)
        return {"left": load["left"], "alive_1s_after": alive}

    def commits(self, seconds: int = 5) -> dict[str, float]:
        """How long a terminal event waits for the ledger at 100 a second, in ms."""
        program = self._fresh("gateway")
        os.sync()  # other programs' unwritten data would delay it
        self._play(scripts.stream("responses", 50, delay_us=20_000))
        peers.load(
            program.port,
            scripts.request("responses", peers.KEY),
            self.folder,
            clients=100,
            ramp_ms=1000,
            seconds=seconds,
            events=50,
            delta=PROTOCOLS["responses"].delta,
            end=PROTOCOLS["responses"].end,
        )
        text = program.ask("GET", "/metrics").decode()
        return {f"p{q}": _quantile(text, q / 100) for q in (50, 99)}


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """A Bench whose programs are stopped after the block."""
    made = Bench(folder)
    try:
        yield made
    finally:
        made.stop()


def _script(scenario: Scenario, protocol: str) -> bytes:
    if not scenario.events:
        return scripts.whole(protocol)
    delay_us = 1_000_000 // scenario.rate if scenario.rate else 0
    return scripts.stream(protocol, scenario.events, delay_us=delay_us)


def _request(scenario: Scenario, headers: Mapping[str, str]) -> bytes:
    return scripts.request(
        scenario.protocol,
        scenario.key,
        stream=scenario.events > 0,
        kib=scenario.kib,
        items=scenario.items,
        headers=headers,
    )


def _options(scenario: Scenario) -> dict[str, object]:
    markers = PROTOCOLS[scenario.protocol]
    ramp_ms = 1000 if scenario.rate else 0
    return {
        "clients": scenario.clients,
        "seconds": scenario.seconds + ramp_ms // 1000,
        "ramp_ms": ramp_ms,
        "skip_ms": ramp_ms,
        "events": scenario.events,
        "delta": markers.delta,
        "end": markers.end,
    }


def _quantile(metrics: str, quantile: float) -> float:
    """
    A quantile of the commit waits, in milliseconds, from their histogram's buckets.

    Between two bounds it is interpolated.
    """
    buckets: list[tuple[float, float]] = []
    for line in metrics.splitlines():
        if line.startswith("gateway_ledger_commit_seconds_bucket"):
            label, _, count = line.rpartition(" ")
            bound = label.partition('le="')[2].partition('"')[0]
            buckets.append((float(bound), float(count)))
    wanted = quantile * buckets[-1][1]
    low_s, low = 0.0, 0.0
    for bound_s, count in buckets:
        if count >= wanted:
            part = (wanted - low) / (count - low) if count > low else 1.0
            return 1000 * (low_s + part * (bound_s - low_s))
        low_s, low = bound_s, count
    return 1000 * low_s
