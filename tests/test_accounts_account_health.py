"""
What one user, one model or one clock error does to an account, and what it does not.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.accounts.account_health import (
    BROKEN_STREAMS,
    MAX_MODEL_OUTAGES,
    MAX_SERVED_MODELS,
    MAX_USERS,
    PROVEN_S,
    AccountHealth,
)
from gateway.accounts.backoff import LONE_S, POLICIES
from gateway.accounts.health import STALE_S, Health
from gateway.accounts.health_event import HealthEvent
from gateway.accounts.outage import RAMP_S, Outage
from gateway.accounts.saved_outages import MAX_RESTORED_STRIKES
from gateway.accounts.verdict import Verdict, judge_status

A, B, M = "a", "b", "gpt-x"
ALICE, BOB, CAROL = "alice", "bob", "carol"


def steady() -> Health:
    """Health without jitter: every window exactly as the pace says."""
    return Health(lambda: 0.5)


def http(status: int, body: bytes = b"{}") -> Verdict:
    return judge_status(status, {}, body, 0.0)


def refused(health: Health, user: str, now: float) -> list[HealthEvent]:
    return health.failed(A, M, http(401), now, now, user)


def ok(health: Health, user: str, now: float, model: str = M) -> bool:
    return health.available(A, model, now, user).ok


# --- a credential that is refused -------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_one_users_refusal_takes_the_account_from_no_other_user(status: int) -> None:
    health = steady()
    health.failed(A, M, http(status), 0.0, 0.0, BOB)

    assert not ok(health, BOB, 0.0)
    assert ok(health, ALICE, 0.0)


@pytest.mark.parametrize("asks", [1, 4, 20])
def test_nor_do_many_of_them(asks: int) -> None:
    health = steady()
    for n in range(asks):
        refused(health, BOB, float(n))

    assert ok(health, ALICE, float(asks))


def test_a_second_users_word_takes_it_out() -> None:
    health = steady()
    refused(health, BOB, 0.0)
    lines = refused(health, ALICE, 1.0)

    assert ["account.cooled"] == [line.event for line in lines]
    assert not ok(health, CAROL, 1.0)
    assert not health.available(A, M, 1.0).ok


def test_also_when_both_were_asked_at_once() -> None:
    health = steady()
    health.failed(A, M, http(401), 0.0, 1.0, BOB)
    health.failed(A, M, http(401), 0.0, 1.1, ALICE)

    assert not ok(health, CAROL, 1.2)


def test_an_answer_in_between_takes_the_first_word_back() -> None:
    """Else two users' mistakes, hours apart, would take it from everybody."""
    health = steady()
    refused(health, BOB, 0.0)
    health.succeeded(A, M, 1.0, 2.0, CAROL)
    refused(health, ALICE, 3.0)

    assert ok(health, CAROL, 3.0) and ok(health, BOB, 3.0)
    assert not ok(health, ALICE, 3.0)


def test_an_answer_to_an_older_request_does_not() -> None:
    """It was let in before the key was withdrawn."""
    health = steady()
    refused(health, BOB, 5.0)
    health.succeeded(A, M, 4.0, 6.0, CAROL)
    refused(health, ALICE, 7.0)

    assert not ok(health, CAROL, 7.0)


def test_a_probes_word_takes_it_out() -> None:
    health = steady()
    refused(health, BOB, 0.0)
    again = POLICIES["refused"].first_s
    assert health.available(A, M, again, BOB).probe
    refused(health, BOB, again)

    assert not ok(health, ALICE, again)


def test_but_not_where_others_are_served() -> None:
    health = steady()
    refused(health, BOB, 0.0)
    again = POLICIES["refused"].first_s
    # Sent before the first refusal, so that it proves nothing about that.
    health.succeeded(A, M, -1.0, again - 1, ALICE)
    refused(health, BOB, again)

    assert ok(health, ALICE, again)


@pytest.mark.parametrize("users", [[ALICE], [ALICE, BOB], [ALICE, BOB, CAROL]])
def test_a_key_that_is_dead_for_everybody_is_asked_four_times_at_most(
    users: list[str],
) -> None:
    """As the only account, all of them trying on, within the time between probes."""
    health, asked = steady(), 0
    for n in range(40):
        now, user = n * LONE_S / 50, users[n % len(users)]
        if health.last_resort(A, M, now, user).ok:
            assert health.started(A, M, now, last_resort=True, user=user)
            asked += 1
            refused(health, user, now)

    assert asked <= 4


def test_while_it_serves_others_the_log_is_not_alarmed() -> None:
    health = steady()
    health.succeeded(A, M, 0.0, 0.0, ALICE)

    assert [] == refused(health, BOB, 1.0)
    assert health.available(A, M, 1.0).ok  # as /readyz shows it
    late = PROVEN_S + 2.0
    assert ["account.cooled"] == [line.event for line in refused(health, CAROL, late)]


def test_with_one_user_alone_it_is_shown_as_refused() -> None:
    health = steady()
    health.succeeded(A, M, 0.0, 0.0, BOB)

    assert ["account.cooled"] == [line.event for line in refused(health, BOB, 1.0)]
    assert "refused" == health.available(A, M, 1.0).reason
    assert [HealthEvent("account.recovered", {"account": A})] == health.succeeded(
        A, M, 2.0, 3.0, BOB
    )
    assert "" == health.available(A, M, 3.0).reason


def test_an_old_word_counts_no_more() -> None:
    health = steady()
    refused(health, BOB, 0.0)
    late = POLICIES["refused"].first_s + STALE_S + 1
    refused(health, ALICE, late)

    assert ok(health, CAROL, late)


def test_other_failures_are_everybodys_at_once() -> None:
    for status in (402, 429, 500, 529):
        health = steady()
        health.failed(A, M, http(status), 0.0, 0.0, BOB)
        assert not ok(health, ALICE, 0.0), status


def test_a_refusal_beside_a_limit_leaves_the_limit() -> None:
    health = steady()
    health.failed(A, M, http(429), 0.0, 0.0, ALICE)
    refused(health, BOB, 0.5)

    assert "rate_limited" == health.available(A, M, 1.0, ALICE).reason


def test_the_users_that_are_remembered_are_bounded() -> None:
    one = AccountHealth()
    for n in range(3 * MAX_USERS):
        one.note_served(M, f"user-{n}", 0.0)
        one.set_user_outage(
            f"user-{n}", Outage("refused", 0.0, 0.0, 9.0, 9.0, False, 1)
        )
    assert MAX_USERS == len(one.by_user) == len(one._users)


# --- streams that break -----------------------------------------------------------


def broke(health: Health, user: str, now: float) -> list[HealthEvent]:
    health.succeeded(A, M, now, now, user)  # the first output
    return health.broke(A, now, now + 0.1, user)


def test_three_broken_streams_of_two_users_take_an_account_out() -> None:
    health = steady()
    assert [] == broke(health, ALICE, 0.0)
    assert [] == broke(health, BOB, 1.0)
    (line,) = broke(health, ALICE, 2.0)

    assert ("account.cooled", "failed") == (line.event, line.facts["reason"])
    found = health.available(A, M, 2.1, CAROL)
    assert (False, True) == (found.ok, found.shunned)


def test_those_of_one_user_may_be_that_users_doing() -> None:
    health = steady()
    for n in range(10 * BROKEN_STREAMS):
        assert [] == broke(health, ALICE, float(n))

    assert ok(health, ALICE, 100.0)


def test_a_whole_answer_in_between_begins_anew() -> None:
    health = steady()
    broke(health, ALICE, 0.0)
    broke(health, BOB, 1.0)
    health.completed(A, CAROL, 2.0)

    assert [] == broke(health, ALICE, 3.0)
    assert [] == broke(health, BOB, 4.0)
    assert ok(health, ALICE, 5.0)


def broken() -> Health:
    health = steady()
    for n, user in enumerate((ALICE, BOB, CAROL)):
        broke(health, user, float(n))
    return health


def test_a_first_output_is_no_proof_a_whole_answer_is() -> None:
    health = broken()
    until = health.available(A, M, 2.2).until
    assert until is not None
    assert health.started(A, M, until, user=ALICE)

    assert [] == health.succeeded(A, M, until, until, ALICE)
    assert not ok(health, BOB, until)
    lines = health.completed(A, ALICE, until + 1)
    assert ["account.recovered"] == [line.event for line in lines]
    assert ok(health, BOB, until + 1)
    assert "" == health.available(A, M, until + 1 + RAMP_S).reason


def test_each_further_one_doubles_the_window() -> None:
    health, now, windows = broken(), 2.1, []
    for _ in range(3):
        until = health.available(A, M, now).until
        assert until is not None
        windows.append(round(until - now, 1))
        health.started(A, M, until, user=ALICE)
        health.succeeded(A, M, until, until, ALICE)
        now = until + 0.1
        health.broke(A, until, now, ALICE)
    assert [2.0, 4.0, 8.0] == windows


def test_those_that_broke_at_once_are_one_strike() -> None:
    health = broken()
    until = health.available(A, M, 2.2).until
    for _ in range(20):
        assert [] == health.broke(A, 1.5, 2.2, BOB)

    assert until == health.available(A, M, 2.2).until


def test_alone_it_is_asked_all_the_same() -> None:
    health = broken()
    for n in range(50):
        assert health.started(A, M, 3.0 + n / 100, user=ALICE)
        broke(health, ALICE, 3.0 + n / 100)
    assert health.last_resort(A, M, 4.0).ok


def test_a_graver_word_is_not_shortened() -> None:
    health = steady()
    broke(health, ALICE, 0.0)
    broke(health, BOB, 1.0)
    health.failed(A, M, http(402), 1.5, 1.5, BOB)

    assert [] == health.broke(A, 1.0, 2.0, CAROL)
    assert "quota" == health.available(A, M, 2.0).reason


# --- what clients can make grow ---------------------------------------------------


def test_invented_models_do_not_remove_a_mark_of_the_account() -> None:
    """However many: the marks on models are bounded apart."""
    health = steady()
    health.failed(A, M, http(402), 0.0, 0.0, ALICE)
    health.failed(B, M, http(402), 0.0, 0.0, ALICE)
    for n in range(5000):
        for name in (A, B):
            health.failed(name, f"invented-{n}", http(404, NO_MODEL), 1.0, 1.0, BOB)

    for name in (A, B):
        assert "quota" == health.available(name, M, 2.0, ALICE).reason
        assert MAX_MODEL_OUTAGES == len(health._accounts[name].by_model)


NO_MODEL = b'{"error":{"code":"model_not_found","message":"no"}}'
BUSY = b'{"error":{"code":"server_is_overloaded","message":"no"}}'


def test_invented_models_do_not_remove_a_mark_of_one_that_is_served() -> None:
    health = steady()
    health.succeeded(A, M, 0.0, 0.0, ALICE)
    health.failed(A, M, http(503, BUSY), 1.0, 1.0, ALICE)
    for n in range(2 * MAX_MODEL_OUTAGES):
        health.failed(A, f"invented-{n}", http(404, NO_MODEL), 1.0, 1.0, BOB)

    assert "overloaded" == health.available(A, M, 1.5, ALICE).reason


def test_models_that_one_account_accepts_do_not_make_another_unproven() -> None:
    """Some servers answer to any name."""
    health = steady()
    health.succeeded(B, M, 0.0, 0.0, ALICE)
    for n in range(2 * MAX_SERVED_MODELS):
        health.succeeded(A, f"invented-{n}", 0.0, 0.0, BOB)

    assert health.proven(B, M, 1.0, ALICE) and health.has_served(B, M)
    assert MAX_SERVED_MODELS == len(health._accounts[A].served)


# --- after a restart --------------------------------------------------------------


def row(**fields: Any) -> dict[str, Any]:
    return {
        "account": A,
        "model": "",
        "reason": "failed",
        "since": 1_000_000.0,
        "until": 1_000_030.0,
        "told": False,
        "strikes": 1,
        **fields,
    }


DAY = 86400.0
SKEWS = [DAY, 365 * DAY, 1e12, 1e300]


@pytest.mark.parametrize("reason", list(POLICIES))
@pytest.mark.parametrize("skew_s", SKEWS)
@pytest.mark.parametrize("dated", [True, False])
def test_a_clock_error_extends_no_outage_beyond_the_reasons_cap(
    reason: str, skew_s: float, dated: bool
) -> None:
    health, cap_s = steady(), POLICIES[reason].cap_s  # type: ignore[index]
    until = 1_000_030.0 + skew_s
    health.load([row(reason=reason, until=until, **{"told": dated})], 5.0, 1_000_000.0)

    found = health.available(A, M, 5.0)
    assert not found.ok
    assert found.until is not None and found.until <= 5.0 + cap_s
    assert health.available(A, M, 5.0 + cap_s).ok


@pytest.mark.parametrize("skew_s", [*SKEWS, 3600.0])
def test_a_clock_that_went_on_too_far_forgets_the_window(skew_s: float) -> None:
    health = steady()
    health.load([row()], 5.0, 1_000_000.0 + skew_s)

    assert ok(health, ALICE, 5.0)


@pytest.mark.parametrize("since", [0.0, -1e300, 1e300, 1_000_000.0 + DAY])
def test_an_odd_beginning_teaches_no_odd_recovery(since: float) -> None:
    """What an account takes to recover is learned from the outage's length."""
    health = steady()
    health.load([row(since=since, until=1_000_010.0)], 5.0, 1_000_000.0)
    health.started(A, M, 16.0)
    health.succeeded(A, M, 16.0, 16.0)

    recovery = health._recovery[A]
    assert 0.0 <= recovery.mean_s <= POLICIES["failed"].cap_s + 10


@pytest.mark.parametrize(
    "fields",
    [
        {"until": float("nan")},
        {"until": float("inf")},
        {"since": float("nan")},
        {"strikes": "many"},
        {"reason": ["failed"]},
        {"reason": "magic"},
        {"until": None},
    ],
)
def test_odd_rows_are_left_out(fields: dict[str, Any]) -> None:
    health = steady()
    health.load([row(**fields)], 5.0, 1_000_000.0)

    assert ok(health, ALICE, 5.0)


def test_strikes_are_bounded() -> None:
    health = steady()
    health.load([row(strikes=10**30)], 5.0, 1_000_000.0)

    mark = health._accounts[A].whole
    assert mark is not None and MAX_RESTORED_STRIKES == mark.strikes


def test_one_users_mark_stays_that_users() -> None:
    before = steady()
    before.succeeded(A, M, 0.0, 0.0, ALICE)
    refused(before, BOB, 1.0)
    after = steady()
    after.load(before.dump(2.0, 1_000_000.0), 5.0, 1_000_000.0)

    assert ok(after, ALICE, 5.0) and not ok(after, BOB, 5.0)
    assert after.available(A, M, 5.0).ok


def test_marks_of_all_kinds_outlive_the_process() -> None:
    before = broken()
    before.failed(A, M, http(503, BUSY), 2.2, 2.2, ALICE)
    before.failed(B, M, http(402), 2.2, 2.2, ALICE)
    after = steady()
    after.load(before.dump(2.3, 1_000_000.0), 5.0, 1_000_000.0)

    assert after.available(A, "other", 5.0).shunned
    assert "overloaded" == after.available(A, M, 5.0).reason
    assert "quota" == after.available(B, M, 5.0).reason
