"""Admission of several nodes on one engine."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from gateway.admission.slot import Slot
from tests.kit.engine import Engine, running_engine
from tests.kit.nodes import Node, Running, eventually, keys_left, nodes, request


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as one:
        yield one


async def test_a_slot_goes_from_node_to_node_in_order(engine: Engine) -> None:
    async with nodes(engine.url, 3, users={"alice": 1}) as (one, two, three):
        first, _ = await one.user()
        order: list[int] = []

        async def take(node: Node, number: int) -> None:
            slot, _ = await node.user()
            order.append(number)
            await asyncio.sleep(0.001)
            slot.release()

        tasks = []
        for number, node in enumerate((two, three, one, three, two, one)):
            tasks.append(asyncio.ensure_future(take(node, number)))
            await asyncio.sleep(0.01)
        first.release()
        await asyncio.gather(*tasks)

        assert order == [0, 1, 2, 3, 4, 5]


ONE_THEN_TWO = (("one",), ("two",))


async def test_both_slots_may_come_with_one_answer(engine: Engine) -> None:
    """An account that is full by then, or was not the best, is waited for as ever."""
    async with nodes(engine.url, accounts={"one": 1, "two": 1}) as (node, other):
        slot, holder = await node.user(ahead=lambda: ONE_THEN_TWO)
        assert holder.account == "one"
        granted = at_once(node.account(holder, ONE_THEN_TWO))
        assert granted.account == "one"

        second, beside = await other.user(ahead=lambda: (("one",),))
        assert not beside.account  # it is not free
        with await other.account(beside, ONE_THEN_TWO) as found:
            assert found.account == "two"
        second.release()
        granted.release()
        slot.release()
        await nothing_held(node, other)


async def test_a_slot_that_came_along_and_is_not_wanted_is_given_back(
    engine: Engine,
) -> None:
    both = {"one": 1, "two": 1}
    async with nodes(engine.url, accounts=both, prefix="ahead") as (node, other):
        slot, _ = await node.user(ahead=lambda: ONE_THEN_TWO)
        waiting, holder = await other.user()
        waiter = asyncio.ensure_future(other.account(holder, (("one",),)))
        await eventually(lambda: holder.waiter is not None)
        slot.release()  # its request ended before it asked for an account
        granted = await waiter
        assert granted.account == "one"

        slot, chooses = await node.user(ahead=lambda: (("two",),))
        assert chooses.account == "two"
        waiter = asyncio.ensure_future(node.account(chooses, (("one",),)))
        await eventually(lambda: chooses.waiter is not None)
        with await other.account((await other.user())[1], (("two",),)) as second:
            assert second.account == "two"  # its choice is another by now
        granted.release()
        assert (await waiter).account == "one"
        waiting.release()
        slot.release()


async def test_a_slot_that_came_along_counts_when_the_engine_is_lost(
    engine: Engine,
) -> None:
    async with nodes(engine.url, 1, accounts={"one": 1}, prefix="alone") as (node,):
        slot, holder = await node.user(ahead=lambda: (("one",),))
        assert node.engine._connection is not None
        node.engine._connection.close()
        other, second = await node.user()
        waiter = asyncio.ensure_future(node.account(second, (("one",),)))
        await asyncio.sleep(0)
        assert not waiter.done()
        granted = await node.account(holder, (("one",),))
        assert granted.account == "one"
        granted.release()
        assert (await waiter).account == "one"
        slot.release()
        other.release()


async def test_both_slots_are_handed_on_before_their_request_is_over(
    engine: Engine,
) -> None:
    one = {"one": 1}
    async with nodes(engine.url, accounts=one, users=one, prefix="early") as some:
        node, other = some
        slot, holder = await node.user("one")
        full = await node.account(holder, (("one",),))
        waits = asyncio.ensure_future(other.user("one"))
        await eventually(lambda: bool(other.registry._users.queue))
        full.release()
        slot.hand_on()
        assert not holder.account and holder not in node.registry._holders.all
        beside, next_one = await waits
        granted = await other.account(next_one, (("one",),))
        await eventually(lambda: not len(node.registry._book))
        assert len(other.registry._book) == 1
        slot.release()
        assert len(other.registry._book) == 1
        granted.release()
        beside.release()
        await nothing_held(node, other)


def at_once(asking: Coroutine[Any, Any, Slot]) -> Slot:
    """What *asking* gives, which must not wait."""
    try:
        asking.send(None)
    except StopIteration as done:
        slot: Slot = done.value
        return slot
    raise AssertionError("it waits")


async def nothing_held(*some: Node) -> None:
    for node in some:
        await eventually(lambda: not len(node.registry._book))


async def test_no_limit_is_exceeded_and_none_is_left_idle(engine: Engine) -> None:
    running, prefix = Running(), "exact"
    limits = {"alice": 5, "bob": 4, "carol": 3}
    async with nodes(engine.url, 4, users=limits, prefix=prefix) as some:
        chance = random.Random(7)
        wants = [
            request(
                chance.choice(some),
                running,
                chance.choice(list(limits)),
                chance.choice([(("one", "two"),), (("one",), ("two",)), (("two",),)]),
                chance.uniform(0.0, 0.004),
            )
            for _ in range(600)
        ]
        tasks = [asyncio.ensure_future(want) for want in wants]
        for task in tasks[::9]:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)

        assert running.most["one"] == running.most["two"] == 3
        assert running.most["alice"] <= 5 and running.most["bob"] <= 4
        assert await keys_left(engine.url, prefix) == []
        assert [len(node.registry._book) for node in some] == [0, 0, 0, 0]


async def test_what_no_request_waits_for_is_given_back_with_the_next_question(
    engine: Engine,
) -> None:
    async with nodes(engine.url, 1, accounts={"one": 9}, prefix="later") as (node,):
        slot, holder = await node.user()
        (await node.account(holder, (("one",),))).release()
        slot.release()
        await asyncio.sleep(0)
        assert len(node.registry._book) == 1
        again, _ = await node.user()
        assert len(node.registry._book) == 1  # that of the second
        again.release()
        await nothing_held(node)


async def test_one_answer_may_be_enough(engine: Engine) -> None:
    """A request is ended at one node; another that hangs delays no operator."""
    async with nodes(engine.url, 3, prefix="enough") as (one, other, _):
        await eventually(lambda: one.engine.nodes == 3)
        other.registry._bus.answer("q", lambda text: text)
        began = time.monotonic()
        asking = one.registry._bus.ask("q", "1", enough="1", within_s=30.0)
        assert await asking == ["1"] and time.monotonic() - began < 10
        assert await one.registry._bus.ask("q", "0", enough="1", within_s=0.1) == ["0"]
