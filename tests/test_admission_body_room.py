"""Room for bodies: bounded by user, in order, and never stuck."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.admission.body_room import BodyRooms, BodyShare

MAX = 1000


async def passes() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def asks(share: BodyShare, need: int = 1, *, whole: bool = False) -> asyncio.Task[None]:
    return asyncio.create_task(share.room(need, whole=whole))


def complete(rooms: BodyRooms, size: int, user: str = "alice") -> BodyShare:
    """A body of *size* bytes that waits for its turn."""
    share = rooms.enter(user, MAX)
    share.take(size)
    share.close()
    return share


async def test_a_body_waits_until_there_is_room() -> None:
    rooms = BodyRooms()
    first, second = complete(rooms, 900), rooms.enter("alice", MAX)

    asked = asks(second, 101)
    await passes()
    assert not asked.done()
    first.release()
    await asked
    second.take(101)

    assert 101 == rooms.used("alice")


async def test_what_fits_does_not_wait() -> None:
    rooms = BodyRooms()
    complete(rooms, 900)

    async with asyncio.timeout(5):
        await rooms.enter("alice", MAX).room(100)


async def test_another_user_has_room_of_its_own() -> None:
    rooms = BodyRooms()
    complete(rooms, MAX)

    async with asyncio.timeout(5):
        await rooms.enter("bob", MAX).room(MAX)


async def test_a_larger_body_has_room_once_it_is_alone() -> None:
    rooms = BodyRooms()
    first, large = complete(rooms, 1), rooms.enter("alice", MAX)

    asked = asks(large, 5 * MAX)
    await passes()
    assert not asked.done()
    first.release()
    await asked
    large.take(5 * MAX)

    async with asyncio.timeout(5):  # and all that it still lacks
        await large.room(MAX)


async def test_the_oldest_is_the_next_and_the_small_do_not_pass_it() -> None:
    rooms = BodyRooms()
    first, large, small = (
        complete(rooms, 900),
        rooms.enter("alice", MAX),
        rooms.enter("alice", MAX),
    )

    waits = asks(large, 800)
    behind = asks(small, 10)
    await passes()
    assert not waits.done() and not behind.done()
    first.release()
    await passes()

    assert waits.done() and behind.done()


async def test_what_tells_its_length_has_all_of_its_room_from_the_start() -> None:
    rooms = BodyRooms()
    first, second = rooms.enter("alice", MAX), rooms.enter("alice", MAX)
    await first.room(800)

    asked = asks(second, 300)
    await passes()
    assert not asked.done()
    for _ in range(8):
        first.take(100)
        async with asyncio.timeout(5):
            await first.room(min(1, first.reserved))
    first.close()
    await passes()
    assert not asked.done()
    first.release()

    await asked


async def test_what_is_in_memory_does_not_wait_for_what_has_not_come() -> None:
    rooms = BodyRooms()
    slow, small = rooms.enter("alice", MAX), rooms.enter("alice", MAX)
    large, other = rooms.enter("alice", MAX), rooms.enter("alice", MAX)
    await slow.room(5 * MAX)
    asked = asks(large, 300)
    await passes()

    async with asyncio.timeout(5):
        await small.room(600, whole=True)
    small.take(600)
    behind = asks(other, 600, whole=True)
    await passes()

    assert not asked.done() and not behind.done()
    small.release()
    await behind
    asked.cancel()


async def test_room_is_promised_once() -> None:
    """Two that need it and have not run yet do not both get it."""
    rooms = BodyRooms()
    first = complete(rooms, MAX)
    asked = [asks(rooms.enter("alice", MAX), 600) for _ in range(3)]
    await passes()

    first.release()
    first.release()
    await passes()

    assert [True, False, False] == [one.done() for one in asked]
    for one in asked:
        one.cancel()


async def test_bodies_that_are_all_incomplete_are_not_stuck() -> None:
    """One of them goes on, and it alone, until it is complete and its turn comes."""
    rooms = BodyRooms()
    shares = [rooms.enter("alice", MAX) for _ in range(3)]
    for share in shares:
        share.take(400)

    asked = [asks(share) for share in shares]
    await passes()
    assert [True, False, False] == [one.done() for one in asked]
    shares[0].take(400)
    more = asks(shares[0])
    await passes()
    assert more.done()
    shares[0].close()
    await passes()
    assert not asked[1].done()  # the first one waits for a slot, and then makes room
    shares[0].release()
    await passes()

    assert asked[1].done()
    asked[2].cancel()


@pytest.mark.parametrize("how", ["cancelled", "released"])
async def test_one_that_gives_up_makes_room(how: str) -> None:
    rooms = BodyRooms()
    complete(rooms, 900)
    second, third = rooms.enter("alice", MAX), rooms.enter("alice", MAX)
    asked, behind = asks(second, 500), asks(third, 50)
    await passes()
    assert not behind.done()

    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    second.release()
    await passes()

    assert behind.done()


async def test_a_changed_limit_counts_at_once() -> None:
    rooms = BodyRooms()
    complete(rooms, 900)
    asked = asks(rooms.enter("alice", MAX), 500)
    await passes()
    assert not asked.done()

    rooms.resize("alice", 2 * MAX)
    rooms.resize("unknown", 2 * MAX)
    await asked


async def test_the_end_of_a_body_needs_no_room() -> None:
    rooms = BodyRooms()
    complete(rooms, MAX)
    share = rooms.enter("alice", MAX)
    asked = asks(share)
    await passes()
    assert not asked.done()

    share.wake()
    share.wake()
    await asked


async def test_a_share_is_released_once_and_leaves_nothing() -> None:
    rooms = BodyRooms()
    with rooms.enter("alice", MAX) as share:
        share.take(10)
        share.release()
        share.take(10)
        share.wake()
        await share.room(10**9)

    assert 0 == rooms.used("alice")
    assert {} == rooms._rooms


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_comes_everything_ends_within_the_bound(seed: int) -> None:
    """Bodies of any size in any order, some of which give up, through few slots."""
    chance, rooms = random.Random(seed), BodyRooms()
    slots, largest, most = asyncio.Semaphore(2), 1500, 0

    async def one(size: int) -> None:
        nonlocal most
        with rooms.enter("alice", MAX) as share:
            if chance.random() < 0.3:
                await share.room(size, whole=chance.random() < 0.5)
            while share.size < size:
                await share.room()
                await asyncio.sleep(0)
                share.take(min(100, size - share.size))
                most = max(most, rooms.used("alice"))
                if chance.random() < 0.02:
                    return
            share.close()
            async with slots:
                share.release()
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(one(chance.randrange(largest)))
            await asyncio.sleep(0)

    assert 0 == rooms.used("alice")
    assert {} == rooms._rooms
    assert most <= MAX + largest + 30 * 100  # each may be reading when room ends
