"""One timer for everybody who waits."""

from __future__ import annotations

import asyncio

import pytest

from gateway.ledger.timeout_queue import TimeoutQueue


class Overdue(Exception):
    """Not done in time."""


async def test_who_is_not_done_in_time_is_told() -> None:
    waits = TimeoutQueue(Overdue)
    first, second, third = (waits.make(0.01) for _ in range(3))
    second.set_result(None)
    third.cancel()

    with pytest.raises(Overdue):
        await first

    await second
    assert third.cancelled()


async def test_each_has_its_whole_time() -> None:
    waits = TimeoutQueue(Overdue)
    first = waits.make(0.01)
    with pytest.raises(Overdue):
        await first
    timer = waits._timer

    second = waits.make(0.01)

    assert timer is None and waits._timer is not None
    with pytest.raises(Overdue):
        await second


async def test_what_is_done_is_let_go_and_the_timer_ends() -> None:
    waits = TimeoutQueue(Overdue)
    for waiter in [waits.make(0.01) for _ in range(3)]:
        waiter.set_result(None)

    waits.forget_done()
    assert not waits._waiters

    while waits._timer is not None:
        await asyncio.sleep(0.005)
