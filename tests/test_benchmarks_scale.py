"""The benchmark of several processes measures what it says; no speed is judged."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from benchmarks import handoff, scale
from benchmarks.engine import Engine, Load
from benchmarks.peers import free_port
from gateway.config.parse import parse
from tests.kit.engine import running_engine
from tests.kit.nodes import Node


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "HELD_S", (0.01, 0.05))


def test_the_engines_costs_and_many_nodes_are_measured(tmp_path: Path) -> None:
    with running_engine() as running:
        assert running._process is not None
        engine = Engine(running.url, running._process.pid)
        alone, crowd, hand_off = asyncio.run(scale.engine_costs(engine, 0.2))
        [many] = asyncio.run(scale.many_nodes(engine, 3, 1.0))
    assert alone["requests/s"] > 0 and crowd["engine, µs"] >= 0
    assert hand_off["admission of a request"].startswith("hand-off between two")
    assert 3 == many["nodes"] and many["requests"] > 0
    assert 0 <= many["slots used while all wait"] <= 1


def test_what_ran_at_a_node_declared_dead_explains_an_excess() -> None:
    node, late = (Node("unix:///none", "load") for _ in range(2))
    load = Load({"u": 1, "a": 0})
    with load.one(node, "u", "a"):
        pass
    assert (0, 0) == load.above()
    with load.one(late, "u", "a"), load.one(node, "u", "a"):
        assert (1, 1) == load.above()
        late.joined_at.append(time.monotonic())
    assert (1, 0) == load.above()


async def test_hand_offs_over_http_are_measured_at_the_account() -> None:
    """Here the clients ask it without a gateway."""
    port = free_port()
    gaps = await handoff._between([(port, port)] * 2, 5)
    assert len(gaps) >= 5 and gaps == sorted(gaps)


@pytest.mark.parametrize("url", ["", "unix:///run/engine.sock"])
def test_a_gateway_of_several_workers_has_a_config(url: str) -> None:
    text = scale.config(1, 2, 3, url)
    read = parse(text, lambda name: "a-secret-of-the-upstream")
    assert (3, url) == (read.server.workers, read.shared.url)


def test_rows_become_a_table() -> None:
    rows = [{"what": "x", "ms": 1.23456}, {"what": "y", "ms": 2.0}]
    assert scale.markdown(rows) == [
        "| what | ms |",
        "| --- | --- |",
        "| x | 1.23 |",
        "| y | 2 |",
    ]
    assert 3.0 == scale.quantile([1.0, 3.0, 2.0], 0.99)


def test_without_an_engine_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "binary", lambda: "")
    assert 1 == scale.main(["nodes", "--out", str(tmp_path)])
    assert "redis-server" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_keeps_what_it_measured(tmp_path: Path) -> None:
    with running_engine():  # skips where there is none
        words = ["nodes", "--nodes", "2", "--seconds", "1", "--out", str(tmp_path)]
        assert 0 == scale.main(words)
    [row] = json.loads((tmp_path / "scale.json").read_text())["nodes"]
    assert 2 == row["nodes"]
    assert "| nodes |" in (tmp_path / "scale.md").read_text()
