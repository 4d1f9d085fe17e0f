"""What the processes of one gateway know of each other beside slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounts.accounts import Accounts
from gateway.accounts.attempts import AttemptKey
from gateway.accounts.session import Session
from gateway.accounts.verdict import judge_status
from gateway.config.schema import Account, Budget, User
from gateway.daemon.shared_state import SharedState
from gateway.errors import GatewayError
from gateway.ledger.day_sum import DaySum
from gateway.record import Record
from tests.kit.engine import Engine, running_engine
from tests.kit.nodes import Node, eventually, nodes

ACCOUNTS = [
    Account(name, f"http://{name}", protocol="chat", api_key=name)
    for name in ("one", "two")
]
FITTING = frozenset(("one", "two"))
USERS = [User("alice", ("a" * 64,), budget=Budget(usd_per_day=1.0))]
HASTY = [User("alice", ("a" * 64,), budget=Budget(requests_per_minute=3))]


class Process:
    """A node with its accounts and budgets."""

    def __init__(self, node: Node, users: list[User]) -> None:
        self.node = node
        self.accounts = Accounts(ACCOUNTS, dict)
        self.budgets = BudgetGuard(users)
        self.state = SharedState(
            node.engine, node.registry._bus, self.accounts, self.budgets
        )
        node.registry.per_minute = self.budgets.per_minute
        node.registry.too_often = self.budgets.too_often

    def key(self, account: str = "one") -> AttemptKey:
        return AttemptKey(account, "m", "alice", time.monotonic())

    def available(self, account: str = "one") -> bool:
        return bool(self.accounts.status.states()[account]["available"])


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as one:
        yield one


@asynccontextmanager
async def processes(
    engine: Engine, count: int = 2, users: list[User] = USERS, **more: Any
) -> AsyncIterator[list[Process]]:
    """Processes that have joined."""
    async with nodes(engine.url, count, **more) as some:
        made = [Process(node, users) for node in some]
        for one in made:
            one.state._joined()
        await asyncio.sleep(0.07)  # each has heard of the others by a beat
        yield made


def overloaded(process: Process, account: str = "one") -> None:
    verdict = judge_status(529, {}, b"{}", time.time())
    process.accounts.attempts.failed(process.key(account), verdict)


async def test_an_account_that_is_out_is_out_everywhere_and_returns(
    engine: Engine,
) -> None:
    async with processes(engine, 3) as (a, b, c):
        began = a.key()
        overloaded(a)
        await eventually(lambda: not b.available() and not c.available(), 1.0)
        assert not a.available() and b.available("two")

        # a request that was under way brings an answer: it is well again
        late = began._replace(started_at=time.monotonic())
        a.accounts.attempts.served(late, Session("s", "user", ""), "")
        await eventually(lambda: b.available() and c.available(), 1.0)


async def test_a_process_that_joins_later_hears_which_account_is_out(
    engine: Engine,
) -> None:
    async with processes(engine, 1, prefix="late") as (a,):
        overloaded(a)
        await asyncio.sleep(0.02)
        async with processes(engine, 1, prefix="late") as (b,):
            await eventually(lambda: not b.available(), 1.0)


async def test_two_processes_that_meet_two_outages_at_once_know_both(
    engine: Engine,
) -> None:
    async with processes(engine) as (a, b):
        overloaded(a, "one")
        overloaded(b, "two")
        overloaded(b, "one")
        for one in (a, b):
            await eventually(lambda: not one.available("one"), 1.0)
            await eventually(lambda: not one.available("two"), 1.0)


async def test_one_probe_in_all(engine: Engine) -> None:
    async with processes(engine, 3) as some:
        claimed = [await one.state.claim_probe("one") for one in some]
        assert claimed == [True, False, False]
        some[0].accounts.attempts.dropped(some[0].key())
        await asyncio.sleep(0.01)
        assert await some[2].state.claim_probe("one")


async def test_a_session_is_known_everywhere(engine: Engine) -> None:
    async with processes(engine) as (a, b):
        session = Session("key-1", "header", "x")
        a.accounts.attempts.served(a.key("two"), session, "")

        def known() -> str:
            return b.accounts._affinity.latest("key-1", FITTING, "m")

        await eventually(lambda: known() == "two", 1.0)
        a.accounts.attempts.served(a.key("one"), session, "")
        await eventually(lambda: known() == "one", 1.0)


async def test_a_budget_is_one(engine: Engine) -> None:
    async with processes(engine) as (a, b):
        record = Record("r1", time.time(), time.monotonic())
        record.user, record.cost_usd = "alice", 1.5
        a.state.add(record)

        def spent() -> bool:
            try:
                b.budgets.admit("alice", "other")
            except GatewayError:
                return True
            return False

        await eventually(spent, 1.0)


async def test_requests_a_minute_are_counted_together(engine: Engine) -> None:
    async with processes(engine, users=HASTY) as some:

        async def ask(number: int) -> str:
            one = some[number % 2]
            try:
                one.budgets.admit("alice", "other")
                slot, _ = await one.node.user()
            except GatewayError as error:
                assert 1 < (error.retry_after_s or 0) <= 60
                return error.code
            slot.release()
            return "served"

        # all at once: neither has heard of the other's
        answers = await asyncio.gather(*map(ask, range(12)))
        assert sorted(answers) == ["budget_exceeded"] * 9 + ["served"] * 3
        await eventually(lambda: not any(len(one.node.registry._book) for one in some))

        # alone, each refuses by what it has heard of
        some[0].node.engine._connection.close()  # type: ignore[union-attr]
        assert await ask(0) == "budget_exceeded"


async def test_who_made_which_reasoning_is_known_everywhere(engine: Engine) -> None:
    def foreign(process: Process, proof: str, account: str) -> bool:
        owners = process.accounts.reasoning._owners
        return owners.is_foreign("alice", proof, account, "")

    async with processes(engine, prefix="proofs") as (a, b):
        a.accounts.reasoning.made("alice", ["p1", "p2"], "one")
        b.accounts.reasoning.made("alice", ["p3"], "two")
        await eventually(lambda: foreign(b, "p2", "two") and foreign(a, "p3", "one"))
        assert not foreign(b, "p1", "one")
        b.accounts.reasoning.on_learnt([*b_keys(b)], "one", False)  # type: ignore[misc]
        await eventually(lambda: foreign(a, "p1", "one"))

        # one that comes later hears what is known, from two of the others
        async with processes(engine, 1, prefix="proofs") as (c,):
            await eventually(lambda: foreign(c, "p3", "one"))
            assert not foreign(c, "p3", "two")


def b_keys(process: Process) -> list[int]:
    """The keys of all proofs that *process* knows."""
    return [row[0] for row in process.accounts.reasoning.dump(100)]


def test_the_ledger_raises_sums_and_lowers_none() -> None:
    guard, today = BudgetGuard(USERS), datetime.now(UTC).date()
    guard.raise_to([DaySum("alice", today, 0.4, 10)])
    guard.raise_to([DaySum("alice", today, 0.3, 10)])
    guard.admit("alice", "other")
    guard.raise_to([DaySum("alice", today, 1.0, 10)])

    with pytest.raises(GatewayError):
        guard.admit("alice", "other")


async def test_without_the_engine_each_decides_alone() -> None:
    with running_engine() as engine:
        async with processes(engine) as (a, b):
            engine.kill()
            await eventually(lambda: not a.node.engine.up)
            overloaded(a)
            assert not a.available() and b.available()
            assert await b.state.claim_probe("one")
            engine.start()
            await eventually(lambda: not b.available(), 3.0)
