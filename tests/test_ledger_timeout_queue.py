"""One timer for all futures."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.ledger import timeout_queue
from gateway.ledger.timeout_queue import TimeoutQueue


class Overdue(Exception):
    """Not done in time."""


async def test_a_future_that_is_not_done_in_time_fails() -> None:
    timeouts = TimeoutQueue(Overdue)
    first, second, third = (timeouts.future(0.01) for _ in range(3))
    second.set_result(None)
    third.cancel()

    with pytest.raises(Overdue):
        await first

    await second
    assert third.cancelled()


async def test_each_has_its_whole_time() -> None:
    timeouts = TimeoutQueue(Overdue)
    first = timeouts.future(0.01)
    with pytest.raises(Overdue):
        await first
    timer = timeouts._timer

    second = timeouts.future(0.01)

    assert timer is None and timeouts._timer is not None
    with pytest.raises(Overdue):
        await second


async def test_one_that_is_due_may_get_more_time() -> None:
    more = [0.01, 0.01]
    timeouts = TimeoutQueue(Overdue, lambda: more.pop() if more else 0.0)

    with pytest.raises(Overdue):
        await timeouts.future(0.01)

    assert not more


async def test_a_process_that_was_stopped_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeout_queue, "LATE_S", 0.05)
    timeouts = TimeoutQueue(Overdue)
    first, second = timeouts.future(0.01), timeouts.future(0.01)
    time.sleep(0.1)
    await asyncio.sleep(0.01)
    assert not first.done()
    first.set_result(None)  # what works for it goes on, too

    with pytest.raises(Overdue):
        await second


async def test_what_is_done_is_let_go_and_the_timer_ends() -> None:
    timeouts = TimeoutQueue(Overdue)
    for waiter in [timeouts.future(0.01) for _ in range(3)]:
        waiter.set_result(None)

    timeouts.discard_done()
    assert not timeouts._waiters

    while timeouts._timer is not None:
        await asyncio.sleep(0.005)
