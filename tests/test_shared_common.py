"""Limits, places, and what the nodes know in common: marks, budgets, sessions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from gateway.shared import steps
from gateway.shared.answers import LinePlace, MarkAnswer, MarkRow, Outcome
from gateway.shared.steps import LeaseReport
from tests.kit.engine import running_engine
from tests.kit.engine_stage import Stage, granted

counter = itertools.count()
GRANTED, QUEUED, FULL, FENCED, UNKNOWN, TOO_OFTEN = Outcome


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    with running_engine() as engine:
        yield engine.socket


@pytest.fixture
def stage(path: str) -> Iterator[Stage]:
    client = Stage(path, f"s{next(counter)}")
    client.begin("n", "m")
    yield client
    client.close()


# --- limits ---------------------------------------------------------------------------


def test_the_newest_limits_hold_for_all(stage: Stage) -> None:
    stage.both("n.1")
    stage.user("m.1", "v")
    stage.account("m.1")
    for step in steps.conf("m", "c2", [("aA", 2)]):
        stage.run(step)

    assert granted(stage.heard()) == [("A", "m.1")]
    assert stage.run(steps.beat("n", 1)).config == "c2"
    stage.conf(("uu", None))
    assert stage.user("n.2").outcome is UNKNOWN
    assert stage.account("m.1", "X").outcome is GRANTED  # said twice


def test_many_limits_are_sent_in_parts(stage: Stage) -> None:
    limits = [(f"uu{i}", i) for i in range(steps.PART + 3)]
    parts = steps.conf("n", "c9", limits)
    stage.run(parts[0])
    assert stage.run(steps.beat("n", 0)).config == "c1"
    stage.run(parts[1])

    assert len(parts) == 2
    found = stage.run(steps.beat("n", 0, gates=[f"uu{steps.PART + 2}"]))
    assert (found.config, found.counts[0].limit) == ("c9", steps.PART + 2)


# --- places ---------------------------------------------------------------------------


def test_a_place_is_exact_among_many_users_and_slots(stage: Stage) -> None:
    stage.conf(("aA", 200), *[(f"ux{i}", 9) for i in range(300)], ("uz", 300))
    holding = [LeaseReport(f"n.{i}", "A", "z", "A", held_s=i) for i in range(200)]
    waiting = [
        LeaseReport(f"n.w{i}", "a", f"x{i // 2}", group=("A",), age_s=600 - i)
        for i in range(600)
    ]
    stage.resync("n", *holding, *waiting)
    found = stage.run(steps.places(["n.w0", "n.w1", "n.w598", "n.w599"])).places

    assert [one.position for one in found.values()] == [1, 301, 300, 600]
    assert {one.waiting for one in found.values()} == {600}
    [load] = found["n.w0"].loads
    assert (load.used, load.limit, len(load.ages_s)) == (200, 200, 200)
    assert sum(load.ages_s) / 200 == pytest.approx(99.5, rel=0.05)


def test_drains_are_not_counted_as_busy(stage: Stage) -> None:
    stage.both("n.1")
    stage.run(steps.drain("n.1"))
    stage.user("m.1", "v")
    place = stage.account("m.1").place

    assert isinstance(place, LinePlace)
    assert (place.loads[0].ending, place.loads[0].used) == (1, 1)
    assert list(place.loads[0].ages_s) == []


def test_one_drain_is_ended_for_each_waiter(stage: Stage) -> None:
    stage.conf(("aA", 2))
    for lease in ("n.1", "n.2"):
        stage.both(lease)
        stage.run(steps.drain(lease))
    for lease in ("m.1", "m.2"):
        stage.user(lease, "v")
        stage.account(lease)
        stage.run(steps.regroup(lease, [["A"]], ["A"]))
        assert granted(stage.heard()) == [("E", f"n.{lease[-1]}")]


def test_a_drain_may_be_needed_once_another_has_ended(stage: Stage) -> None:
    """Two were asked to end at B for waiters that left; one at A needs its own."""
    stage.conf(("uu", 9), ("aB", 2))
    stage.both("n.1")
    for lease in ("n.2", "n.3"):
        stage.user(lease)
        stage.account(lease, "B")
        stage.run(steps.drain(lease))
    for lease in ("m.1", "m.2"):
        stage.user(lease)
        stage.account(lease, "B")
    assert granted(stage.heard()) == [("E", "n.2"), ("E", "n.3")]
    for lease in ("m.1", "m.2"):
        stage.run(steps.leave(lease))
    stage.run(steps.drain("n.1"))
    for lease, names in (("m.3", "AB"), ("m.4", "A")):
        stage.user(lease)
        stage.account(lease, *names)
    assert stage.heard() == []

    stage.run(steps.leave("n.2"))
    assert granted(stage.heard()) == [("A", "m.3"), ("E", "n.1")]


def test_a_reserved_position_is_over_after_a_while(stage: Stage) -> None:
    stage.conf(("uu", 1))
    stage.user("n.1")
    stage.user("n.2", session="s")
    stage.user("n.3")
    stage.run(steps.leave("n.2", reserve="s"))
    assert not stage.user("m.1", session="t").admitted
    back = stage.user("m.2", session="s")
    assert back.admitted and back.place.position == 1

    stage.run(steps.leave("m.2", reserve="s"))
    stage.time_passes(6_000_000)
    assert not stage.user("m.3", session="s").admitted


# --- what is known in common ----------------------------------------------------------


def test_a_mark_is_replaced_only_from_the_newest(stage: Stage) -> None:
    stage.listen("n", common=True)
    assert stage.run(steps.mark("A", 0, "out", 60)) == MarkAnswer(True, 1)
    assert stage.run(steps.mark("A", 0, "mine", 60)) == MarkAnswer(False, 1, "out")
    assert stage.run(steps.mark("A", 1, "more", 60)) == MarkAnswer(True, 2)
    assert stage.run(steps.mark("B", 0, "short", 0.001)).stored
    assert [push.mark for push in stage.heard()] == [
        MarkRow("A", 1, "out"),
        MarkRow("A", 2, "more"),
        MarkRow("B", 3, "short"),
    ]
    while len(stage.run(steps.marks())) > 1:
        pass
    assert stage.run(steps.marks()) == [MarkRow("A", 2, "more")]

    assert stage.run(steps.mark("A", 2, "")) == MarkAnswer(True, 4)
    assert stage.run(steps.mark("A", 2, "late", 9)) == MarkAnswer(False, 0)
    assert stage.run(steps.mark("C", 0, "new", 9)).stored  # takes B's old entry away
    assert [one.key for one in stage.run(steps.marks())] == ["C"]
    assert set(stage.keys()["marks"]) == {b"C"}


def test_one_attempt_has_the_probe(stage: Stage) -> None:
    assert stage.run(steps.probe("A", "n.1"))
    assert not stage.run(steps.probe("A", "m.1"))
    assert stage.run(steps.probe("B", "m.1"))
    assert not stage.run(steps.end_probe("A", "m.1"))
    assert not stage.run(steps.probe("A", "m.1"))
    assert stage.run(steps.end_probe("A", "n.1"))
    assert stage.run(steps.probe("A", "m.1"))
    assert 0 < stage.command("PTTL", f"{{{stage.prefix}}}:probe:A") <= 10_000


def test_requests_a_minute_are_counted_over_all_nodes(stage: Stage) -> None:
    stage.conf(("uu", 0))
    for lease in ("n.1", "m.1"):
        assert stage.user(lease, requests_per_minute=2).outcome is GRANTED
    refused = stage.user("n.2", requests_per_minute=2)
    assert refused.outcome is TOO_OFTEN and 59 < refused.retry_s <= 60
    assert stage.run(steps.leave("n.2")) == 0
    assert stage.user("n.3").outcome is GRANTED

    stage.time_passes(61_000_000)
    assert stage.user("n.4", requests_per_minute=2).outcome is GRANTED


def test_who_holds_what(stage: Stage) -> None:
    stage.both("n.1")
    stage.user("n.2", "v", age_s=5.0)
    rows = stage.run(steps.holders("n", 10))

    assert sorted(row[:4] for row in rows) == [
        ("n.1", "A", "u", "A"),
        ("n.2", "U", "v", ""),
    ]
    assert 5 <= max(row.age_s for row in rows) < 60
    assert len(stage.run(steps.holders("n", 1))) == 1
