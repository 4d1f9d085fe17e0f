"""The benchmark's own tools run and find broken answers; no speed is judged."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import goals, instructions, peers, scripts, table
from benchmarks.__main__ import main
from benchmarks.ablation import Ablation, CallCounter, Served
from benchmarks.layers import LAYERS
from benchmarks.measures import Bench, Scenario, _quantile
from benchmarks.scripts import PROTOCOLS

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and Path("/proc/self/smaps_rollup").exists()),
    reason="the benchmark's tools need a C compiler and Linux",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.stop()


def ask(bench: Bench, protocol: str, script: bytes, events: int) -> dict[str, object]:
    """Two requests straight to the upstream that plays *script*."""
    markers = PROTOCOLS[protocol]
    bench.upstream.script(markers.path, script)
    return peers.load(
        bench.upstream.port,
        scripts.request(protocol, peers.KEY),
        bench.folder,
        clients=2,
        total=2,
        seconds=10,
        events=events,
        delta=markers.delta,
        end=markers.end,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_whole_stream_is_good(bench: Bench, protocol: str) -> None:
    counts = ask(bench, protocol, scripts.stream(protocol, 20, a_write=3), 20)
    assert (2, 0, 40) == (counts["good"], counts["bad"], counts["events"])


def _without(script: bytes, index: int) -> bytes:
    """*script* with another index in place of one: lost, and another twice."""
    return script.replace(b"@%06d" % index, b"@%06d" % (index + 1))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(scripts.stream("chat", 19), id="one-event-short"),
        pytest.param(scripts.stream("chat", 21), id="one-event-more"),
        pytest.param(_without(scripts.stream("chat", 20), 7), id="out-of-order"),
        pytest.param(
            scripts.stream("chat", 20).replace(b"[DONE]", b"[NONE]"), id="no-terminal"
        ),
    ],
)
def test_a_broken_stream_is_bad(bench: Bench, script: bytes) -> None:
    counts = ask(bench, "chat", script, 20)
    assert (0, 2) == (counts["good"], counts["bad"])


SMALL = Scenario("paced 4", ("direct", "relay", "gateway"), 4, events=3, seconds=1)
ROUND = [
    SMALL,
    SMALL._replace(
        name="no stream", programs=("gateway", "gateway-no-ledger"), events=0
    ),
    SMALL._replace(
        name="converted",
        programs=("gateway-chat",),
        protocol="messages",
        upstream="chat",
    ),
]


def test_a_round_measures_every_program(bench: Bench) -> None:
    results = bench.rounds(ROUND, 1)
    for scenario in ROUND:
        assert set(scenario.programs) == set(results[scenario.name])
        for rows in results[scenario.name].values():
            assert rows[0]["good"] > 0
            assert rows[0]["bad"] == 0


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx speaks TLS there")
def test_an_upstream_may_be_reached_by_tls(bench: Bench) -> None:
    by_tls = SMALL._replace(name="tls", programs=("gateway-tls", "nginx-tls"))
    [rows] = bench.rounds([by_tls], 1).values()
    assert all(sample["good"] and not sample["bad"] for [sample] in rows.values())


def test_a_gateway_may_be_without_its_ledger(bench: Bench) -> None:
    bench.rounds([SMALL._replace(programs=("gateway", "gateway-no-ledger"))], 1)
    rows = {}
    for name in ("gateway", "gateway-no-ledger"):
        with sqlite3.connect(bench.folder / name / "ledger.db") as ledger:
            rows[name] = ledger.execute("select count(*) from request").fetchone()[0]
    assert rows["gateway"] > 0
    assert rows["gateway-no-ledger"] == 0


def test_streams_of_clients_that_hang_up_are_seen_to_end(bench: Bench) -> None:
    counts = bench.aborted("gateway", 3)
    assert {"left": 3, "alive_1s_after": 0} == counts


def test_the_command_writes_table_json_and_plot(tmp_path: Path) -> None:
    words = ["--only", "full chat over m", "--rounds", "1", "--seconds", "1"]
    assert 0 == main([*words, "--scenarios-alone", "--out", str(tmp_path)])
    kept = json.loads((tmp_path / "results.json").read_text())
    assert ["full chat over messages"] == list(kept["scenarios"])
    assert "gateway-messages |" in (tmp_path / "table.md").read_text()
    assert "</svg>" in (tmp_path / "plot.svg").read_text()


def sample(cpu_s: float) -> dict[str, object]:
    times = {"p50": 1000, "p99": 2000}
    return {
        "cpu_s": cpu_s,
        "events": 1000,
        "good": 10,
        "elapsed_s": 1.0,
        "first_us": times,
        "event_us": times,
    }


@pytest.mark.parametrize(
    ("cpu_s", "reached"), [(0.08, "aim"), (0.12, "must"), (0.2, "missed")]
)
def test_a_goal_says_what_was_reached(cpu_s: float, reached: str) -> None:
    programs = {"relay": [sample(0.1)], "gateway": [sample(cpu_s)]}
    lines = goals.lines({"one event": programs}, {})

    assert [f"| ≤ 1.2 | ≤ 0.9 | {cpu_s * 10:.2f} | {reached} |"] == [
        line.partition("x relay ")[2] for line in lines if "one event" in line
    ]


def test_goals_are_left_out_that_were_not_measured() -> None:
    assert len(goals.lines({}, {})) == len(table.head("goal"))


def test_more_is_better_for_some_goals() -> None:
    goal = goals.Goal("x", 250, 800, lambda results, single: 0.0, more=True)

    assert ["aim", "must", "missed"] == [goal.reached(n) for n in (800, 300, 100)]


def test_the_ratio_of_two_programs_is_in_the_table() -> None:
    results = {"paced 1": {"relay": [sample(0.1)], "gateway": [sample(0.2)]}}
    row = next(line for line in table.lines(results, {}) if "| gateway |" in line)
    assert 2 == table.plot(results).count("<polyline")
    assert (
        "| 1 | gateway | 1000 | 200.0 | - | 2.00 | 1.00 / 2.00 | 1.00 / 2.00 |" == row
    )


def test_a_quantile_is_read_from_a_histogram() -> None:
    name = "gateway_ledger_commit_seconds_bucket"
    text = f'{name}{{le="0.01"}} 50\n{name}{{le="0.02"}} 100\n{name}{{le="+Inf"}} 100\n'
    assert 10.0 == pytest.approx(_quantile(text, 0.5))
    assert 15.0 == pytest.approx(_quantile(text, 0.75))


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ablation]:
    made = Ablation(tmp_path_factory.mktemp("ablation"))
    yield made
    made.upstream.stop()


@pytest.mark.parametrize("layer", LAYERS)
def test_requests_are_answered_without_a_layer(ablation: Ablation, layer: str) -> None:
    """A name that the gateway has no more fails at once."""
    served = Served(ablation, layer)
    try:
        assert served.measure("stream", 2)["cpu_s"] > 0
    finally:
        served.stop()


def test_calls_are_counted_by_who_makes_them() -> None:
    counter = CallCounter()

    def asked() -> int:
        return len([])

    before = sys.getprofile()
    counter.install()
    try:
        asked()
        counter.on = True
        asked()
        counter.on = False
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
        sys.setprofile(before)

    counts = {name.rpartition(" ")[2]: n for name, n in counter.found().items()}
    own = f"{test_calls_are_counted_by_who_makes_them.__name__}.<locals>.asked"
    assert counts == {own: 1}
    assert sum(counter.functions.values()) == 2


def test_instructions_are_read_by_thread() -> None:
    dump = "version: 1\nthread: {}\nevents: Ir\nfn=(1) f\n+3 5\ntotals: {}\n"
    dumps = ["", dump.format(1, 70), dump.format(4, 8), "thread: 5\nno totals"]

    assert {1: 70, 4: 8} == instructions.totals(dumps)
