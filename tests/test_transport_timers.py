"""The timers of many requests: when they are called, and that each is called once."""

from __future__ import annotations

import asyncio
import random

from gateway.transport.timers import (
    FAR_S,
    FAR_TICK_S,
    NOT_WAITING,
    TICK_S,
    RequestTimers,
    timers_of,
)
from tests.kit import virtual_time


class Owner:
    """What waits; it may do something to others when it is called."""

    def __init__(self, timers: RequestTimers) -> None:
        self.timers = timers
        self.called: list[float] = []
        self.number = NOT_WAITING
        self.due = 0.0
        self.victim: Owner | None = None
        self.again_s = 0.0
        self.fails = False

    def wait(self, seconds: float) -> None:
        self.due = virtual_time.now() + seconds
        self.number = self.timers.at(self.due, self)

    def end(self) -> None:
        self.timers.end(self.number, self)

    def on_timer(self) -> None:
        self.called.append(virtual_time.now())
        if self.victim:
            self.victim.end()
        if self.again_s and len(self.called) == 1:
            self.wait(self.again_s)
        if self.fails:
            raise ValueError("its own fault")


def test_each_is_called_once_within_a_tick_unless_it_was_ended() -> None:
    async def main() -> None:
        rng, timers = random.Random(7), timers_of(asyncio.get_running_loop())
        owners = [Owner(timers) for _ in range(500)]
        for owner in owners:
            owner.wait(rng.choice((0.0, 0.001, TICK_S, 0.3, 10.0)) * rng.random())
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() / 10)
            if rng.random() < 0.5:
                owner.end()
                owner.due = owner.due if owner.called else 0.0
        await asyncio.sleep(11)
        for owner in owners:
            assert len(owner.called) == bool(owner.due)
            for at in owner.called:
                assert -0.001 <= at - owner.due <= TICK_S + 0.001
        assert not timers._owners and not timers._ticks

    virtual_time.run(main())


def test_what_one_does_when_it_is_called_holds_for_the_others() -> None:
    """It may end another of the same moment, and wait again at once."""

    async def main() -> None:
        timers = timers_of(asyncio.get_running_loop())
        first, second, third = (Owner(timers) for _ in range(3))
        first.victim, first.again_s = second, 0.5
        for owner in (first, second, third):
            owner.wait(1.0)
        await asyncio.sleep(3)

        assert [len(one.called) for one in (first, second, third)] == [2, 0, 1]

    virtual_time.run(main())


async def test_one_that_fails_keeps_no_other_from_being_called() -> None:
    loop = asyncio.get_running_loop()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    timers = timers_of(loop)
    broken, whole = Owner(timers), Owner(timers)
    broken.fails = True
    for owner in (broken, whole):
        owner.wait(0.01)
    async with asyncio.timeout(5):
        while not whole.called:
            await asyncio.sleep(0.005)

    assert [str(one) for one in failures] == ["its own fault"]


async def test_the_next_that_somebody_waits_for_is_waited_for() -> None:
    """An earlier one moves the loop's timer, one that has ended does not hold it."""
    loop = asyncio.get_running_loop()
    timers = RequestTimers(loop)
    late, early = Owner(timers), Owner(timers)
    late.wait(60.0)
    early.wait(0.02)
    late.end()
    async with asyncio.timeout(5):
        while not early.called:
            await asyncio.sleep(0.005)

    assert timers._handle is None
    assert timers_of(loop) is timers_of(loop)


def test_what_is_far_away_comes_within_a_second_and_leaves_few_ticks() -> None:
    async def main() -> None:
        timers = timers_of(asyncio.get_running_loop())
        for _ in range(6000):
            one = Owner(timers)
            one.wait(600.0)
            one.end()
            await asyncio.sleep(0.1)
        assert len(timers._ticks) == len(timers._owners) <= 602
        last = Owner(timers)
        last.wait(FAR_S + 0.5)
        await asyncio.sleep(FAR_S + 2)
        assert -0.001 <= last.called[-1] - last.due <= FAR_TICK_S + TICK_S + 0.001

    virtual_time.run(main())
