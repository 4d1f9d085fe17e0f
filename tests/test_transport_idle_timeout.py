"""The idle timeout counts the upstream's silence, not the loop's."""

from __future__ import annotations

import asyncio

from gateway.transport.idle_timeout import GRACE_S, IdleTimeout
from tests.kit.standing import stand_still

LIMIT_S = 0.05


class Watched:
    """An idle timeout, and whether it has fired."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.idle_timeout = IdleTimeout(asyncio.get_running_loop(), self, LIMIT_S)
        self.idle_timeout.start()

    def settle(self) -> None: ...

    def is_reading_paused(self) -> bool:
        return False

    def on_idle_timeout(self) -> None:
        self.reached.set()

    def heard(self) -> None:
        self.idle_timeout.last_received_at = asyncio.get_running_loop().time()


async def test_an_upstream_that_sends_nothing_reaches_the_limit() -> None:
    await asyncio.wait_for(Watched().reached.wait(), 5)


async def test_what_came_while_the_loop_stood_still_is_heard() -> None:
    watched = Watched()

    stand_still(0.3)
    await asyncio.sleep(0)  # a turn in which the look is due, and late
    await asyncio.sleep(0)
    assert not watched.reached.is_set()
    watched.heard()
    await asyncio.sleep(0.01)

    assert not watched.reached.is_set()
    watched.idle_timeout.stop()


async def test_a_loop_that_stood_still_is_forgiven_once() -> None:
    loop = asyncio.get_running_loop()
    watched = Watched()
    begun = loop.time()

    stand_still(0.3)
    await asyncio.wait_for(watched.reached.wait(), 5)

    assert GRACE_S <= loop.time() - begun
