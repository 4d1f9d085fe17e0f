"""How many further attempts are made."""

from __future__ import annotations

import pytest

from gateway.accounts.budget import FLOOR, RECENT_S, REFILL_PER_S, SHARE, RetryBudget


def taken(budget: RetryBudget, account: str, now: float, most: int = 2000) -> int:
    """How many further attempts *account* gets at once."""
    return sum(budget.take(account, now) for _ in range(most))


def test_without_requests_there_is_the_floor() -> None:
    assert FLOOR == taken(RetryBudget(0.0), "a", 0.0)


def test_every_request_earns_a_share() -> None:
    budget = RetryBudget(0.0)
    for _ in range(200):
        budget.request(0.0)
    assert int(FLOOR + 200 * SHARE) == pytest.approx(taken(budget, "a", 0.0), abs=1)


def test_a_dead_pool_of_any_size_shares_one_balance() -> None:
    budget = RetryBudget(0.0)
    for _ in range(200):
        budget.request(0.0)
    spent = sum(taken(budget, f"account-{n}", 0.0) for n in range(20))
    assert spent <= FLOOR + 200 * SHARE


def test_one_account_cannot_take_what_others_earn_later() -> None:
    budget = RetryBudget(0.0)
    taken(budget, "a", 0.0)
    for _ in range(100):
        budget.request(0.0)
    assert taken(budget, "b", 0.0) > 0
    assert not budget.take("b", 0.0)


def test_what_was_earned_is_soon_forgotten() -> None:
    budget = RetryBudget(0.0)
    for _ in range(1000):
        budget.request(0.0)
    later = 12 * RECENT_S
    assert FLOOR == taken(budget, "a", later)


def test_the_floor_refills() -> None:
    budget = RetryBudget(0.0)
    taken(budget, "a", 0.0)
    assert not budget.take("a", 0.1)
    assert 5 * REFILL_PER_S == taken(budget, "a", 5.0)


def test_going_on_to_a_proven_account_is_free() -> None:
    budget = RetryBudget(0.0)
    assert all(budget.take("a", 0.0, proven=True) for _ in range(500))
    assert FLOOR == taken(budget, "a", 0.0)


def test_a_clock_that_stands_still_or_steps_back_does_no_harm() -> None:
    budget = RetryBudget(100.0)
    taken(budget, "a", 100.0)
    assert not budget.take("a", 99.0)
