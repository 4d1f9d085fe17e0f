"""
The limits while one process follows another: never exceeded, never lost, in order.

Two registries in one event loop; the messages between them come late, at random.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from typing import Any

import pytest

from gateway.admission.handover import LimitHeir, LimitLeaver
from gateway.admission.interface import Holder
from gateway.admission.overlap import OverlapRegistry

USERS = {"alice": 2, "bob": 3, "carol": 0}
ACCOUNTS = {"a": 3, "b": 2, "free": 0}


def registry_of() -> OverlapRegistry:
    registry = OverlapRegistry()
    for name, limit in USERS.items():
        registry.set_user(name, limit, 100)
    for name, limit in ACCOUNTS.items():
        registry.set_account(name, limit)
    return registry


class Crowd:
    """Requests at one registry, which run until they are let go."""

    def __init__(self, registry: OverlapRegistry, name: str) -> None:
        self.registry = registry
        self.name = name
        self.tasks: list[asyncio.Task[None]] = []
        self.running: list[asyncio.Event] = []
        self.order: list[str] = []
        self.switch = False

    def ask(self, user: str, accounts: list[str]) -> None:
        ident = f"{self.name}-{len(self.tasks)}"
        self.tasks.append(asyncio.create_task(self._run(ident, user, accounts)))

    async def _run(self, ident: str, user: str, accounts: list[str]) -> None:
        holder, deadline = Holder(ident, user), time.monotonic() + 60
        go = asyncio.Event()
        with await self.registry.user_slot(user, holder, deadline):
            for _ in range(2 if self.switch else 1):
                slot = await self.registry.account_slot((accounts,), holder, deadline)
                with slot:
                    self.order.append(ident)
                    self.running.append(go)
                    await go.wait()
                    go.clear()

    def finish_one(self, chance: random.Random) -> None:
        if self.running:
            self.running.pop(chance.randrange(len(self.running))).set()

    def cancel_one(self, chance: random.Random) -> None:
        chance.choice(self.tasks).cancel()


class Pair:
    """A process that leaves, and the one that follows it."""

    def __init__(self, old: OverlapRegistry | None = None) -> None:
        self.old, self.new = old or registry_of(), registry_of()
        self.to_new: deque[str] = deque()
        self.to_old: deque[str] = deque()
        self.heir = LimitHeir(self.new)
        self.leaver = LimitLeaver(self.old, lambda m: self.to_new.append(json.dumps(m)))
        first: dict[str, Any] = json.loads(json.dumps(self.leaver.begin()))
        self.heir.begin(0, first, lambda m: self.to_old.append(json.dumps(m)))
        self.heir.open()

    def deliver(self, chance: random.Random, most: int = 2) -> None:
        for queue, take in (
            (self.to_new, lambda message: self.heir.asked(0, message)),
            (self.to_old, self.leaver.answered),
        ):
            for _ in range(chance.randrange(most + 1)):
                if queue:
                    take(json.loads(queue.popleft()))

    def check(self) -> None:
        for scope, limits in (("user", USERS), ("account", ACCOUNTS)):
            tables = self.old.tables[scope], self.new.tables[scope]
            for name, limit in limits.items():
                used = [len(table.limiters[name].slots) for table in tables]
                assert not limit or sum(used) <= limit, (scope, name, used)


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def moved(pair: Pair, crowds: list[Crowd], chance: random.Random) -> None:
    """A few moves of everybody, checked after each."""
    for _ in range(120):
        crowd = chance.choice(crowds)
        move = chance.randrange(8)
        if move == 0 or (move < 4 and crowd.name == "new"):
            accounts = chance.sample(list(ACCOUNTS), chance.randrange(1, 3))
            crowd.ask(chance.choice(list(USERS)), accounts)
        elif move == 7 and crowd.tasks:
            crowd.cancel_one(chance)
        else:
            crowd.finish_one(chance)
        await settle()
        pair.check()
        pair.leaver.look()
        pair.deliver(chance)
        await settle()
        pair.check()


async def finished(pair: Pair, crowds: list[Crowd], chance: random.Random) -> None:
    """Let everything end: no request may stay behind."""
    async with asyncio.timeout(20):
        while any(not task.done() for crowd in crowds for task in crowd.tasks):
            for crowd in crowds:
                crowd.finish_one(chance)
            await settle()
            pair.leaver.look()
            pair.deliver(chance, 50)
            pair.check()
    pair.leaver.look()
    while pair.to_new or pair.to_old:
        pair.deliver(chance, 50)


@pytest.mark.parametrize("seed", range(40))
async def test_no_limit_is_exceeded_and_no_request_is_left_behind(seed: int) -> None:
    chance = random.Random(seed)
    old = registry_of()
    before = Crowd(old, "old")
    before.switch = seed % 2 == 1  # as after an account that failed
    for _ in range(chance.randrange(25)):
        accounts = chance.sample(list(ACCOUNTS), chance.randrange(1, 3))
        before.ask(chance.choice(list(USERS)), accounts)
    await settle()
    pair = Pair(old)
    after = Crowd(pair.new, "new")
    crowds = [before, after]

    await moved(pair, crowds, chance)
    await finished(pair, crowds, chance)

    for scope, limits in (("user", USERS), ("account", ACCOUNTS)):
        table = pair.new.tables[scope]
        assert not any(table.elsewhere.values())
        for name, limit in limits.items():
            assert limit == table.room(name)  # the whole limit is here again


async def test_those_who_wait_in_the_old_process_come_first() -> None:
    chance = random.Random(1)
    pair = Pair()
    old, new = Crowd(pair.old, "old"), Crowd(pair.new, "new")
    for _ in range(6):
        old.ask("alice", ["a"])
    await settle()
    pair.leaver.look()
    while pair.to_new or pair.to_old:
        pair.deliver(chance, 50)
    for _ in range(3):
        new.ask("alice", ["a"])
    started: list[str] = []
    async with asyncio.timeout(20):
        while len(started) < 9:
            for crowd in (old, new):
                crowd.finish_one(chance)
                await settle()
                started += crowd.order
                crowd.order.clear()
            pair.leaver.look()
            pair.deliver(chance, 50)
    await finished(pair, [old, new], chance)

    assert [f"old-{n}" for n in range(6)] == started[:6]


async def test_the_slots_of_one_that_dies_are_free() -> None:
    pair = Pair()
    old, new = Crowd(pair.old, "old"), Crowd(pair.new, "new")
    for _ in range(2):
        old.ask("alice", ["a"])
    await settle()
    pair.leaver.look()
    pair.deliver(random.Random(3), 50)
    pair.deliver(random.Random(4), 50)
    new.ask("alice", ["a"])
    await settle()
    assert [] == new.order
    pair.heir.gone(0)
    await settle()

    assert ["new-0"] == new.order
    for task in (*old.tasks, *new.tasks):
        task.cancel()


class Third:
    """A process that follows both of a pair."""

    def __init__(self, pair: Pair, moved_first: bool) -> None:
        self.registry = registry_of()
        self.heir = LimitHeir(self.registry)
        self.pair = pair
        self.leavers: list[LimitLeaver] = []
        self.queues: list[tuple[int, deque[str], deque[str]]] = []
        if moved_first:
            pair.heir.moved(0)
        pair.heir.stop()
        for number, registry in enumerate((pair.old, pair.new)):
            to_third: deque[str] = deque()
            to_leaver: deque[str] = deque()
            self.queues.append((number, to_third, to_leaver))
            leaver = LimitLeaver(registry, self.sending(to_third))
            self.leavers.append(leaver)
            first = json.loads(json.dumps(leaver.begin()))
            self.heir.begin(number, first, self.sending(to_leaver))
        self.heir.open()
        pair.heir.moved(0)
        pair.heir.gone(0)

    @staticmethod
    def sending(queue: deque[str]) -> Any:
        return lambda message: queue.append(json.dumps(message))

    def deliver(self, most: int, chance: random.Random) -> None:
        for number, to_third, to_leaver in self.queues:
            for _ in range(chance.randrange(most + 1)):
                if to_third:
                    self.heir.asked(number, json.loads(to_third.popleft()))
                if to_leaver:
                    self.leavers[number].answered(json.loads(to_leaver.popleft()))

    def check(self) -> None:
        registries = self.pair.old, self.pair.new, self.registry
        for scope, limits in (("user", USERS), ("account", ACCOUNTS)):
            for name, limit in limits.items():
                limiters = [one.tables[scope].limiters[name] for one in registries]
                used = sum(len(limiter.slots) for limiter in limiters)
                assert not limit or used <= limit, (scope, name)


@pytest.mark.parametrize("seed", range(20))
async def test_two_that_leave_share_with_the_one_that_follows(seed: int) -> None:
    """A restart while the one before it still has streams."""
    chance = random.Random(seed)
    old = registry_of()
    first = Crowd(old, "old")
    for _ in range(12):
        first.ask(chance.choice(list(USERS)), [chance.choice(list(ACCOUNTS))])
    await settle()
    pair = Pair(old)
    second = Crowd(pair.new, "new")
    await moved(pair, [first, second], chance)
    third = Third(pair, moved_first=seed % 2 == 0)
    crowds = [first, second, Crowd(third.registry, "third")]
    for step in range(2000):
        if step < 60:
            crowds[2].ask(chance.choice(list(USERS)), [chance.choice(list(ACCOUNTS))])
        chance.choice(crowds).finish_one(chance)
        await settle()
        third.check()
        for leaver in third.leavers:
            leaver.look()
        third.deliver(2, chance)
        await settle()
        third.check()
        if step > 60 and all(task.done() for c in crowds for task in c.tasks):
            break

    assert all(task.done() for crowd in crowds for task in crowd.tasks)


def test_an_answer_to_an_earlier_question_is_ignored() -> None:
    pair = Pair()
    pair.leaver.answered({"gives": {"user:alice": [7, 2]}})

    assert 0 == pair.old.tables["user"].room("alice")
