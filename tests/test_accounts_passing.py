"""
Failures that pass by themselves, and that one request may bring about: an error, a
reset, a time-out, an overload. While the account serves others, they are not its own.
"""

from __future__ import annotations

import pytest

from gateway.accounts.account_health import PROVEN_S
from gateway.accounts.health import Health
from gateway.accounts.verdict import (
    PASSING,
    Verdict,
    judge_event,
    judge_status,
    judge_transport,
)
from gateway.errors import UpstreamError

A = "a"
BIG, SMALL = "big", "small"
ALICE, BOB, CAROL = "alice", "bob", "carol"

VERDICTS: dict[str, Verdict] = {
    "500": judge_status(500, {}, b"{}", 0.0),
    "502": judge_status(502, {}, b"<html>bad gateway</html>", 0.0),
    "503 with a time": judge_status(503, {"retry-after": "20"}, b"{}", 0.0),
    "529": judge_status(529, {}, b"{}", 0.0),
    "in a stream": judge_event({"error": {"type": "api_error"}}, 0.0),
    "reset": judge_transport(UpstreamError("upstream_reset")),
    "time-out": judge_transport(UpstreamError("upstream_timeout")),
    "cut": judge_transport(UpstreamError("upstream_cut")),
    "no answer": judge_transport(UpstreamError("upstream_malformed")),
}
each = pytest.mark.parametrize("verdict", VERDICTS.values(), ids=VERDICTS)
BROKEN = VERDICTS["500"]


def steady() -> Health:
    return Health(lambda: 0.5)


def ok(health: Health, user: str, now: float, model: str = BIG) -> bool:
    return health.available(A, model, now, user).ok


def served(health: Health, user: str, now: float, model: str = BIG) -> None:
    health.succeeded(A, model, now, now, user)


def fails(
    health: Health,
    user: str,
    now: float,
    model: str = BIG,
    verdict: Verdict = BROKEN,
) -> list[str]:
    """One failure; the events for the log."""
    events = health.failed(A, model, verdict, now, now, user)
    return [line.event for line in events]


@each
def test_while_others_are_served_it_is_that_users(verdict: Verdict) -> None:
    health = steady()
    for n in range(10):
        served(health, BOB, float(n))
        assert [] == fails(health, ALICE, n + 0.5, verdict=verdict)

        assert not ok(health, ALICE, n + 0.6)
        assert ok(health, BOB, n + 0.6)
        assert ok(health, CAROL, n + 0.6)


@each
def test_a_second_user_makes_it_the_accounts(verdict: Verdict) -> None:
    health = steady()
    served(health, CAROL, 0.0)
    fails(health, ALICE, 1.0, verdict=verdict)

    assert ["account.cooled"] == fails(health, BOB, 1.1, verdict=verdict)
    assert not ok(health, CAROL, 1.2)


def test_an_answer_in_between_begins_anew() -> None:
    health = steady()
    served(health, CAROL, 0.0)
    fails(health, ALICE, 1.0)
    served(health, CAROL, 1.1)

    assert [] == fails(health, BOB, 1.2)
    assert ok(health, CAROL, 1.3)


@each
def test_while_another_model_is_served_it_is_that_models(verdict: Verdict) -> None:
    health = steady()
    for n in range(10):
        served(health, ALICE, float(n), SMALL)
        fails(health, ALICE, n + 0.5, BIG, verdict)

        assert not ok(health, ALICE, n + 0.6, BIG)
        assert ok(health, ALICE, n + 0.6, SMALL)


@each
def test_a_second_model_makes_it_the_accounts(verdict: Verdict) -> None:
    health = steady()
    served(health, ALICE, 0.0, SMALL)
    served(health, ALICE, 0.0, BIG)
    fails(health, ALICE, 1.0, BIG, verdict)

    assert ["account.cooled"] == fails(health, ALICE, 1.1, SMALL, verdict)
    assert not ok(health, ALICE, 1.2, "third")


def test_a_model_that_two_users_meet_leaves_the_others_served() -> None:
    health = steady()
    served(health, CAROL, 0.0, BIG)
    served(health, CAROL, 0.0, SMALL)
    fails(health, ALICE, 1.0, BIG)
    fails(health, BOB, 1.1, BIG)

    assert not ok(health, CAROL, 1.2, BIG)
    assert ok(health, CAROL, 1.2, SMALL)


@pytest.mark.parametrize("before", [None, PROVEN_S + 1])
def test_where_no_other_user_is_served_it_is_the_accounts(before: float | None) -> None:
    health = steady()
    if before is not None:
        served(health, BOB, 0.0, BIG)
        served(health, BOB, 0.0, SMALL)

    assert ["account.cooled"] == fails(health, ALICE, before or 0.0)
    assert not ok(health, BOB, before or 0.0)


def test_a_connection_is_refused_whatever_the_request() -> None:
    health = steady()
    served(health, BOB, 0.0)
    refused = judge_transport(UpstreamError("upstream_connect"))

    assert ["account.cooled"] == fails(health, ALICE, 1.0, verdict=refused)
    assert not ok(health, BOB, 1.0)


@pytest.mark.parametrize("status", [402, 429])
def test_nor_is_a_limit_one_users(status: int) -> None:
    health = steady()
    served(health, BOB, 0.0)
    fails(health, ALICE, 1.0, verdict=judge_status(status, {}, b"{}", 0.0))

    assert not ok(health, BOB, 1.0)


def test_an_account_that_is_out_hears_of_further_failures() -> None:
    health = steady()
    served(health, BOB, 0.0)
    fails(health, ALICE, 1.0)
    fails(health, BOB, 1.1)
    until = health.available(A, BIG, 1.2, CAROL).until
    assert until is not None

    health.started(A, BIG, until, user=ALICE)
    fails(health, ALICE, until)
    assert not ok(health, CAROL, until)


def test_each_answer_halves_the_strikes() -> None:
    """One user's requests, of which each second one fails, are all sent."""
    health, now = steady(), 0.0
    for n in range(20):
        now = n / 2
        assert health.last_resort(A, BIG, now, ALICE).ok
        fails(health, ALICE, now)
        assert health.last_resort(A, BIG, now, ALICE).ok
        served(health, ALICE, now + 0.1)
    for n in range(10):
        fails(health, ALICE, now + 1 + n / 10)
    assert not health.last_resort(A, BIG, now + 2, ALICE).ok


def test_the_table_holds_every_reason() -> None:
    assert PASSING == {verdict.reason for verdict in VERDICTS.values()}
