"""Admission of several nodes on one engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.kit.engine import Engine, running_engine
from tests.kit.nodes import Node, Running, keys_left, nodes, request


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
