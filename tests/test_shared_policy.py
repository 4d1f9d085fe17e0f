"""
The policy in the engine is that of one process: the same moves are made in today's
``Registry`` and by the scripts; grants, refusals, evictions and places are the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.interface import AccountsChanged, Holder, Slot
from gateway.admission.registry import Registry
from gateway.errors import Overloaded
from gateway.shared import steps
from gateway.shared.answers import LinePlace, Outcome
from gateway.shared.steps import LeaseReport
from tests.kit import virtual_time
from tests.kit.engine import running_engine
from tests.kit.engine_client import EngineClient

MOVES = settings(max_examples=150) if settings().derandomize else settings()
USERS = ("u", "v", "w")
ACCOUNTS = ("A", "B", "C")
NODES = ("n1", "n2")
TIERS = (
    *([["A"]], [["B"]], [["C"]], [["A", "B"]], [["A"], ["C"]], [["B", "C"], ["A"]]),
    *([["A", "B", "C"]], [["C"], ["B"], ["A"]]),
)
FOREVER = 1e9
counter = itertools.count()


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    with running_engine() as engine:
        yield engine.socket


class Request:
    """One request, in both worlds."""

    def __init__(self, lease: str, user: str, session: str) -> None:
        self.lease, self.user, self.session = lease, user, session
        self.holder = Holder(lease, user)
        self.task: asyncio.Task[Slot] | None = None
        self.slots: dict[str, Slot] = {}
        self.tiers: list[list[str]] = []
        self.admitted = False  # as its node knows it
        self.drains = False

    @property
    def node(self) -> str:
        return self.lease.partition(".")[0]

    @property
    def waits(self) -> bool:
        return self.holder.waiter is not None


class TwoWorlds:
    """Makes each move in both, and compares what comes of it."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.now = 0.0
        self.registry = Registry(clock=lambda: self.now)
        self.max_queued: dict[str, int] = {}
        self.accounts = set(ACCOUNTS)
        self.requests: dict[str, Request] = {}
        self.there: list[str] = []  # what came of a move in one process
        self.here: list[str] = []  # and in the engine
        self.twice = False

    def run(self, step: steps.EngineStep[Any]) -> Any:
        answer = self.client.run(step, twice=self.twice)
        self.hear()
        return answer

    def hear(self) -> None:
        for push in self.client.heard():
            self.here.append(" ".join((push.kind, push.lease, push.account)).strip())

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    def start(self, limits: list[int]) -> None:
        for node in NODES:
            self.client.listen(node)
            self.client.run(steps.beat(node, 0, join=True, ttl_s=3600))
        for user, limit in zip(USERS, limits):
            self.resize_user(user, (8, 0, 3, 2)[limit % 4], (50, 2, 1, 0)[limit // 4])
        for account, limit in zip(ACCOUNTS, limits[3:]):
            self.resize_account(account, (1, 1, 2, 3)[limit % 4])

    # --- the moves -------------------------------------------------------------------

    async def enter(
        self,
        user: str,
        node: str,
        session: str,
        ahead: list[list[str]] | None = None,
    ) -> Request:
        """*ahead*: the accounts that it asks for, too, where it need not wait."""
        lease = steps.lease_id(node, next(counter))
        request = self.requests[lease] = Request(lease, user, session)
        self.ask(
            request,
            "U",
            self.registry.user_slot(user, request.holder, FOREVER, session=session),
        )
        most, tiers = self.max_queued[user], ahead or []
        answer = self.run(
            steps.enter_user(lease, user, most, session=session, ahead=tiers)
        )
        request.admitted = answer.admitted or answer.outcome is Outcome.QUEUED
        self.answered(answer.outcome, f"U {lease}")
        await self.settle()
        if answer.account:
            request.tiers, request.admitted = tiers, True
            one = self.registry.account_slot(tiers, request.holder, FOREVER)
            self.ask(request, "A", one)
            self.answered(answer.outcome, f"A {lease} {answer.account}")
            await self.settle()
            assert request.slots["A"].name == answer.account
        return request

    def enter_account(
        self, request: Request, tiers: list[list[str]], alone: int
    ) -> None:
        prefer = tiers[-1][-1] if alone else ""
        names = {name for tier in tiers for name in tier} & self.accounts
        request.tiers = [[prefer], *tiers] if prefer in names else tiers
        fits, asked = names, request.tiers
        if prefer in names and alone == 2:
            fits, asked = {prefer}, [[prefer]]
        self.ask(
            request,
            "A",
            self.registry.account_slot(
                tiers,
                request.holder,
                FOREVER,
                prefer=prefer,
                prefer_until=self.now + (1e6 if alone == 2 else 0),
            ),
        )
        most = -1 if request.admitted else self.max_queued[request.user]
        answer = self.run(steps.enter_account(request.lease, asked, fits, most))
        if answer.outcome in (Outcome.GRANTED, Outcome.QUEUED):
            request.admitted = True
        self.answered(answer.outcome, f"A {request.lease} {answer.account}")

    def ask(self, request: Request, kind: str, asking: Any) -> None:
        request.task = asyncio.get_running_loop().create_task(asking)
        request.task.add_done_callback(partial(self.came, request, kind))

    def came(self, request: Request, kind: str, task: asyncio.Task[Slot]) -> None:
        """What the one process has answered."""
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            slot = request.slots[kind] = task.result()
            self.there.append(f"{kind} {request.lease} {slot.account}".strip())
        elif isinstance(error, AccountsChanged):
            self.there.append(f"anew {request.lease}")
        elif isinstance(error, Overloaded) and error.code == "queue_full":
            self.there.append(f"full {request.lease}")

    def answered(self, outcome: Outcome, granted: str) -> None:
        """What the engine has answered at once."""
        lease = granted.split()[1]
        if outcome is Outcome.GRANTED:
            self.here.append(granted.strip())
        elif outcome is Outcome.FULL:
            self.here.append(f"full {lease}")
        elif outcome is Outcome.UNKNOWN:
            self.here.append(f"anew {lease}")
        else:
            assert outcome is Outcome.QUEUED

    async def leave(self, request: Request) -> None:
        """It ends, whatever it has or waits for."""
        await self.gone(request)
        self.run(steps.leave(request.lease))

    async def gone(self, request: Request) -> None:
        del self.requests[request.lease]
        if request.task:
            request.task.cancel()
        await self.settle()
        for kind in ("A", "U"):
            if slot := request.slots.get(kind):
                slot.release()

    def leave_account(self, request: Request) -> None:
        request.slots.pop("A").release()
        self.run(steps.leave_account(request.lease))

    async def time_out(self, request: Request) -> None:
        """Its deadline has come; its session may come back to its position."""
        waiter = request.holder.waiter
        assert waiter is not None
        table = self.registry._table_of(request.holder)
        self.registry._expire(table, waiter)
        await self.gone(request)
        self.run(steps.leave(request.lease, reserve=request.session))

    def widen(self, request: Request) -> None:
        """It has waited for its session's own account for long enough."""
        assert request.holder.waiter is not None
        self.registry._accounts.accept_any(request.holder.waiter)
        self.regroup(request)

    def regroup(self, request: Request) -> None:
        fits = {name for tier in request.tiers for name in tier} & self.accounts
        answer = self.run(steps.regroup(request.lease, request.tiers, fits))
        self.answered(answer.outcome, f"A {request.lease} {answer.account}")

    def drain(self, request: Request) -> None:
        request.drains = True
        for kind in ("A", "U"):
            if slot := request.slots.get(kind):
                slot.drain(partial(self.there.append, f"E {request.lease}"))
        self.run(steps.drain(request.lease))

    def resize_user(self, user: str, limit: int, most: int) -> None:
        self.max_queued[user] = most
        self.registry.set_user(user, limit, most)
        self.conf(steps.user_gate(user), limit)

    def resize_account(self, account: str, limit: int) -> None:
        self.accounts.add(account)
        self.registry.set_account(account, limit)
        self.conf(steps.account_gate(account), limit)

    def remove_account(self, account: str) -> None:
        """Its waiters go on without it, one after the other."""
        self.accounts.discard(account)
        waiters = self.registry._accounts.queue.at(account)
        narrowed = [
            (waiter.holder.request_id, waiter.fits - {account}) for waiter in waiters
        ]
        self.registry.remove_account(account)
        self.conf(steps.account_gate(account), None)
        for lease, fits in narrowed:
            request = self.requests[lease]
            tiers = [[name for name in tier if name in fits] for tier in request.tiers]
            if not fits:
                tiers = request.tiers
                fits = frozenset(n for tier in tiers for n in tier) & self.accounts
            tiers = [tier for tier in tiers if tier] or [[account]]
            answer = self.run(steps.regroup(lease, tiers, fits or {account}))
            if answer.outcome is not Outcome.QUEUED:
                self.answered(answer.outcome, f"A {lease} {answer.account}")

    def conf(self, gate: str, limit: int | None) -> None:
        for step in steps.conf(NODES[0], "hash", [(gate, limit)]):
            self.run(step)

    def choose_anew(self) -> None:
        """Every request that waits for an account chooses again."""
        waiting = [r for r in self.requests.values() if r.waits and "U" in r.slots]
        self.registry.choose_anew()
        for request in waiting:
            self.run(steps.leave_account(request.lease, keep_turn=True))
            self.here.append(f"anew {request.lease}")

    async def kill(self, node: str) -> None:
        """A node ends with all that it has, its waiters first."""
        ended = [r for r in self.requests.values() if r.node == node]
        if any(request.drains for request in ended):
            return
        for request in sorted(ended, key=lambda one: not one.waits):
            del self.requests[request.lease]
            if request.task:
                request.task.cancel()
        await self.settle()
        slots = [slot for one in ended for slot in reversed(one.slots.values())]
        gates = list(dict.fromkeys((slot.scope, slot.name) for slot in slots))
        for slot in sorted(slots, key=lambda s: gates.index((s.scope, s.name))):
            slot.release()
        self.run(steps.reap(node))
        self.run(steps.beat(node, 0, join=True, ttl_s=3600))

    def resync(self, node: str) -> None:
        """A node says what it has: nothing changes."""
        reports = [
            report_of(r) for r in self.requests.values() if r.node == node and r.task
        ]
        before = self.client.keys()
        for step in steps.resync(node, reports):
            assert all(news.state == "E" for news in self.run(step))
        assert self.client.keys() == before
        self.here = [one for one in self.here if not one.startswith("E ")]

    # --- the comparison --------------------------------------------------------------

    async def compare(self) -> None:
        await self.settle()
        self.hear()
        for lease in {one.split()[1] for one in self.there if one.startswith("full")}:
            if not self.requests[lease].slots:
                del self.requests[lease]
        assert in_order(self.here) == in_order(self.there), (self.here, self.there)
        self.here.clear()
        self.there.clear()
        waiting = {r.lease: r.holder for r in self.requests.values() if r.waits}
        found = self.client.run(steps.places(list(waiting))).places
        assert {lease: numbers(place) for lease, place in found.items()} == {
            lease: (place.position, place.running, place.limit, place.waiting)
            for lease, holder in waiting.items()
            if (place := self.registry.queue_position(holder))
        }


def in_order(log: list[str]) -> tuple[list[str], list[str]]:
    """What was granted and refused in its order; the rest has none between requests."""
    rest = [one for one in log if one.startswith(("E ", "anew "))]
    return [one for one in log if one not in rest], sorted(rest)


def numbers(place: LinePlace) -> tuple[int, int, int, int]:
    used = sum(load.used for load in place.loads)
    limit = sum(load.limit for load in place.loads)
    return place.position, used, limit, place.waiting


def report_of(request: Request) -> LeaseReport:
    """What the node of *request* says that it has."""
    account = request.slots["A"].name if "A" in request.slots else ""
    state = "A" if account else "U" if "U" in request.slots else "u"
    if request.drains:
        state = "D"
    waiter = request.holder.waiter
    group: tuple[str, ...] = ()
    if waiter and state == "U":
        state, group = "a", tuple(waiter.fits)
    return LeaseReport(request.lease, state, request.user, account, group)


KINDS = (
    *("both",) * 10,
    *("finish",) * 5,
    *("account",) * 3,
    *("enter", "enter", "leave", "leave_account", "time_out", "widen", "drain"),
    *("resize_user", "resize_account", "remove_account", "anew", "kill", "resync"),
)
MOVE = st.tuples(st.sampled_from(KINDS), *[st.integers(0, 15)] * 3, st.booleans())
Move = tuple[str, int, int, int, bool]


async def make(worlds: TwoWorlds, move: Move) -> None:
    kind, i, j, k, worlds.twice = move
    every = list(worlds.requests.values())
    able = [r for r in every if may(kind, r)]
    one = able[i % len(able)] if able else None
    user, account = USERS[i % len(USERS)], ACCOUNTS[i % len(ACCOUNTS)]
    if kind in ("enter", "both"):
        tiers = TIERS[(j + k) % len(TIERS)]
        ahead = tiers if kind == "both" and k % 3 == 0 else None
        entered = await worlds.enter(user, NODES[j % 2], "s" if k % 2 else "", ahead)
        if kind == "both" and may("account", entered):
            worlds.enter_account(entered, tiers, k % 3)
    elif kind == "resize_user":
        worlds.resize_user(user, (8, 0, 1, 3)[j % 4], k)
    elif kind == "resize_account":
        worlds.resize_account(account, (1, 1, 2, 0)[j % 4])
    elif kind == "remove_account":
        worlds.remove_account(account)
    elif kind == "anew":
        worlds.choose_anew()
    elif kind == "kill":
        await worlds.kill(NODES[j % 2])
    elif kind == "resync":
        worlds.resync(NODES[j % 2])
    elif one is None:
        return
    elif kind == "account":
        worlds.enter_account(one, TIERS[j % len(TIERS)], k % 3)
    elif kind in ("leave", "finish"):
        await worlds.leave(one)
    elif kind == "time_out":
        await worlds.time_out(one)
    else:
        getattr(worlds, kind)(one)


def may(kind: str, request: Request) -> bool:
    """Whether this kind of move makes sense for *request*."""
    has = "".join(sorted(request.slots))
    match kind:
        case "account":
            return has == "U" and not request.waits and not request.drains
        case "leave_account" | "finish":
            return has == "AU" and not request.drains
        case "time_out":
            return request.waits
        case "widen":
            return has == "U" and request.waits
        case "drain":
            return "U" in has and not request.waits and not request.drains
    return True


@MOVES
@given(
    st.lists(st.integers(0, 15), min_size=6, max_size=6),
    st.lists(MOVE, min_size=25, max_size=50),
)
def test_the_same_moves_have_the_same_results(
    path: str, limits: list[int], moves: list[Move]
) -> None:
    async def play() -> None:
        worlds = TwoWorlds(client)
        worlds.start(limits)
        for move in moves:
            worlds.now += 1e-6
            await make(worlds, move)
            await worlds.compare()
        worlds.twice = False
        for request in list(worlds.requests.values()):
            await worlds.leave(request)
        await worlds.settle()
        left = [key for key in client.keys() if not key.startswith("kept:")]
        assert left == ["lim", "names", "nodes"]

    client = EngineClient(path, f"p{next(counter)}")
    try:
        virtual_time.run(play())
    finally:
        client.close()
