"""Thousands of random arrivals: the laws of admission hold at every step."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.admission.interface import Holder, Slot
from gateway.admission.limiter import Limiter
from gateway.admission.policy import FairQueue, Waiter
from gateway.admission.registry import Registry
from gateway.errors import GatewayError
from tests.kit import virtual_time
from tests.kit.virtual_time import now

QUIET = settings(max_examples=12)
USERS = st.sampled_from("uvwxyz")
NAMES = st.sampled_from("ABC")
FITS = st.frozensets(NAMES, min_size=1)


# --- the policy -----------------------------------------------------------------------


class Judge:
    """Watches a line from outside and knows only who came, left and was served."""

    def __init__(self) -> None:
        self.line: FairQueue[Waiter] = FairQueue()
        self.waiting: list[Waiter] = []
        self.arrivals = 0
        # turns of others at a name since a lane has begun or had its own turn
        self.passed: dict[tuple[str, frozenset[str]], dict[tuple[str, str], int]] = {}

    def come(self, user: str, fits: frozenset[str]) -> None:
        self.arrivals += 1
        waiter = Waiter(user, self.arrivals, fits)
        self.line.add(waiter)
        self.waiting.append(waiter)
        self.passed.setdefault((user, fits), defaultdict(int))

    def go(self, waiter: Waiter) -> None:
        self.line.remove(waiter)
        self._gone(waiter)

    def _gone(self, waiter: Waiter) -> None:
        self.waiting.remove(waiter)
        lane = (waiter.user, waiter.fits)
        if lane not in {(w.user, w.fits) for w in self.waiting}:
            del self.passed[lane]

    def free(self, name: str) -> None:
        """Serve one at *name* and judge whether it was right."""
        fitting = [w for w in self.waiting if name in w.fits]
        served = self.line.next(name)
        if not fitting:
            assert served is None
            return
        assert served in fitting, "a slot stayed idle, or went to a stranger"
        own = min(w.arrival for w in fitting if w.user == served.user)
        assert own == served.arrival, "overtaken by a younger one of the same user"
        self.line.serve(served, name)
        self._gone(served)
        for (user, fits), turns in self.passed.items():
            if name not in fits:
                continue
            if user == served.user:
                turns.clear()
            else:
                turns[served.user, name] += 1
                assert turns[served.user, name] <= 1, "two turns while one waited"

    def check_places(self) -> None:
        slots = {"A": 1, "B": 2, "C": 3}
        for waiter in self.waiting:
            rivals = sum(bool(w.fits & waiter.fits) for w in self.waiting)
            assert 1 <= self.line.position(waiter, slots) <= max(1, 2 * rivals)
        for name in slots:
            expected = {w for w in self.waiting if name in w.fits}
            assert expected == set(self.line.at(name))
            assert len(expected) == self.line.waiting(name)


class LineMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.judge = Judge()

    @rule(user=USERS, fits=FITS)
    def come(self, user: str, fits: frozenset[str]) -> None:
        self.judge.come(user, fits)

    @rule(user=USERS, fits=FITS, count=st.integers(2, 8))
    def come_together(self, user: str, fits: frozenset[str], count: int) -> None:
        for _ in range(count):
            self.judge.come(user, fits)

    @precondition(lambda self: self.judge.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.judge.go(data.draw(st.sampled_from(self.judge.waiting)))

    @rule(name=NAMES)
    def free(self, name: str) -> None:
        self.judge.free(name)

    @invariant()
    def places_are_sound(self) -> None:
        self.judge.check_places()


LineMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestLine = LineMachine.TestCase


@QUIET
@given(seed=st.integers(0, 2**32))
def test_thousands_of_arrivals_in_just_order(seed: int) -> None:
    chance = random.Random(seed)
    judge = Judge()
    sets = [frozenset(s) for s in ("A", "B", "AB", "ABC", "C")]
    for _ in range(3000):
        step = chance.random()
        if step < 0.5:
            judge.come(chance.choice("uuuuvvwxyz"), chance.choice(sets))
        elif step < 0.6 and judge.waiting:
            judge.go(chance.choice(judge.waiting))
        else:
            judge.free(chance.choice("ABC"))
    judge.check_places()


@settings(max_examples=1000)
@given(plan=st.lists(st.booleans(), min_size=1, max_size=40))
def test_no_newcomer_overtakes(plan: list[bool]) -> None:
    """True: one comes; False: a slot frees. Of one user, always the oldest is next."""
    judge, expected = Judge(), 1
    for comes in plan:
        if comes:
            judge.come("u", frozenset("A"))
        elif judge.waiting:
            served = judge.line.next("A")
            assert served and expected == served.arrival
            judge.free("A")
            expected += 1


def jain(shares: list[int]) -> float:
    """1 if all are equal, 1/n if one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


@QUIET
@given(depths=st.lists(st.integers(1, 20), min_size=5, max_size=5), data=st.data())
def test_five_users_share_one_slot_fairly(
    depths: list[int], data: st.DataObject
) -> None:
    order = [n for n, depth in enumerate(depths) for _ in range(depth)]
    judge = Judge()
    for n in data.draw(st.permutations(order)):
        judge.come(str(n), frozenset("A"))
    served = [0] * 5
    while all(done < depth for done, depth in zip(served, depths, strict=True)):
        waiter = judge.line.next("A")
        assert waiter
        served[int(waiter.user)] += 1
        judge.free("A")

        assert max(served) - min(served) <= 1
    rounds = min(depths)
    assert rounds < 4 or jain(served) >= 0.95


def test_a_twentieth_of_the_work_gets_a_fifth_of_the_slot() -> None:
    judge = Judge()
    for user, depth in zip("vwxyz", (20, 15, 10, 8, 5), strict=True):
        for _ in range(depth):
            judge.come(user, frozenset("A"))
    served: dict[str, int] = defaultdict(int)
    for _ in range(25):
        waiter = judge.line.next("A")
        assert waiter
        served[waiter.user] += 1
        judge.free("A")

    assert 1.0 == jain(list(served.values()))


# --- the registry ---------------------------------------------------------------------


def permits_of(limiter: Limiter) -> int:
    """How many slots its semaphore would grant now."""
    semaphore, taken = limiter._semaphore, 0
    assert semaphore
    while not semaphore.locked():
        with suppress(StopIteration):
            semaphore.acquire().send(None)
        taken += 1
    for _ in range(taken):
        semaphore.release()
    return taken


@dataclass
class Town:
    """Random life before a registry; it counts for itself what is in use."""

    chance: random.Random
    limits: dict[str, int] = field(default_factory=dict)
    in_use: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.registry = Registry(clock=asyncio.get_running_loop().time)
        for user in "uvwxyz":
            self.set_user(user)
        for account in "ABC":
            self.set_account(account)

    def set_user(self, name: str) -> None:
        self.limits[name] = self.chance.choice([0, 1, 2, 5])
        self.registry.set_user(name, self.limits[name], self.chance.choice([3, 50]))

    def set_account(self, name: str) -> None:
        self.limits[name] = self.chance.choice([1, 1, 2, 4])
        self.registry.set_account(name, self.limits[name])

    def taken(self, slot: Slot) -> None:
        """The limit holds at the very moment of a grant's use."""
        self.in_use[slot.name] += 1

    def left(self, slot: Slot) -> None:
        self.in_use[slot.name] -= 1
        slot.release()

    async def request(self, number: int) -> None:
        chance = self.chance
        user = chance.choice("uuuvvwxyz")
        holder = Holder(str(number), user)
        session = chance.choice(["", "s", "t"])
        deadline = now() + chance.choice([0.0, 2.0, 20.0, 500.0])
        try:
            slot = await self.registry.user_slot(
                user, holder, deadline, session=session
            )
            self.taken(slot)
            try:
                for _ in range(chance.choice([1, 1, 1, 2])):  # a failover now and then
                    await self.attempt(holder, deadline)
            finally:
                self.left(slot)
            self.outcomes["ok"] += 1
        except GatewayError as error:
            self.outcomes[error.code] += 1
        except ZeroDivisionError:
            self.outcomes["raised"] += 1

    async def attempt(self, holder: Holder, deadline: float) -> None:
        chance = self.chance
        tiers = chance.choice([["A"], ["B"], ["AB"], ["A", "B"], ["AB", "C"]])
        slot = await self.registry.account_slot(
            tiers,
            holder,
            deadline,
            prefer=chance.choice(["", "A", "B"]),
            prefer_until=now() + chance.choice([0.0, 1.0, 3.0]),
        )
        self.taken(slot)
        drains = False
        try:
            if chance.random() < 0.05:
                raise ZeroDivisionError
            await asyncio.sleep(chance.expovariate(1.0))
            drains = chance.random() < 0.1
        finally:
            if drains:
                asyncio.get_running_loop().call_later(9, self.drained, slot)
                slot.drain(lambda: self.drained(slot))
            else:
                self.left(slot)

    def drained(self, slot: Slot) -> None:
        if slot.holder in self.registry._holders.all and slot._issuer:
            self.left(slot)

    def check(self) -> None:
        """The laws hold between any two steps."""
        registry = self.registry
        for table in (registry._users, registry._accounts):
            for name, limiter in table.limiters.items():
                free = max(0, limiter.limit - len(limiter.slots))
                assert not limiter.limit or free == permits_of(limiter)
                fitting = [w for w in table.queue.at(name) if not w.done.done()]
                assert not (limiter.free and fitting), "idle while a request waits"
        queued: dict[str, int] = defaultdict(int)
        for holder in registry._holders.all:
            queued[holder.user] += holder.state.startswith("queued")
            place = registry.queue_position(holder)
            assert place is None or (place.position >= 1 and place.expected_s >= 0)
        assert {u: n for u, n in queued.items() if n} == registry._holders.queued

    async def live(self, requests: int) -> None:
        chance = self.chance
        tasks = []
        for number in range(requests):
            tasks.append(asyncio.create_task(self.request(number)))
            if chance.random() < 0.6:
                await asyncio.sleep(chance.expovariate(2.0))
            if chance.random() < 0.2:
                chance.choice(tasks).cancel()
            if chance.random() < 0.1:
                self.set_account(chance.choice("ABC"))
            if chance.random() < 0.1:
                self.set_user(chance.choice("uvwxyz"))
            if chance.random() < 0.02:
                self.registry.remove_user("z")
                self.set_user("z")
            if chance.random() < 0.02:
                self.registry.remove_account("C")
                self.set_account("C")
            self.check()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(10)  # the last drains end
        wrong = [
            r
            for r in results
            if r is not None and not isinstance(r, asyncio.CancelledError)
        ]
        assert [] == wrong


@QUIET
@given(seed=st.integers(0, 2**32))
def test_arrivals_departures_aborts_and_changes(seed: int) -> None:
    """After 500 of them nothing is in use, and every slot can be taken again."""

    async def scenario() -> None:
        town = Town(random.Random(seed))
        await town.live(500)
        registry = town.registry

        assert town.outcomes["ok"] > 50
        assert [] == await registry.holders()
        assert {(0, 0)} == {(c.in_use, c.waiting) for c in registry.counts()}
        assert set(town.in_use.values()) == {0}
        for name in "ABC":
            for _ in range(town.limits[name]):
                holder = Holder("again", "u")
                slot = await registry.account_slot([name], holder, now())
                assert name == slot.account

    virtual_time.run(scenario())


@QUIET
@given(seed=st.integers(0, 2**32))
def test_limits_are_reached_and_never_exceeded(seed: int) -> None:
    """Counted at the upstream, while the limits stay as they are."""

    async def scenario() -> None:
        chance = random.Random(seed)
        registry = Registry(clock=asyncio.get_running_loop().time)
        limits = {"A": 3, "B": 2}
        busy: dict[str, int] = defaultdict(int)
        most: dict[str, int] = defaultdict(int)
        for name, limit in limits.items():
            registry.set_account(name, limit)
        for user in "uvw":
            registry.set_user(user, 4, 1000)

        async def request(number: int) -> None:
            user = chance.choice("uvw")
            holder = Holder(str(number), user)
            with await registry.user_slot(user, holder, now() + 9999) as mine:
                with await registry.account_slot(["AB"], holder, now() + 9999) as slot:
                    for name in (mine.name, slot.name):
                        busy[name] += 1
                        most[name] = max(most[name], busy[name])
                    try:
                        await asyncio.sleep(chance.expovariate(1.0))
                    finally:
                        busy[slot.name] -= 1
                        busy[mine.name] -= 1

        tasks = [asyncio.create_task(request(n)) for n in range(500)]
        for task in chance.sample(tasks, 100):
            await asyncio.sleep(chance.expovariate(1.0))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert limits == {name: most[name] for name in limits}
        assert all(most[user] <= 4 for user in "uvw")
        assert [] == await registry.holders()

    virtual_time.run(scenario())


# --- the promise ----------------------------------------------------------------------

Seconds = Callable[[random.Random], float]


@pytest.mark.parametrize(
    "slots", [pytest.param({"A": 1}, id="one"), pytest.param({"A": 3, "B": 3}, id="6")]
)
@pytest.mark.parametrize("users", ["u", "uvwxy"])
@pytest.mark.parametrize(
    "service_s",
    [
        pytest.param(lambda chance: 10.0, id="alike"),
        pytest.param(lambda chance: chance.uniform(5, 15), id="5-to-15"),
        pytest.param(lambda chance: 10 * chance.lognormvariate(-0.125, 0.5), id="tail"),
    ],
)
def test_the_promised_wait_is_within_a_factor_of_two(
    slots: dict[str, int], users: str, service_s: Seconds
) -> None:
    """Of 90 of 100 requests in a queue that stays about fifteen deep."""

    async def scenario() -> float:
        chance = random.Random(7)
        registry = Registry(clock=asyncio.get_running_loop().time)
        for name, limit in slots.items():
            registry.set_account(name, limit)
        for user in users:
            registry.set_user(user, 0, 1000)
        kept: list[bool] = []
        room = asyncio.Semaphore(sum(slots.values()) + 15)

        async def request(number: int) -> None:
            holder = Holder(str(number), chance.choice(users))
            asked = now()
            asyncio.get_running_loop().call_soon(promised, holder, promise := [])
            with await registry.account_slot([list(slots)], holder, now() + 1e6):
                waited_s = now() - asked
                if promise and number > 50:
                    kept.append(waited_s / 2 <= promise[0] <= waited_s * 2)
                await asyncio.sleep(service_s(chance))
            room.release()

        def promised(holder: Holder, promise: list[float]) -> None:
            if place := registry.queue_position(holder):
                promise.append(place.expected_s)

        async with asyncio.TaskGroup() as tasks:
            for number in range(500):
                await room.acquire()
                tasks.create_task(request(number))
        assert len(kept) > 400
        return sum(kept) / len(kept)

    assert virtual_time.run(scenario()) >= 0.9
