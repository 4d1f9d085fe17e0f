"""What a budget still allows, and what a refusal says."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from gateway.accounting.budget import (
    KEPT_DAYS,
    BudgetRefusal,
    Budgets,
    BudgetStatus,
    DaySum,
)
from gateway.config.schema import Budget

HOUR = 3600.0
DAY = 24 * HOUR
TODAY = date(2026, 11, 24)
MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
NOON = MIDNIGHT + 12 * HOUR


def budgets(**keys: float) -> Budgets:
    return Budgets({"alice": Budget(**keys)})  # type: ignore[arg-type]


def refused(found: BudgetRefusal | None) -> BudgetRefusal:
    assert found is not None
    return found


def test_without_a_budget_nothing_is_refused() -> None:
    free = budgets()
    free.add("alice", NOON, 1e9, 10**12)

    assert free.admit("alice", 0.0, NOON) is None
    assert free.admit("bob", 0.0, NOON) is None
    assert [] == list(free.statuses("alice", NOON))


@pytest.mark.parametrize(
    ("keys", "usd", "tokens", "message", "wait_s"),
    [
        pytest.param(
            {"usd_per_day": 20.0},
            20.13,
            0,
            "Budget exceeded for user: 20.13 of 20.00 USD per day used,"
            " resets at 2026-11-25 00:00 UTC",
            12 * HOUR,
            id="money-of-a-day",
        ),
        pytest.param(
            {"usd_per_month": 300.0},
            300.0,
            0,
            "Budget exceeded for user: 300.00 of 300.00 USD per month used,"
            " resets at 2026-12-01 00:00 UTC",
            6.5 * DAY,
            id="money-of-a-month",
        ),
        pytest.param(
            {"tokens_per_day": 1000},
            0.0,
            1234,
            "Budget exceeded for user: 1234 of 1000 tokens per day used,"
            " resets at 2026-11-25 00:00 UTC",
            12 * HOUR,
            id="tokens-of-a-day",
        ),
        pytest.param(
            {"usd_per_day": 5.0, "usd_per_month": 10.0},
            12.0,
            0,
            "Budget exceeded for user: 12.00 of 10.00 USD per month used,"
            " resets at 2026-12-01 00:00 UTC",
            6.5 * DAY,
            id="of-two-the-one-that-lasts-longer",
        ),
    ],
)
def test_a_refusal_says_which_how_much_and_until_when(
    keys: dict[str, float], usd: float, tokens: int, message: str, wait_s: float
) -> None:
    used_up = budgets(**keys)
    used_up.add("alice", NOON - HOUR, usd, tokens)

    for refusal in (used_up.admit("alice", 0.0, NOON), used_up.check("alice", NOON)):
        assert message == refused(refusal).message
        assert wait_s == refused(refusal).retry_after_s
    assert used_up.admit("bob", 0.0, NOON) is None


def test_a_budget_is_there_until_it_is_used_up() -> None:
    nearly = budgets(usd_per_day=20.0)
    nearly.add("alice", NOON, 19.99, 0)
    nearly.add("alice", NOON, None, 5)

    assert nearly.check("alice", NOON) is None


@pytest.mark.parametrize(
    ("keys", "next_window"),
    [
        pytest.param({"usd_per_day": 1.0}, MIDNIGHT + DAY, id="day"),
        pytest.param({"tokens_per_day": 1}, MIDNIGHT + DAY, id="tokens"),
        pytest.param({"usd_per_month": 1.0}, MIDNIGHT + 7 * DAY, id="month"),
    ],
)
def test_it_is_back_with_the_next_window(
    keys: dict[str, float], next_window: float
) -> None:
    used_up = budgets(**keys)
    used_up.add("alice", NOON, 2.0, 2)

    assert used_up.check("alice", next_window - 1) is not None
    assert used_up.check("alice", next_window) is None


def test_a_month_is_the_sum_of_its_days() -> None:
    spread = budgets(usd_per_month=10.0)
    first = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    for day in range(24):
        spread.add("alice", first + day * DAY, 0.4, 0)
    spread.add("alice", first - 1, 100.0, 0)

    [status] = spread.statuses("alice", NOON)
    assert 9.6 == pytest.approx(status.used)
    assert not status.exceeded


def test_what_the_ledger_holds_is_counted() -> None:
    restarted = budgets(usd_per_day=2.0, tokens_per_day=100)
    restarted.load([DaySum("alice", TODAY, 1.5, 10), DaySum("bob", TODAY, 9.0, 900)])
    restarted.add("alice", NOON, 0.25, 5)

    assert [1.75, 15] == [one.used for one in restarted.statuses("alice", NOON)]


def test_a_request_counts_on_the_day_it_began() -> None:
    late = budgets(usd_per_day=1.0)
    late.add("alice", MIDNIGHT - 1, 5.0, 0)

    assert late.check("alice", MIDNIGHT) is None


def test_a_clock_that_jumps_neither_forgets_nor_forgives() -> None:
    """Ahead by a year, back again, then back by a day."""
    jumping = budgets(usd_per_day=1.0)
    jumping.add("alice", NOON, 2.0, 0)
    jumping.add("alice", NOON + 365 * DAY, 2.0, 0)

    assert jumping.check("alice", NOON) is not None
    assert jumping.check("alice", NOON - DAY) is None
    jumping.add("alice", NOON - DAY, 3.0, 0)
    assert jumping.check("alice", NOON - DAY) is not None
    assert [2.0] == [one.used for one in jumping.statuses("alice", NOON)]


def test_old_days_are_forgotten() -> None:
    years = budgets(usd_per_day=1.0)
    for day in range(1000):
        years.add("alice", NOON + day * DAY, 1.0, 1)

    used = years._used["alice"]
    assert KEPT_DAYS == len(used.usd) == len(used.tokens)
    assert years.check("alice", NOON + 999 * DAY) is not None


def test_changed_budgets_are_taken_up_and_nothing_is_forgotten() -> None:
    changed = budgets()
    changed.add("alice", NOON, 5.0, 0)

    changed.replace({"alice": Budget(usd_per_day=4.0)})

    assert changed.check("alice", NOON) is not None


def test_a_budget_that_is_taken_away_refuses_nothing() -> None:
    freed = budgets(usd_per_day=4.0, requests_per_minute=1)
    freed.add("alice", NOON, 5.0, 0)

    freed.replace({"alice": Budget()})

    assert [None, None] == [freed.admit("alice", 0.0, NOON) for _ in range(2)]
    assert [] == list(freed.statuses("alice", NOON))


# --- requests per minute ------------------------------------------------------------


def test_a_minute_takes_so_many_requests_and_no_more() -> None:
    three = budgets(requests_per_minute=3)
    for now in (100.0, 110.0, 120.0):
        assert three.admit("alice", now, NOON + now) is None

    refusal = refused(three.admit("alice", 130.0, NOON))

    assert 30.0 == refusal.retry_after_s
    assert BudgetStatus("requests_per_minute", 3.0, 3, 1, NOON + 30) == refusal.status
    assert (
        "Budget exceeded for user: 3 of 3 requests per minute used,"
        " resets at 12:00:30 UTC"
    ) == refusal.message


def test_a_place_is_free_when_the_oldest_is_a_minute_old() -> None:
    two = budgets(requests_per_minute=2)
    assert two.admit("alice", 100.0, NOON) is None
    assert two.admit("alice", 130.0, NOON) is None

    assert two.admit("alice", 159.9, NOON) is not None
    assert two.admit("alice", 160.0, NOON) is None
    assert two.admit("alice", 161.0, NOON) is not None


def test_a_refused_request_takes_no_place() -> None:
    one = budgets(requests_per_minute=1)
    assert one.admit("alice", 100.0, NOON) is None
    for now in range(101, 160):
        assert one.admit("alice", float(now), NOON) is not None

    assert one.admit("alice", 160.0, NOON) is None


def test_looking_again_after_the_wait_counts_nothing() -> None:
    one = budgets(requests_per_minute=1)
    assert one.admit("alice", 100.0, NOON) is None

    assert one.check("alice", NOON) is None


# --- status ---------------------------------------------------------------------------


def test_a_status_says_how_much_of_which_window_is_used() -> None:
    some = budgets(usd_per_day=20.0, usd_per_month=300.0, tokens_per_day=1000)
    some.add("alice", NOON, 5.0, 900)

    assert [
        ("usd_per_day", 25.0, 1440, MIDNIGHT + DAY),
        ("tokens_per_day", 90.0, 1440, MIDNIGHT + DAY),
        ("usd_per_month", pytest.approx(1.6667, abs=1e-4), 43200, MIDNIGHT + 7 * DAY),
    ] == [
        (one.budget, one.used_percent, one.window_minutes, one.resets_at)
        for one in some.statuses("alice", NOON)
    ]


def test_a_share_never_exceeds_the_whole() -> None:
    over = budgets(usd_per_day=1.0)
    over.add("alice", NOON, 5.0, 0)

    assert [100.0] == [one.used_percent for one in over.statuses("alice", NOON)]


@pytest.mark.parametrize(
    ("today", "minutes", "reset"),
    [
        pytest.param("2027-01-31", 31 * 1440, "2027-02-01", id="january"),
        pytest.param("2027-02-28", 28 * 1440, "2027-03-01", id="february"),
        pytest.param("2028-02-29", 29 * 1440, "2028-03-01", id="leap-day"),
        pytest.param("2026-12-31", 31 * 1440, "2027-01-01", id="end-of-the-year"),
    ],
)
def test_months_are_those_of_the_calendar(today: str, minutes: int, reset: str) -> None:
    now = datetime.fromisoformat(f"{today}T12:00+00:00").timestamp()

    [status] = budgets(usd_per_month=1.0).statuses("alice", now)

    assert minutes == status.window_minutes
    assert datetime.fromisoformat(f"{reset}T00:00+00:00").timestamp() == (
        status.resets_at
    )
