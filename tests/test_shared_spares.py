"""
What is set aside for nodes that lose the engine: all together never have more than the
limit, at whatever moment each of them does.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.admission.slot import Slot
from gateway.admission.spare_slots import MAX_KNOWN, SpareSlots
from gateway.shared import membership, steps
from gateway.shared.answers import Outcome
from tests.kit.engine import CutProxy, Engine, running_engine
from tests.kit.engine_stage import Stage
from tests.kit.nodes import (
    QUICK,
    Node,
    Running,
    eventually,
    keys_left,
    nodes,
    request,
    set_aside,
)

counter = itertools.count()
GRANTED, QUEUED = Outcome.GRANTED, Outcome.QUEUED


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as one:
        yield one


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    with running_engine() as one:
        yield one.socket


@pytest.fixture
def stage(path: str) -> Iterator[Stage]:
    one = Stage(path, f"s{next(counter)}")
    one.begin("n", "m")
    one.conf(("aA", 3), ("uu", 0))
    yield one
    one.close()


def spare(stage: Stage, node: str, leases: int = 0, gate: str = "aA") -> int:
    """What is set aside for *node* after a beat of it."""
    answer = stage.run(steps.beat(node, leases, gates=[gate]))
    return int(answer.counts[0].spare)


# --- the scripts ----------------------------------------------------------------------


def test_what_is_free_is_set_aside_in_equal_parts(stage: Stage) -> None:
    assert (spare(stage, "n"), spare(stage, "m")) == (1, 2)  # m is the first of them
    assert (spare(stage, "n"), spare(stage, "m")) == (1, 2)


def test_a_nodes_own_are_taken_last_and_others_are_asked_for(stage: Stage) -> None:
    assert (spare(stage, "n"), spare(stage, "m")) == (1, 2)
    for lease in ("n.1", "n.2"):
        stage.user(lease)
    first = stage.account("n.1")
    assert (first.outcome, first.drawn) == (GRANTED, True)
    assert stage.account("n.2").outcome is QUEUED
    assert [(p.kind, p.lease, p.account) for p in stage.heard()] == [("G", "0", "aA")]

    stage.run(steps.give("m", "aA"), twice=True)
    [push] = stage.heard()
    assert (push.kind, push.lease, push.drawn) == ("A", "n.2", False)
    stage.run(steps.leave("n.1"))
    stage.user("n.3")
    assert not stage.account("n.3").drawn  # nothing is set aside any more


def test_who_may_not_wait_may_wait_for_a_slot_that_is_set_aside(stage: Stage) -> None:
    stage.conf(("aA", 1), ("uu", 1))
    assert spare(stage, "m") == spare(stage, "m", gate="uu") == 1
    entered = stage.run(steps.enter_user("n.1", "u", 0))
    assert entered.outcome is QUEUED
    stage.run(steps.give("m", "uu"))
    answer = stage.run(steps.enter_account("n.1", [["A"]], ["A"], 0))
    assert answer.outcome is QUEUED
    refused = stage.run(steps.enter_user("n.2", "u", 0))
    assert refused.outcome is Outcome.FULL


def test_a_worse_tier_is_not_taken_for_what_is_set_aside(stage: Stage) -> None:
    assert (spare(stage, "m"), spare(stage, "n")) == (2, 1)
    stage.both("n.1")
    stage.user("n.2")
    answer = stage.run(steps.enter_account("n.2", [["A"], ["B"]], ["A", "B"], 9))
    assert answer.outcome is QUEUED
    stage.run(steps.give("m", "aA"))
    assert [p.account for p in stage.heard() if p.kind == "A"] == ["A"]


def test_nothing_is_set_aside_while_one_waits(stage: Stage) -> None:
    stage.conf(("aA", 1))
    stage.both("n.1")
    stage.user("n.2")
    assert stage.account("n.2").outcome is QUEUED
    stage.conf(("aA", 2))  # granted by it
    stage.user("n.3")
    assert stage.account("n.3").outcome is QUEUED
    assert spare(stage, "m") == 0


def test_a_dead_nodes_are_free_and_one_that_says_all_again_has_none(
    stage: Stage,
) -> None:
    assert (spare(stage, "m"), spare(stage, "n")) == (2, 1)
    stage.resync("m")
    assert stage.state()["lim"][b"~aA"] == b"1"
    assert spare(stage, "m") == 2
    stage.run(steps.reap("m"))
    assert stage.state()["lim"][b"~aA"] == b"1"
    stage.run(steps.reap("n"))
    assert b"~aA" not in stage.state()["lim"]
    assert not [key for key in stage.keys() if key.startswith("spare")]


def test_a_node_that_comes_later_gets_its_part(stage: Stage) -> None:
    stage.run(steps.reap("m"))
    assert spare(stage, "n") == 3
    stage.listen("m")
    stage.run(steps.beat("m", 0, join=True))
    assert spare(stage, "m") == 0
    assert [(p.kind, p.lease, p.account) for p in stage.heard()] == [("G", "2", "aA")]
    stage.run(steps.give("n", "aA", 2))
    assert (spare(stage, "m"), spare(stage, "n")) == (1, 2)


def test_a_changed_limit_is_divided_anew(stage: Stage) -> None:
    assert (spare(stage, "m"), spare(stage, "n")) == (2, 1)
    stage.conf(("aA", 1))
    for push in stage.heard():
        assert (push.kind, push.account) == ("G", "aA")
    stage.run(steps.give("n", "aA"))
    stage.run(steps.give("m", "aA"))
    assert (spare(stage, "m"), spare(stage, "n")) == (1, 0)


def test_any_moves_never_set_aside_more_than_is_free(stage: Stage) -> None:
    chance, live = random.Random(11), dict[str, str]()  # lease -> state
    limit, made = 3, 0
    for _ in range(600):
        node, move = chance.choice("nm"), chance.randrange(6)
        mine = [lease for lease in live if lease[0] == node]
        if move == 0:
            made += 1
            stage.user(f"{node}.{made}")
            stage.account(f"{node}.{made}")
            live[f"{node}.{made}"] = node
        elif move <= 2 and mine:
            lease = chance.choice(mine)
            stage.run(steps.leave(lease))
            del live[lease]
        elif move == 3:
            spare(stage, node, len(mine))
        elif move == 4:
            stage.run(steps.give(node, "aA"))
        stage.heard()
        state = stage.keys()
        running = len(state.get("run:aA", ()))
        aside = sum(int(n) for n in state.get("spare:aA", {}).values())
        assert running + aside <= limit
        assert int(state["lim"].get(b"~aA", 0)) == aside


# --- what a node believes -------------------------------------------------------------


def test_an_answer_that_is_older_than_what_was_given_back_says_nothing() -> None:
    spares = SpareSlots()
    first, second = spares.question(), spares.question()
    spares.heard(first, "aA", 2)
    spares.give_back("aA")
    spares.heard(second, "aA", 2)
    assert spares.of("aA") == 0
    spares.heard(spares.question(), "aA", 1)
    assert spares.of("aA") == 1
    third = spares.question()
    spares.forget()
    spares.heard(third, "aA", 1)
    assert spares.of("aA") == 0 and spares.of("aB") is None
    spares.drawn("aA")
    assert spares.of("aA") == 0


def test_what_is_known_of_gates_is_bounded() -> None:
    spares, gates = SpareSlots(), [f"u{n}" for n in range(MAX_KNOWN + 10)]
    assert spares.missing(gates, 7) == gates[:7]
    for gate in gates:
        spares.heard(spares.question(), gate, 1)
    assert len(spares._known) == MAX_KNOWN
    assert spares.missing(gates, 7) == []
    spares.keep_only(gates[:3])
    assert len(spares._known) == 3


# --- an outage, and its end -----------------------------------------------------------


async def test_in_a_long_outage_each_node_has_its_part_after_all_have_shrunk(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"users": {"alice": 100}, "accounts": {"one": 4}}
    async with nodes(engine.url, 2, **more) as (a, b):
        held = []
        for _ in range(4):
            slot, holder = await a.user()
            held.append((slot, await a.account(holder, (("one",),))))
        _, holder = await b.user()
        waits = asyncio.ensure_future(b.account(holder, (("one",),)))
        await eventually(lambda: {one.engine.nodes for one in (a, b)} == {2})
        engine.kill()
        await eventually(lambda: not a.engine.up and not b.engine.up)
        assert not waits.done() and a.registry.side.over() == []

        for node in (a, b):
            node.registry.side._divide_later(node.registry.side._lesser_share)
        [over] = [o for o in a.registry.side.over() if o.name == "one"]
        assert over.over == 2  # they run on; none is handed on
        held.pop()[1].release()
        held.pop()[1].release()
        _, late = await a.user()
        third = asyncio.ensure_future(a.account(late, (("one",),)))
        await asyncio.sleep(0.01)
        assert not waits.done() and not third.done()
        held.pop()[1].release()
        await asyncio.wait_for(third, 1)

        side = b.registry.side
        side._divide_later(side._equal_share)
        await asyncio.wait_for(waits, 1)


async def test_nodes_that_begin_without_the_engine_share_what_they_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its part by the number of those that live, also when that changes."""
    monkeypatch.setattr(membership, "COUNT_S", 0.01)
    more = {"users": {"alice": 100}, "accounts": {"one": 5}}
    some = [Node(f"unix://{tmp_path}/none", "blind", **more) for _ in range(3)]
    living = [node.name for node in some]

    async def alive() -> list[str]:
        return living

    async def one(node: Node) -> Slot:
        _, holder = await node.user()
        return await node.account(holder, (("one",),))

    for node in some:
        node.engine.alive = alive
        await node.engine.start()
    tasks = {
        node: [asyncio.ensure_future(one(node)) for _ in range(5)] for node in some
    }

    def granted(node: Node) -> int:
        return sum(task.done() for task in tasks[node])

    await eventually(lambda: [granted(node) for node in some] == [2, 2, 1])
    living.remove(some[1].name)
    await eventually(lambda: (granted(some[0]), granted(some[2])) == (3, 2))
    for node in some:
        for task in tasks[node]:
            task.cancel()
        await node.engine.stop()


async def test_learning_ends_when_all_that_were_there_have_spoken(
    engine: Engine,
) -> None:
    async with nodes(engine.url, 3) as some:
        await eventually(lambda: {node.engine.nodes for node in some} == {3})
        engine.kill()
        await eventually(lambda: not any(node.engine.up for node in some))
        engine.start()
        await eventually(lambda: all(node.engine.up for node in some))
        await set_aside("aone", *some)  # not before the learning is over
        began = asyncio.get_running_loop().time()
        await request(some[0], Running())
        assert asyncio.get_running_loop().time() - began < 1.0


def test_one_that_is_missed_is_waited_for_as_long_as_a_dead_node(path: str) -> None:
    stage = Stage(path, f"s{next(counter)}")
    for node in "nmk":
        stage.listen(node)

    def beat(node: str, **more: Any) -> float:
        step = steps.beat(node, 0, ttl_s=3.5, learn=bool(more), **more)
        return float(stage.run(step).learning_s)

    assert 1.4 < beat("n", expected=3) <= 1.5
    assert beat("k", expected=0) > 1.4  # it is new: it says nothing of the others
    stage.conf(("aA", 3), ("uu", 9))
    stage.resync("n")
    stage.resync("k")
    stage.user("n.1")
    stage.time_passes(1_600_000)
    assert 0 < beat("n") <= 2.0
    assert stage.heard() == []
    assert beat("m", expected=3) > 0
    stage.resync("m")
    assert beat("n") > 0  # one more was there
    stage.time_passes(2_100_000)
    assert beat("n") == 0
    assert [p.lease for p in stage.heard() if p.kind == "U"] == ["n.1"]
    assert not [key for key in stage.keys() if key in ("spoken", "returned")]
    stage.close()


# --- nodes under load -----------------------------------------------------------------


async def load(
    some: list[Node], running: Running, served: Counter[str], stop: asyncio.Event
) -> None:
    """Requests of two users at all nodes until *stop*; *served* counts them."""
    chance = random.Random(5)

    async def client(number: int) -> None:
        while not stop.is_set():
            node, user = chance.choice(some), ("alice", "bob")[number % 2]
            tiers = (("one", "two"),) if number % 3 else (("one",), ("two",))
            served[
                await request(node, running, user, tiers, chance.uniform(0, 0.012))
            ] += 1
            if number % 4 == 0:  # not all of the time is everything taken
                await asyncio.sleep(chance.uniform(0, 0.05))

    await asyncio.gather(*(client(number) for number in range(12)))


SLOW = QUICK._replace(ttl_s=10.0)  # no node is declared dead
MOST = {"alice": 3, "bob": 5, "one": 3, "two": 2}
MORE = {"users": {"alice": 3, "bob": 5}, "accounts": {"one": 3, "two": 2}}


def at_the_limits(running: Running) -> bool:
    """Whether both accounts were full at some moment."""
    return all(running.most[name] >= MOST[name] for name in ("one", "two"))


@pytest.mark.parametrize("fault", ["cut", "kill", "flush", "silent"])
async def test_no_limit_is_exceeded_at_any_moment_whatever_becomes_of_the_engine(
    engine: Engine, fault: str
) -> None:
    running, served, stop = Running(), Counter[str](), asyncio.Event()
    async with CutProxy(engine.socket) as proxy:
        async with nodes(proxy.url, 3, prefix="load", timing=SLOW, **MORE) as some:
            task = asyncio.ensure_future(load(some, running, served, stop))
            for _ in range(2 if fault == "silent" else 6):
                await asyncio.sleep(0.12)
                if fault == "cut":
                    proxy.cut()
                elif fault == "kill":
                    engine.kill()
                    await eventually(lambda: not any(n.engine.up for n in some))
                    await asyncio.sleep(0.05)
                    engine.start()
                elif fault == "flush":
                    some[0].engine._connection.cast(  # type: ignore[union-attr]
                        "FLUSHALL"
                    )
                else:
                    proxy.silent = True
                    await eventually(lambda: not any(n.engine.up for n in some))
                    proxy.silent = False
                    proxy.cut()
                await eventually(lambda: all(n.engine.up for n in some))
            await eventually(lambda: served.total() > 50 and at_the_limits(running))
            stop.set()
            await asyncio.wait_for(task, 20)
            await eventually(lambda: not any(len(n.registry._book) for n in some))
            await asyncio.sleep(0.1)
            left = await keys_left(engine.url, "load")

    assert {name: max(running.most[name], MOST[name]) for name in MOST} == MOST
    assert left == []
