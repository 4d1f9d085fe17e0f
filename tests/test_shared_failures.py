"""The engine dies, hangs, forgets; a node dies, stands still, is cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from gateway.admission.node_side import LastBeat
from gateway.admission.slot import Slot
from gateway.errors import Overloaded
from gateway.shared.node_timing import NodeTiming
from tests.kit.engine import CutProxy, Engine, running_engine
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

ONE = {"alice": 100}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as one:
        yield one


async def waiting(node: Node, count: int = 1) -> list[asyncio.Task[Slot]]:
    """Requests of alice that wait for account one at *node*."""

    async def wait() -> Slot:
        _, holder = await node.user()
        return await node.account(holder, (("one",),), 20.0)

    before = len(node.registry._holders.all)
    tasks = [asyncio.ensure_future(wait()) for _ in range(count)]
    await eventually(lambda: len(node.registry._holders.all) == before + count)
    await eventually(
        lambda: all(one.waiter or one.account for one in node.registry._holders.all)
    )
    return tasks


async def holding(node: Node, count: int) -> list[Slot]:
    """*count* slots of account one, with their users' slots."""
    found = []
    for _ in range(count):
        _, holder = await node.user()
        found.append(await node.account(holder, (("one",),)))
    return found


# --- the engine -----------------------------------------------------------------------


async def test_without_the_engine_the_shares_are_the_limit(engine: Engine) -> None:
    async with nodes(engine.url, 2, users=ONE, accounts={"one": 6}) as (a, b):
        held = await holding(a, 3)
        await set_aside("aone", a, b)
        engine.kill()
        await eventually(lambda: not a.engine.up and not b.engine.up)
        more_a, more_b = await waiting(a, 5), await waiting(b, 5)
        await asyncio.sleep(0.02)

        # three were free: two for the one, one for the other
        got = {a: sum(t.done() for t in more_a), b: sum(t.done() for t in more_b)}
        assert sorted(got.values()) == [1, 2]

        held[0].release()  # one process's hand-off goes on
        await asyncio.sleep(0.01)
        assert sum(t.done() for t in more_a) == got[a] + 1

        for task in (*more_a, *more_b):
            task.cancel()


async def test_a_killed_engine_costs_no_request_and_heals_in_order(
    engine: Engine,
) -> None:
    more = {"users": {"alice": 100}, "accounts": {"one": 1}}
    async with nodes(engine.url, 2, **more) as (a, b):
        [held] = await holding(a, 1)
        first = await waiting(b)
        await asyncio.sleep(0.03)  # more than what a busy machine adds to an age
        second = await waiting(a)
        await asyncio.sleep(0.03)
        third = await waiting(b)
        engine.kill()
        await eventually(lambda: not a.engine.up and not b.engine.up)
        assert not any(task.done() for task in (*first, *second, *third))
        engine.start()
        await eventually(lambda: a.engine.up and b.engine.up)
        await set_aside("ualice", a, b)  # it has forgotten all, and heard everybody
        assert not any(task.done() for task in (*first, *second, *third))

        for task in (*first, *second, *third):
            assert not task.done()
            held.release()
            held = await asyncio.wait_for(task, 2)
        held.release()


async def test_a_hung_engine_holds_no_request_for_more_than_a_second(
    engine: Engine,
) -> None:
    async with nodes(engine.url, 2, users=ONE) as (a, b):
        await set_aside("ualice", a, b)
        engine.pause()
        began = time.monotonic()
        slots = await asyncio.gather(a.user(), b.user(), a.user())
        took_s = time.monotonic() - began
        engine.resume()
        await eventually(lambda: a.engine.up and b.engine.up)

        assert took_s < 1.5  # 1.0, and a busy machine
        for slot, _ in slots:
            slot.release()


async def test_an_engine_that_was_emptied_grants_nothing_twice(
    engine: Engine,
) -> None:
    running, prefix = Running(), "flushed"
    more = {"users": {"alice": 9}, "accounts": {"one": 3}, "prefix": prefix}
    async with nodes(engine.url, 3, **more) as some:
        tasks = [
            asyncio.ensure_future(
                request(some[n % 3], running, tiers=(("one",),), run_s=0.02)
            )
            for n in range(60)
        ]
        for _ in range(2):
            await asyncio.sleep(0.08)
            some[0].engine._connection.cast("FLUSHALL")  # type: ignore[union-attr]
        await asyncio.wait_for(asyncio.gather(*tasks), 20)

        assert running.most["one"] == 3
        await eventually(lambda: not any(len(n.registry._book) for n in some))
        await asyncio.sleep(0.15)
        assert await keys_left(engine.url, prefix) == []


async def test_a_script_cache_that_was_flushed_is_filled_again(
    engine: Engine,
) -> None:
    running = Running()
    async with nodes(engine.url, 2) as some:
        for turn in range(20):
            if turn % 3 == 0:
                some[0].engine._connection.cast(  # type: ignore[union-attr]
                    "SCRIPT", "FLUSH"
                )
            await request(some[turn % 2], running, run_s=0)

        assert all(one.engine.generation == 1 for one in some)


async def test_alone_and_refusing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.admission.node_side.REFUSE_AFTER_S", 0.05)
    async with nodes(engine.url, 1, users=ONE, refuse=True) as (a,):
        slot, holder = await a.user()
        engine.kill()
        await eventually(lambda: a.registry.side.refusing)
        with pytest.raises(Overloaded) as caught:
            await a.user()
        assert caught.value.code == "engine_unavailable"
        assert caught.value.retry_after_s
        late = asyncio.ensure_future(a.account(holder))
        await asyncio.sleep(0.05)
        assert not late.done()  # nothing is granted, nothing is cut

        engine.start()
        (await asyncio.wait_for(late, 5)).release()
        slot.release()
        assert not a.registry.side.refusing


# --- a node ---------------------------------------------------------------------------


async def test_the_slots_of_a_dead_node_come_back(engine: Engine) -> None:
    async with nodes(engine.url, 2, users=ONE, accounts={"one": 2}) as (a, b):
        reaped: list[str] = []
        b.engine.reaped = reaped.extend
        await holding(a, 2)
        [task] = await waiting(b)
        a.die()
        began = time.monotonic()
        await asyncio.wait_for(task, 5)

        assert time.monotonic() - began <= QUICK.ttl_s + 3 * QUICK.beat_s + 0.3
        assert reaped == [a.name]


async def test_a_dead_node_that_is_seen_to_end_is_reaped_at_once(
    engine: Engine,
) -> None:
    from gateway.shared import steps

    slow = NodeTiming(beat_s=0.5, ttl_s=10.0)
    more = {"users": ONE, "accounts": {"one": 2}, "timing": slow}
    async with nodes(engine.url, 2, **more) as (a, b):
        await holding(a, 2)
        [task] = await waiting(b)
        a.die()
        began = time.monotonic()
        assert await b.engine.asked(steps.reap(a.name)) == 2
        await asyncio.wait_for(task, 5)

        assert time.monotonic() - began < 0.2


async def test_a_node_that_stood_still_counts_above_the_limit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(engine.url, 2, users=ONE, accounts={"one": 2}) as (a, b):
        held = await holding(a, 2)
        tasks = await waiting(b, 3)
        with monkeypatch.context() as still:
            still.setattr(a.engine, "_beat", lambda **more: None)
            await eventually(lambda: sum(t.done() for t in tasks) == 2)  # its slots
        await eventually(lambda: a.engine.generation == 2)
        await eventually(lambda: [o.over for o in b.registry.side.over()] == [2])

        # what runs goes on; no slot is granted until it is below the limit
        held[0].release()
        held[1].release()
        await asyncio.sleep(0.1)
        [last] = [task for task in tasks if not task.done()]
        (await next(task for task in tasks if task.done())).release()
        (await asyncio.wait_for(last, 2)).release()
        await eventually(lambda: b.registry.side.over() == [])


async def test_a_node_that_stood_still_before_the_engine_died_grants_nothing(
    engine: Engine,
) -> None:
    """It may have been declared dead, and what it had may run at others."""
    async with nodes(engine.url, 2, users=ONE, accounts={"one": 4}) as (a, b):
        [held] = await holding(a, 1)
        await set_aside("aone", a, b)
        a.engine._timing = QUICK._replace(still_s=0.0)  # as if its last beat were old
        engine.kill()
        await eventually(lambda: not a.engine.up and not b.engine.up)
        waits = await waiting(a)
        [served] = await waiting(b)
        await asyncio.wait_for(served, 1)
        held.release()
        await asyncio.sleep(0.01)
        assert not waits[0].done()

        side = a.registry.side
        side._divide_later(side._equal_share)
        await asyncio.wait_for(waits[0], 1)


async def test_a_slot_that_has_just_come_here_is_not_above_the_limit(
    engine: Engine,
) -> None:
    """The last beat saw it at another node."""
    async with nodes(engine.url, 1, users=ONE, accounts={"one": 2}) as (a,):
        [slot] = await holding(a, 1)
        side = a.registry.side
        side._last["aone"] = LastBeat(used=2, held=0)
        assert [] == side.over()
        side._last["aone"] = LastBeat(used=3, held=0)
        assert [1] == [one.over for one in side.over()]
        slot.release()


async def test_a_node_that_was_cut_off_uses_its_share(engine: Engine) -> None:
    async with CutProxy(engine.socket) as proxy:
        more = {"users": ONE, "accounts": {"one": 4}, "prefix": "cut"}
        async with nodes(engine.url, 1, **more) as (a,):
            async with nodes(proxy.url, 1, **more) as (b,):
                await set_aside("aone", a, b)
                proxy.silent = True
                began = time.monotonic()
                tasks = await waiting(b, 4)
                await eventually(lambda: not b.engine.up)
                assert time.monotonic() - began < 1.5
                await eventually(lambda: sum(task.done() for task in tasks) == 2)

                proxy.silent = False
                proxy.cut()
                await eventually(lambda: b.engine.up)
                await asyncio.gather(*(asyncio.wait_for(t, 3) for t in tasks))
                assert a.engine.up


@pytest.mark.parametrize("after", range(12))
async def test_cancelled_anywhere_nothing_is_left(engine: Engine, after: int) -> None:
    prefix = "cancelled"
    more = {"users": {"alice": 1}, "accounts": {"one": 1}, "prefix": prefix}
    async with nodes(engine.url, 2, **more) as (a, b):
        running = Running()
        tasks = [
            asyncio.ensure_future(request(node, running, run_s=0.001))
            for node in (a, b, a, b)
        ]
        for _ in range(after):
            await asyncio.sleep(0 if after % 2 else 0.0004)
        for task in tasks[:3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)

        assert tasks[3].result() == "one"
        assert len(a.registry._book) == len(b.registry._book) == 0
        assert await keys_left(engine.url, prefix) == []
