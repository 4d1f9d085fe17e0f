"""What the scripts do when replies, nodes, the engine or its clock are lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.shared import script as script_module
from gateway.shared import steps
from gateway.shared.answers import Outcome
from gateway.shared.script import GAP_US, LEARN_US, REAPED_AT_ONCE
from gateway.shared.steps import LeaseReport
from tests.kit.engine import running_engine
from tests.kit.engine_stage import LIMITS, Stage, granted

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


# --- sent twice -----------------------------------------------------------------------


TWICE: dict[str, Callable[[], list[steps.EngineStep[Any]]]] = {
    "beat": lambda: [steps.beat("m", 0)],
    "join": lambda: [steps.beat("k", 0, join=True)],
    "reap": lambda: [steps.reap("n")],
    "resync": lambda: steps.resync("n", [LeaseReport("n.1", "A", "u", "A")]),
    "resync-all": lambda: steps.resync(
        "n",
        [
            LeaseReport("n.7", "A", "v", "B", age_s=5),
            LeaseReport("n.8", "a", "v", group=("A", "B"), age_s=4),
            LeaseReport("n.9", "u", "u", age_s=3),
            LeaseReport("n.6", "D", "u", "B", age_s=3),
        ],
    ),
    "conf": lambda: steps.conf("n", "c2", [("aA", 3), ("uu", 0), ("ux", None)]),
    "drain": lambda: [steps.drain("n.1")],
    "leave": lambda: [steps.leave("n.2", reserve="s")],
    "leave-account": lambda: [steps.leave_account("n.1")],
    "keep-turn": lambda: [steps.leave_account("n.2", keep_turn=True)],
    "regroup": lambda: [steps.regroup("n.2", [["A"], ["B"]], ["A", "B"])],
    "regroup-wait": lambda: [steps.regroup("n.2", [["A"]], ["A"])],
    "regroup-unknown": lambda: [steps.regroup("n.2", [["X"]], ["X"])],
    "enter": lambda: [steps.enter_user("m.5", "u", 9, requests_per_minute=3)],
    "enter-both": lambda: [steps.enter_user("m.5", "v", 9, ahead=[["A"], ["B"]])],
    "enter-half": lambda: [steps.enter_user("m.5", "v", 9, ahead=[["A"]])],
    "enter-full": lambda: [steps.enter_user("m.5", "u", 0)],
    "account": lambda: [steps.enter_account("m.4", [["A", "B"]], ["A", "B"], 9)],
    "account-wait": lambda: [steps.enter_account("m.4", [["A"]], ["A"], 9)],
    "account-full": lambda: [steps.enter_account("m.4", [["A"]], ["A"], 0)],
    "mark": lambda: [steps.mark("A", 0, "out", 60)],
    "probe": lambda: [steps.probe("A", "n.1")],
    "end-probe": lambda: [steps.end_probe("A", "n.1")],
}


@pytest.mark.parametrize("name", TWICE)
def test_a_step_that_is_sent_again_changes_nothing_more(
    stage: Stage, name: str
) -> None:
    stage.both("n.1")
    stage.user("n.2")
    stage.account("n.2")
    stage.user("n.3")
    stage.user("m.4", "v")
    made = TWICE[name]()
    for step in made:
        stage.run(step)
    once, pushes = stage.state(), stage.heard()
    for step in made:
        stage.run(step)

    assert stage.state() == once
    assert [push for push in stage.heard() if push not in pushes] == []


@pytest.mark.parametrize("name", TWICE)
def test_an_engine_that_forgot_its_scripts_is_sent_them(
    stage: Stage, name: str
) -> None:
    stage.command("SCRIPT", "FLUSH")
    for step in TWICE[name]():
        stage.run(step)


# --- replies and pushes that are lost -------------------------------------------------


def test_a_grant_whose_push_was_lost_is_said_again(stage: Stage) -> None:
    stage.both("n.1")
    stage.user("m.1", "v")
    stage.account("m.1")
    stage.user("m.2", "u")
    stage.user("m.3", "u")
    stage.run(steps.leave("n.1"))  # pushed to m: lost
    news = stage.resync(
        "m",
        LeaseReport("m.1", "a", "v", group=("A",)),
        LeaseReport("m.2", "U", "u"),
        LeaseReport("m.3", "u", "u"),
    )

    assert news == [("m.1", "A", "A"), ("m.3", "U", "")]


def test_an_eviction_whose_push_was_lost_is_said_again(stage: Stage) -> None:
    stage.both("n.1")
    stage.run(steps.drain("n.1"))
    stage.user("m.1", "v")
    stage.account("m.1")

    assert granted(stage.heard()) == [("E", "n.1")]
    assert stage.resync("n", LeaseReport("n.1", "D", "u", "A")) == [("n.1", "E", "A")]


@pytest.mark.parametrize("lost", ["leave", "leave_account", "enter", "account"])
def test_a_step_that_never_came_is_made_good(stage: Stage, lost: str) -> None:
    stage.both("n.1")
    stage.user("m.1", "v")
    stage.account("m.1")  # waits for A
    reports = {
        "leave": [],
        "leave_account": [LeaseReport("n.1", "U", "u")],
        "enter": [LeaseReport("n.1", "A", "u", "A"), LeaseReport("n.2", "u", "u")],
        "account": [
            LeaseReport("n.1", "A", "u", "A"),
            LeaseReport("n.2", "A", "u", "B"),
        ],
    }[lost]
    stage.resync("n", *reports)

    freed = [("A", "m.1")] if lost.startswith("leave") else []
    said = [("U", "n.2")] if lost == "enter" else []
    assert granted(stage.heard()) == freed + said
    beat = stage.run(steps.beat("n", len(reports), gates=["uu", "aA", "aB", "ax"]))
    assert not beat.resync
    users = {"leave": 0, "leave_account": 1}.get(lost, 2)
    assert [one.used for one in beat.counts] == [users, 1, lost == "account", 0]
    assert [one.limit for one in beat.counts] == [2, 1, 1, -1]


def test_a_wrong_number_of_leases_asks_for_a_resync(stage: Stage) -> None:
    stage.both("n.1")

    assert stage.run(steps.beat("n", 0)).resync
    assert not stage.run(steps.beat("n", 1)).resync


def test_every_beginning_of_a_resync_may_be_all_that_came(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PART", 2)
    stage.conf(("aA", 2), ("uu", 4), ("uv", 1))
    reports = [
        LeaseReport("n.1", "u", "v", age_s=9),
        LeaseReport("n.2", "A", "u", "A", age_s=8),
        LeaseReport("n.3", "a", "u", group=("A",), age_s=7),
        LeaseReport("n.4", "D", "u", "A", age_s=6),
        LeaseReport("n.5", "A", "v", "B", age_s=5),
        LeaseReport("n.6", "a", "u", group=("A", "B"), age_s=4),
    ]
    parts = steps.resync("n", reports)
    assert len(parts) == 3
    ends = []
    for count in range(len(parts) + 1):
        stage.run(steps.reap("n"))
        stage.run(steps.beat("n", 0, join=True))
        stage.user("n.99", "u")  # what the node does not know
        for step in parts[:count]:
            stage.run(step)
        stage.heard()
        for step in parts:
            stage.run(step)
        found = stage.state()
        ends.append({key: names_of(value) for key, value in found.items()})

    assert all(one == ends[0] for one in ends)
    assert ends[0]["run:aA"] == ["n.2", "n.4"] and "n.99" not in str(ends[0])


def names_of(value: Any) -> Any:
    """A zset's members in order, without their scores."""
    if isinstance(value, dict):
        return sorted(key.decode() for key in value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [one[0].decode() for one in value]
    return value


# --- nodes that die -------------------------------------------------------------------


def test_the_slots_of_a_dead_node_go_to_the_next_once(stage: Stage) -> None:
    stage.both("n.1")
    stage.user("m.1", "v")
    stage.account("m.1")
    assert stage.run(steps.reap("n")) == 1

    assert granted(stage.heard()) == [("A", "m.1")]
    assert stage.run(steps.reap("n")) == -1


def test_a_node_whose_lease_ends_is_fenced_and_touches_nothing(stage: Stage) -> None:
    stage.both("n.1")
    stage.user("m.1", "v")
    stage.account("m.1")
    stage.run(steps.beat("n", 1, ttl_s=1e-6))
    beat = stage.run(steps.beat("m", 1))
    assert beat.reaped == ["n"] and beat.nodes == 1 and beat.rank == 0
    assert granted(stage.heard()) == [("A", "m.1")]
    before = stage.state()

    assert stage.user("n.2").outcome is FENCED
    assert stage.account("n.1").outcome is FENCED
    assert stage.run(steps.regroup("n.1", [["A"]], ["A"])).outcome is FENCED
    assert stage.run(steps.drain("n.1")) == FENCED
    assert stage.run(steps.beat("n", 1)).fenced
    assert stage.resync("n", LeaseReport("n.1", "A", "u", "A")) is None
    assert [stage.run(one) for one in steps.conf("n", "x", [("uu", 9)])] == [FENCED]
    assert stage.run(steps.leave("n.1")) == 0
    assert stage.run(steps.leave_account("n.1")) == 0
    assert stage.state() == before and stage.heard() == []


def test_what_runs_of_a_node_declared_dead_counts_above_the_limit(stage: Stage) -> None:
    stage.both("n.1")
    stage.run(steps.reap("n"))
    stage.both("m.1", "v")
    stage.run(steps.beat("n", 1, learn=True))
    assert stage.resync("n", LeaseReport("n.1", "A", "u", "A", age_s=9)) == []
    stage.user("m.2", "v")
    stage.account("m.2")
    counts = stage.run(steps.beat("n", 1, gates=["aA"])).counts

    assert (counts[0].used, counts[0].limit) == (2, 1)
    stage.run(steps.leave("m.1"))
    assert stage.heard() == []  # still at the limit
    stage.run(steps.leave("n.1"))
    assert granted(stage.heard()) == [("A", "m.2")]


def test_a_replica_that_took_over_hears_all_nodes_before_it_grants(
    stage: Stage,
) -> None:
    """It may lack what the old one granted last: here the slot of n.1."""
    for node in "nm":
        joined = stage.run(steps.beat(node, 0, learn=True, place="old:1"))
        assert not joined.learning_s
    stage.user("m.1", "v")

    again = stage.run(steps.beat("m", 1, learn=True, expected=2, place="new:1"))
    assert again.learning_s
    stage.resync("m", LeaseReport("m.1", "U", "v"))
    assert stage.account("m.1").outcome is Outcome.QUEUED
    stage.run(steps.beat("n", 1, learn=True, expected=2, place="new:1"))
    stage.resync("n", LeaseReport("n.1", "A", "u", "A"))

    assert not stage.run(steps.beat("m", 1)).learning_s
    assert stage.heard() == []
    stage.run(steps.leave("n.1"))
    assert granted(stage.heard()) == [("A", "m.1")]


def test_a_waiter_comes_back_to_where_its_age_puts_it(stage: Stage) -> None:
    stage.both("n.1")
    for lease in ("m.1", "m.2"):
        stage.user(lease, "v")
        stage.account(lease)
    stage.resync(
        "n",
        LeaseReport("n.1", "A", "u", "A"),
        LeaseReport("n.2", "a", "v", group=("A",), age_s=60),
    )

    assert stage.run(steps.places(["n.2", "m.1"])).places["n.2"].position == 1
    stage.run(steps.leave("n.1"))
    assert granted(stage.heard()) == [("A", "n.2")]


def test_no_slot_is_promised_to_who_does_not_listen(stage: Stage) -> None:
    stage.both("n.1")
    stage.run(steps.beat("deaf", 0, join=True))
    stage.user("deaf.1", "v")
    stage.account("deaf.1")
    stage.user("m.1", "v")
    stage.account("m.1")
    stage.user("deaf.2", "u")
    stage.user("deaf.3", "u")
    stage.user("m.3", "u")
    stage.run(steps.leave("n.1"))
    assert granted(stage.heard()) == [("A", "m.1"), ("U", "m.3")]

    stage.listen("deaf")
    stage.resync(
        "deaf",
        LeaseReport("deaf.1", "a", "v", group=("A",)),
        LeaseReport("deaf.2", "U", "u"),
        LeaseReport("deaf.3", "u", "u"),
    )
    stage.user("m.4", "v")
    stage.run(steps.leave("m.1"))
    stage.run(steps.leave("m.3"))
    assert granted(stage.heard())[:2] == [("A", "deaf.1"), ("U", "m.4")]
    assert granted(stage.heard()) == []
    assert stage.run(steps.leave("deaf.3")) == 1


def test_the_trace_of_a_lease_that_is_gone_stops_no_other(stage: Stage) -> None:
    stage.both("n.1")
    stage.user("n.2")
    for lease in ("m.1", "m.2"):
        stage.user(lease, "v")
        stage.account(lease)
    stage.user("m.3")
    stage.user("m.4")
    stage.command("HDEL", f"{{{stage.prefix}}}:n:m", "m.1", "m.3")
    stage.run(steps.leave("n.1"))

    assert granted(stage.heard()) == [("A", "m.2"), ("U", "m.4")]
    assert not [key for key in stage.keys() if key.startswith(("q:", "w:", "lane:"))]


def test_a_drain_that_does_not_listen_is_passed_over(stage: Stage) -> None:
    stage.conf(("aA", 2))
    stage.run(steps.beat("deaf", 0, join=True))
    stage.both("deaf.1", "v")
    stage.run(steps.drain("deaf.1"))
    stage.both("n.1")
    stage.run(steps.drain("n.1"))
    stage.user("m.1", "v")
    stage.account("m.1")

    assert granted(stage.heard()) == [("E", "n.1")]


def test_one_beat_takes_back_a_bounded_number_of_leases(stage: Stage) -> None:
    count = REAPED_AT_ONCE + 20
    stage.conf(("uu", 0), ("aA", 0))
    stage.resync("n", *[LeaseReport(f"n.{i}", "A", "u", "A") for i in range(count)])
    stage.run(steps.beat("n", count, ttl_s=1e-6))

    first = stage.run(steps.beat("m", 0, gates=["aA"]))
    assert (first.reaped, first.counts[0].used) == ([], 20)
    assert stage.user("n.x").outcome is FENCED
    second = stage.run(steps.beat("m", 0, gates=["aA"]))
    assert (second.reaped, second.counts[0].used) == (["n"], 0)


# --- the engine's clock, and its memory -----------------------------------------------


@pytest.mark.parametrize("us", [3_600_000_000, -3_600_000_000, GAP_US + 100_000])
def test_a_clock_that_leaps_ends_no_lease(stage: Stage, us: int) -> None:
    stage.conf(("uv", 9))
    stage.both("n.1")
    stage.user("m.1", "v")
    stage.account("m.1")
    stage.leap(us)
    stage.user("m.2", "v")  # before any beat has seen the leap
    stage.account("m.2")
    assert stage.run(steps.beat("m", 2)).reaped == []
    stage.user("m.3", "v")
    stage.account("m.3")
    assert not stage.run(steps.beat("n", 1)).fenced

    load = stage.run(steps.places(["m.3"])).places["m.3"].loads[0]
    assert load.gate == "aA" and 0 <= load.ages_s[0] < 60
    served = ["n.1"]
    for _ in range(3):
        stage.run(steps.leave(served[-1]))
        served += [push.lease for push in stage.heard()]
    assert served == ["n.1", "m.1", "m.2", "m.3"]


def test_a_lease_ends_when_the_time_has_really_passed(stage: Stage) -> None:
    stage.time_passes(round(steps.TTL_S * 1e6) - 1_000_000)
    assert stage.run(steps.beat("m", 0)).reaped == []
    stage.time_passes(1_000_000)

    assert stage.run(steps.beat("m", 0)).reaped == ["n"]


def test_an_engine_that_lost_its_state_grants_nothing_until_all_have_spoken(
    path: str,
) -> None:
    stage = Stage(path, f"s{next(counter)}")
    for node in "nm":
        stage.listen(node)
    beat = stage.run(steps.beat("n", 1, learn=True))
    assert 0 < beat.learning_s <= LEARN_US / 1e6
    stage.conf(*LIMITS)
    assert stage.user("n.5", "v").outcome is QUEUED
    assert stage.run(steps.beat("m", 1, learn=True)).learning_s > 0
    stage.resync("m", LeaseReport("m.1", "A", "u", "A", age_s=60, held_s=50))
    stage.resync(
        "n", LeaseReport("n.5", "u", "v"), LeaseReport("n.6", "a", "u", group=("A",))
    )
    stage.run(steps.leave("m.1"))
    assert stage.heard() == []

    stage.command("HSET", f"{{{stage.prefix}}}:lim", "!learn", 1)
    stage.run(steps.beat("n", 2))
    assert sorted(granted(stage.heard())) == [("A", "n.6"), ("U", "n.5")]
    assert stage.user("m.7", "v").outcome is GRANTED
    stage.close()


def test_a_fresh_engine_that_no_other_knew_needs_no_learning(stage: Stage) -> None:
    stage.run(steps.reap("n"))
    stage.run(steps.reap("m"))
    stage.run(steps.beat("n", 0, join=True))

    assert stage.user("n.1").outcome is GRANTED
    assert stage.run(steps.nodes()) == ["n"]


def test_the_number_of_leases_in_one_step_is_bounded() -> None:
    reports = [LeaseReport(f"n.{i}", "U", "u") for i in range(3 * steps.PART)]

    assert len(steps.resync("n", reports)) == 3
    assert script_module.REAPED_AT_ONCE <= steps.PART
