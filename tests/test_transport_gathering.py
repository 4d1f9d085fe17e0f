"""The loop rests at high rates alone, never long, and never before a first event."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.transport import gathering
from gateway.transport.connection import Connection
from gateway.transport.gathering import MAX_PERIOD_S, MIN_EVENTS_S, Gathering
from gateway.transport.request import Origin, Route


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "LOOK_S", 0.001)


@pytest.fixture
async def made() -> AsyncIterator[Gathering]:
    one = Gathering()
    one.set_period(MAX_PERIOD_S)
    one.open_lane(asyncio.get_running_loop(), -1)
    yield one
    one.set_period(0.0)


async def look(made: Gathering, events: float) -> None:
    """Let *made* see *events* and nothing before them."""
    made.events = int(events)
    looked_at = made._looked_at
    while made._looked_at == looked_at:
        await asyncio.sleep(0)


async def test_it_rests_at_high_rates_alone(made: Gathering) -> None:
    await look(made, 1)
    assert not made.is_active
    await look(made, 1e6)
    assert made.is_active
    await asyncio.sleep(0)
    rests = made.rests
    for _ in range(4):
        await asyncio.sleep(0)
    assert made.rests > rests
    made.close_lane()
    await look(made, 0)
    assert not made.is_active
    assert made._timer is None  # nothing is left that wakes the loop
    rests = made.rests
    for _ in range(4):
        await asyncio.sleep(0)
    assert made.rests == rests


async def test_a_rate_just_below_is_none(made: Gathering) -> None:
    await look(made, MIN_EVENTS_S * gathering.LOOK_S - 1)
    assert not made.is_active


async def test_what_is_waited_for_ends_a_rest(made: Gathering) -> None:
    ours, theirs = socket.socketpair()
    poll = made._waited_for
    made.wait_for(ours.fileno())
    made.wait_for(ours.fileno())
    theirs.send(b"x")
    assert poll.poll(0) != []
    made.pass_over(ours.fileno())
    made.pass_over(ours.fileno())
    assert poll.poll(0) == []
    made.wait_for(-1)
    made.pass_over(-1)
    ours.close()
    theirs.close()


async def test_zero_switches_it_off() -> None:
    made = Gathering()
    made.set_period(0.0)
    made.open_lane(asyncio.get_running_loop(), -1)
    assert made._timer is None


async def test_a_reload_ends_the_rests(made: Gathering) -> None:
    await look(made, 1e6)
    made.set_period(0.0)
    await look(made, 1e6)
    assert not made.is_active
    assert made._timer is None


def test_a_period_is_bounded() -> None:
    made = Gathering()
    made.set_period(60.0)
    asked: list[float] = []
    wait = SimpleNamespace(poll=lambda seconds, _: asked.append(seconds))
    made._waited_for, made._loop = cast(Any, wait), asyncio.new_event_loop()
    made.is_active, made._rested_at = True, monotonic()
    made._rest()
    made._loop.close()
    assert [True] == [0 < seconds <= MAX_PERIOD_S for seconds in asked]


async def test_connections_outside_of_a_lane_are_waited_for() -> None:
    """Those that are read; else what they hold would end every rest."""
    ours, theirs = socket.socketpair()
    loop, owner = asyncio.get_running_loop(), cast(Any, Owner())
    connection = Connection(Route(Origin("http", "h", 80)), owner)
    await loop.connect_accepted_socket(lambda: connection, ours)
    waited_for = connection.gathering._waited_for
    theirs.send(b"x")
    assert waited_for.poll(0)
    connection.pause()
    assert not waited_for.poll(0)
    connection.resume()
    assert waited_for.poll(0)
    connection.divert(connection)
    connection.pause()
    connection.resume()
    assert not waited_for.poll(0)
    connection.divert(None)
    assert waited_for.poll(0)
    connection.abort()
    theirs.close()


class Owner:
    def discard(self, connection: Connection) -> None: ...
