"""How many further attempts are made."""

from __future__ import annotations

import pytest

from gateway.accounts.retry_budget import (
    FLOOR,
    MAX_POOLS,
    RECENT_S,
    REFILL_PER_S,
    SHARE,
    RetryBudget,
)

POOL = frozenset("ab")


def taken(
    budget: RetryBudget,
    account: str,
    now: float,
    most: int = 2000,
    pool: frozenset[str] = POOL,
) -> int:
    """How many further attempts *account* gets at once."""
    return sum(budget.try_withdraw(pool, account, now) for _ in range(most))


def test_without_requests_there_is_the_floor() -> None:
    assert FLOOR == taken(RetryBudget(), "a", 0.0)


def test_every_request_earns_a_share() -> None:
    budget = RetryBudget()
    for _ in range(200):
        budget.deposit(POOL, 0.0)
    assert int(FLOOR + 200 * SHARE) == pytest.approx(taken(budget, "a", 0.0), abs=1)


def test_a_dead_pool_of_any_size_shares_one_balance() -> None:
    budget = RetryBudget()
    for _ in range(200):
        budget.deposit(POOL, 0.0)
    spent = sum(taken(budget, f"account-{n}", 0.0) for n in range(20))
    assert spent <= FLOOR + 200 * SHARE


def test_one_account_cannot_take_what_others_earn_later() -> None:
    budget = RetryBudget()
    taken(budget, "a", 0.0)
    for _ in range(100):
        budget.deposit(POOL, 0.0)
    assert taken(budget, "b", 0.0) > 0
    assert not budget.try_withdraw(POOL, "b", 0.0)


def test_what_was_earned_is_soon_forgotten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.deposit(POOL, 0.0)
    later = 12 * RECENT_S
    assert FLOOR == taken(budget, "a", later)


def test_the_floor_refills() -> None:
    budget = RetryBudget()
    taken(budget, "a", 0.0)
    assert not budget.try_withdraw(POOL, "a", 0.1)
    assert 5 * REFILL_PER_S == taken(budget, "a", 5.0)


def test_going_on_to_a_proven_account_is_free() -> None:
    budget = RetryBudget()
    assert all(budget.try_withdraw(POOL, "a", 0.0, proven=True) for _ in range(500))
    assert FLOOR == taken(budget, "a", 0.0)


def test_a_clock_that_stands_still_or_steps_back_does_no_harm() -> None:
    budget = RetryBudget()
    taken(budget, "a", 100.0)
    assert not budget.try_withdraw(POOL, "a", 99.0)


def test_a_dead_pool_takes_nothing_from_another() -> None:
    """Also where the two have an account in common."""
    budget = RetryBudget()
    taken(budget, "a", 0.0)
    assert not budget.try_withdraw(POOL, "a", 0.0)
    other = frozenset("ac")

    assert FLOOR == taken(budget, "a", 0.0, pool=other)


def test_requests_earn_for_their_own_pool() -> None:
    budget = RetryBudget()
    for _ in range(200):
        budget.deposit(POOL, 0.0)

    assert FLOOR == taken(budget, "c", 0.0, pool=frozenset("c"))


def test_the_number_of_balances_is_bounded() -> None:
    budget = RetryBudget()
    used = frozenset("used")
    budget.deposit(used, 0.0)
    taken(budget, "used", 0.0, pool=used)
    for n in range(2 * MAX_POOLS):
        budget.deposit(frozenset({f"account-{n}"}), 0.0)
        assert not budget.try_withdraw(used, "used", 0.0)

    assert MAX_POOLS == len(budget._pools)
