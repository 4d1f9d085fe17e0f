"""Patience interrupts what takes too long, and nothing else."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.errors import UpstreamError
from gateway.relay.first_event_timeout import FirstEventTimeout
from gateway.transport.timers import NOT_WAITING
from tests.kit.standing import stand_still

NEVER_S = 60.0


async def test_what_takes_too_long_is_the_upstreams_failure() -> None:
    with pytest.raises(UpstreamError) as raised:
        with FirstEventTimeout(0.0):
            await asyncio.Event().wait()

    assert "upstream_timeout" == raised.value.code
    task = asyncio.current_task()
    assert task and 0 == task.cancelling()


async def test_what_is_there_in_time_may_go_on() -> None:
    with FirstEventTimeout(0.0) as patience:
        patience.end()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_its_timer_ends_with_the_block() -> None:
    with FirstEventTimeout(NEVER_S) as patience:
        assert patience._timer != NOT_WAITING

    assert patience._timer == NOT_WAITING


async def test_another_failure_stays_what_it_is() -> None:
    with pytest.raises(KeyError):
        with FirstEventTimeout(0.0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise KeyError from None


async def test_who_is_cancelled_besides_stays_cancelled() -> None:
    """The client left in the moment in which the upstream was too slow."""
    entered = asyncio.Event()

    async def wait() -> None:
        with FirstEventTimeout(0.0):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


async def test_a_loop_that_stood_still_is_not_blamed_on_the_upstream() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def answer_meanwhile() -> None:
        stand_still(0.3)
        theirs.send(b"x")

    with ours, theirs:
        with FirstEventTimeout(0.05):
            loop.call_soon(answer_meanwhile)
            came = await loop.sock_recv(ours, 1)

    assert b"x" == came


async def test_a_loop_that_stood_still_is_forgiven_once() -> None:
    asyncio.get_running_loop().call_soon(stand_still, 0.3)

    with pytest.raises(UpstreamError):
        async with asyncio.timeout(NEVER_S):
            with FirstEventTimeout(0.05):
                await asyncio.Event().wait()
