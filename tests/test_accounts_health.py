"""Windows, probes, returns: the state of accounts over time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.backoff import (
    EARLY_S,
    LONE_S,
    POLICIES,
    Recovery,
    cooldown_s,
    jittered,
)
from gateway.accounts.health import STALE_S, Health
from gateway.accounts.health_event import HealthEvent
from gateway.accounts.outage import (
    DATED_PROBE_S,
    PROBE_PATIENCE_S,
    RAMP_S,
    RAMP_STARTS,
)
from gateway.accounts.refusals import last_error, refusal, returns_at
from gateway.accounts.verdict import Reason, Scope, Verdict, judge_status
from gateway.errors import UpstreamError

A, B, M = "a", "b", "gpt-x"


def blame(
    reason: Reason = "failed",
    until_s: float | None = None,
    scope: Scope = "account",
) -> Verdict:
    error = UpstreamError("upstream_status")
    return Verdict(scope, error, reason, True, until_s=until_s)


def steady() -> Health:
    """Health without jitter: every window exactly as the pace says."""
    return Health(lambda: 0.5)


def strike(health: Health, now: float, verdict: Verdict, name: str = A) -> float:
    """One failed attempt; when it is available again."""
    health.failed(name, M, verdict, now, now)
    found = health.available(name, M, now)
    assert found.until is not None
    return found.until


def test_an_account_is_well_until_it_fails() -> None:
    health = steady()
    assert (True, "", False) == health.available(A, M, 0.0)[:2] + (False,)
    health.failed(A, M, blame(), 0.0, 0.0)
    found = health.available(A, M, 0.0)
    assert (False, "failed", 2.0) == (found.ok, found.reason, found.until)
    assert health.available(B, M, 0.0).ok


def test_the_window_doubles_and_ends_at_the_cap() -> None:
    health, now, windows = steady(), 0.0, []
    for _ in range(8):
        until = strike(health, now, blame())
        windows.append(until - now)
        now = until
    assert [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] == windows


def test_requests_that_met_the_same_outage_are_one_strike() -> None:
    health = steady()
    happenings = [health.failed(A, M, blame(), 0.0, 1.0 + n / 100) for n in range(50)]
    assert 1 == sum(len(lines) for lines in happenings)
    assert 3.0 == health.available(A, M, 2.0).until


def test_a_later_one_of_the_same_outage_can_bring_the_upstreams_word() -> None:
    health = steady()
    health.failed(A, M, blame(), 0.0, 1.0)
    lines = health.failed(A, M, blame("rate_limited", 30.0), 0.0, 1.1)
    assert ["account.cooled"] == [line.event for line in lines]
    assert health.available(A, M, 30.0).ok is False
    assert health.available(A, M, 32.5).ok is True


def test_the_upstreams_own_word_is_kept() -> None:
    health = steady()
    assert 42.0 <= strike(health, 0.0, blame("rate_limited", 42.0)) <= 43.0
    assert not health.last_resort(A, M, 41.9).ok


def test_a_word_that_proved_too_short_is_doubted() -> None:
    health = steady()
    first = strike(health, 0.0, blame("rate_limited", 0.01))
    assert first < 0.1
    assert strike(health, first, blame("rate_limited", 0.01)) - first > 1.0


def test_a_long_dated_cooldown_is_probed_now_and_then() -> None:
    """Upstreams reset windows early; an idle account would never find out."""
    health = steady()
    health.failed(A, M, blame("quota", 7 * 86400.0), 0.0, 0.0)
    assert not health.available(A, M, DATED_PROBE_S - 1).ok
    found = health.available(A, M, DATED_PROBE_S)
    assert (True, True) == (found.ok, found.probe)
    assert health.started(A, M, DATED_PROBE_S)
    assert not health.available(A, M, DATED_PROBE_S + 1).ok


def test_after_the_window_exactly_one_request_probes() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    assert health.available(A, M, until).probe
    assert health.started(A, M, until)
    assert not health.started(A, M, until + 0.1)
    found = health.available(A, M, until + 0.1)
    assert (False, "failed") == (found.ok, found.reason)


def test_a_probe_whose_client_left_lets_the_next_one_try() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    assert health.started(A, M, until)
    health.dropped(A, M, until - 1)  # another attempt's end frees nothing
    assert not health.available(A, M, until + 1).ok
    health.dropped(A, M, until)
    assert health.available(A, M, until + 1).probe


def test_a_probe_that_hangs_does_not_shut_the_account_for_ever() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    assert health.started(A, M, until)
    assert health.started(A, M, until + PROBE_PATIENCE_S)


def test_a_failed_probe_is_the_next_strike() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    health.started(A, M, until)
    lines = health.failed(A, M, blame(), until, until + 0.5)
    assert [2] == [line.facts["strikes"] for line in lines]
    assert until + 4.5 == health.available(A, M, until + 0.5).until


def test_a_probe_ended_by_the_client_says_nothing() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    health.started(A, M, until)
    verdict = judge_status(400, {}, b"{}", 0.0)
    assert [] == health.failed(A, M, verdict, until, until + 0.1)
    assert health.available(A, M, until + 0.1).probe


def test_a_success_ends_the_outage() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    health.started(A, M, until)
    lines = health.succeeded(A, M, until, until + 1)
    assert [HealthEvent("account.recovered", {"account": A})] == lines
    assert [] == health.succeeded(A, M, until, until + 1.1)
    assert health.available(A, M, until + 1).ok


def test_after_the_return_the_share_grows() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    health.started(A, M, until)
    health.succeeded(A, M, until, until)
    for _ in range(RAMP_STARTS):
        assert not health.available(A, M, until).spare
        health.started(A, M, until)
    assert health.available(A, M, until).spare
    assert not health.available(A, M, until + 1).spare
    found = health.available(A, M, until + RAMP_S)
    assert (True, "", False) == (found.ok, found.reason, found.spare)


def test_a_failure_within_the_ramp_goes_on_counting() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    health.started(A, M, until)
    health.succeeded(A, M, until, until)
    again = strike(health, until + 1, blame())
    assert again - (until + 1) > 2.0
    late = strike(steady(), until + RAMP_S, blame())
    assert 2.0 == late - (until + RAMP_S)


def test_what_was_sent_before_the_return_does_not_undo_it() -> None:
    health = steady()
    until = strike(health, 0.0, blame())
    health.started(A, M, until)
    health.succeeded(A, M, until, until)
    assert [] == health.failed(A, M, blame(), until - 1, until + 1)
    assert health.available(A, M, until + 1).ok


def test_an_older_request_that_goes_well_proves_the_path() -> None:
    health = steady()
    health.failed(A, M, blame("network"), 5.0, 6.0)
    assert 1 == len(health.succeeded(A, M, 4.0, 6.5))


@pytest.mark.parametrize("reason", ["rate_limited", "overloaded", "quota", "refused"])
@pytest.mark.parametrize("reset_s", [None, 30.0])
def test_an_older_request_that_goes_well_proves_nothing_else(
    reason: Reason, reset_s: float | None
) -> None:
    """It was let in before the limit was reached, or the key was withdrawn."""
    health = steady()
    health.failed(A, M, blame(reason, reset_s), 5.0, 6.0)
    assert [] == health.succeeded(A, M, 4.0, 6.5)
    assert not health.available(A, M, 6.6).ok


@pytest.mark.parametrize("reason", ["network", "failed"])
def test_nor_does_it_when_the_upstream_said_when(reason: Reason) -> None:
    health = steady()
    health.failed(A, M, blame(reason, 30.0), 5.0, 6.0)
    assert [] == health.succeeded(A, M, 4.0, 6.5)
    assert not health.available(A, M, 7.0).ok


def test_an_old_outage_without_a_probe_is_stale() -> None:
    health, now = steady(), 0.0
    for _ in range(5):
        now = strike(health, now, blame())
    now += STALE_S + 1
    assert 2.0 == strike(health, now, blame()) - now


def test_a_mark_on_a_model_leaves_the_others_alone() -> None:
    health = steady()
    lines = health.failed(A, M, blame("overloaded", scope="model"), 0.0, 0.0)
    assert M == lines[0].facts["model"]
    assert not health.available(A, M, 0.0).ok
    assert health.available(A, "other", 0.0).ok
    assert health.available(A, "", 0.0).ok


def test_a_mark_on_the_account_shuts_every_model() -> None:
    health = steady()
    health.failed(A, M, blame("refused"), 0.0, 0.0)
    assert not health.available(A, "other", 0.0).ok


def test_of_account_and_model_the_longer_counts() -> None:
    health = steady()
    health.failed(A, M, blame("network"), 0.0, 0.0)
    health.failed(A, M, blame("overloaded", 20.0, "model"), 0.0, 0.0)
    found = health.available(A, M, 5.0)
    assert (False, "overloaded") == (found.ok, found.reason)
    health.succeeded(A, M, 25.0, 25.0)
    assert health.available(A, M, 25.0).ok


def test_the_log_says_why_and_for_how_long() -> None:
    health = steady()
    (line,) = health.failed(A, M, blame("refused"), 0.0, 0.0)
    assert HealthEvent(
        "account.cooled",
        {"account": A, "until_s": 300.0, "reason": "refused", "strikes": 1},
    ) == (line)


def test_a_refused_credential_is_probed_rarely() -> None:
    health = steady()
    until = strike(health, 0.0, blame("refused"))
    again = strike(health, until, blame("refused"))
    assert (300.0, 600.0) == (until, again - until)


# -- when nothing else is left ---


@pytest.mark.parametrize("reason", [r for r in POLICIES if r != "no_model"])
def test_the_first_strikes_refuse_no_user_without_another_account(
    reason: Reason,
) -> None:
    health, now, tried = steady(), 0.0, 0
    while health.last_resort(A, M, now).ok and tried < 10:
        health.failed(A, M, blame(reason), now, now)
        now, tried = now + 0.1, tried + 1
    assert 3 == tried


def dead(health: Health, reason: Reason = "failed", strikes: int = 6) -> float:
    """An account that has been dead for long; the moment of its last strike."""
    now = 0.0
    for _ in range(strikes):
        health.failed(A, M, blame(reason), now, now)
        now += 10.0
    return now - 10.0


@pytest.mark.parametrize("reason", ["network", "failed", "overloaded", "rate_limited"])
@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_dead_pool_is_probed_every_few_seconds(reason: Reason, chance: float) -> None:
    health = Health(lambda: chance)
    struck = dead(health, reason)
    assert not health.last_resort(A, M, struck + 1).ok
    found = health.last_resort(A, M, struck + EARLY_S)
    assert (True, True) == (found.ok, found.probe)
    assert not health.available(A, M, struck + EARLY_S).ok
    at = returns_at(health, [A], M, struck)
    assert at is not None and struck < at <= struck + EARLY_S


@pytest.mark.parametrize("reason", ["quota", "refused"])
def test_what_no_hurry_helps_is_probed_rarely_unless_it_is_all_there_is(
    reason: Reason,
) -> None:
    health = steady()
    struck = dead(health, reason, 3)
    assert not health.available(A, M, struck + 30).ok
    assert not health.last_resort(A, M, struck + LONE_S - 0.1).ok
    assert health.last_resort(A, M, struck + LONE_S).probe


def test_an_account_without_the_model_still_gives_its_own_answer() -> None:
    health = steady()
    for now in range(9):
        health.failed(A, M, blame("no_model", scope="model"), now, now)
    assert health.last_resort(A, M, 9.0).ok
    assert not health.available(A, M, 9.0).ok


def test_only_one_request_probes_a_dead_pool() -> None:
    health = steady()
    now = dead(health) + EARLY_S
    starts = [health.started(A, M, now + n / 100, last_resort=True) for n in range(9)]
    assert [True] + [False] * 8 == starts


def test_different_brief_failures_are_the_same_outage() -> None:
    """An account that alternates resets and 500s is as dead as any other."""
    health, now = steady(), 0.0
    for reason in ("network", "failed", "overloaded"):
        health.failed(A, M, blame(reason), now, now)
        now += 1
    assert not health.last_resort(A, M, now - 0.5).ok


def test_clients_learn_when_the_first_account_returns() -> None:
    health = steady()
    health.failed(A, M, blame("rate_limited", 30.0), 0.0, 0.0)
    health.failed(B, M, blame("rate_limited", 12.0), 0.0, 0.0)
    at = returns_at(health, [A, B], M, 2.0)
    error = refusal(health, [A, B], M, 2.0)
    assert at is not None and 12.0 <= at <= 13.0
    assert ("cooling_down", 429, 11) == (
        error.code,
        error.status,
        error.retry_after_s,
    )
    assert returns_at(health, [], M, 2.0) is None


def test_a_far_return_is_refused_for_a_minute() -> None:
    health = steady()
    health.failed(A, M, blame("quota", 9000.0), 0.0, 0.0)
    error = refusal(health, [A], M, 1.0)
    assert ("cooling_down", 60) == (error.code, error.retry_after_s)


@pytest.mark.parametrize(
    ("reason", "code"), [("refused", "upstream_refused"), ("quota", "upstream_quota")]
)
def test_what_waiting_does_not_cure_has_its_own_code(reason: Reason, code: str) -> None:
    health = steady()
    struck = dead(health, reason, 3)
    error = refusal(health, [A], M, struck + 1)
    assert (code, 502, None) == (error.code, error.status, error.retry_after_s)


def test_one_account_that_will_return_makes_waiting_worth_while() -> None:
    health = steady()
    struck = dead(health, "refused", 3)
    health.failed(B, M, blame("rate_limited", 9.0), struck, struck)
    assert "cooling_down" == refusal(health, [A, B], M, struck + 1).code


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        pytest.param(judge_status(500, {}, b"{}", 0.0), 1, id="tried-again-at-once"),
        pytest.param(
            judge_status(429, {"retry-after": "8"}, b"{}", 0.0), 9, id="its-own-word"
        ),
        pytest.param(judge_status(401, {}, b"{}", 0.0), None, id="refused"),
        pytest.param(judge_status(400, {}, b"{}", 0.0), None, id="passed-on"),
    ],
)
def test_the_last_word_says_when_to_come_back(
    verdict: Verdict, expected: int | None
) -> None:
    health = steady()
    health.failed(A, M, verdict, 0.0, 0.0)
    error = last_error(health, verdict, [A], M, 0.0)
    assert (verdict.error, expected) == (error, error.retry_after_s)


# -- learning ---


def outage(health: Health, start: float, lasts_s: float) -> float:
    """An outage with a probe as soon as one may go; when it was over."""
    now = start
    health.failed(A, M, blame("overloaded"), now, now)
    while True:
        until = health.available(A, M, now).until
        assert until is not None
        now = until
        health.started(A, M, now)
        if now >= start + lasts_s:
            health.succeeded(A, M, now, now)
            return now
        health.failed(A, M, blame("overloaded"), now, now)


def test_the_window_learns_what_the_account_takes_to_recover() -> None:
    health, now = steady(), 0.0
    for _ in range(12):
        now = outage(health, now, 17.0) + RAMP_S
    until = strike(health, now, blame("overloaded"))
    assert 6.0 < until - now < 17.0


def test_it_learns_that_an_account_recovers_at_once() -> None:
    health, now = steady(), 0.0
    for _ in range(30):
        now = outage(health, now, 0.1) + RAMP_S
    assert strike(health, now, blame("overloaded")) - now < 1.0


def test_what_was_learned_is_forgotten_again() -> None:
    known = Recovery(30.0, 0.0)
    assert 30.0 == known.mean(4.0, 0.0)
    assert 17.0 == pytest.approx(known.mean(4.0, 3600.0))
    assert 4.0 == pytest.approx(known.mean(4.0, 40 * 3600.0))
    assert 15.0 == cooldown_s("failed", 1, known, 0.0)


def test_dated_cooldowns_teach_nothing() -> None:
    health = steady()
    health.failed(A, M, blame("rate_limited", 500.0), 0.0, 0.0)
    health.succeeded(A, M, 501.0, 501.0)
    now = 501.0 + RAMP_S
    assert 2.0 == strike(health, now, blame("rate_limited")) - now


@given(st.floats(0, 1), st.floats(0.01, 1e6))
def test_jitter_stays_within_a_tenth(chance: float, window: float) -> None:
    assert 0.89 * window <= jittered(window, chance) <= 1.11 * window


# -- memory ---


def test_proven_is_who_served_lately_and_has_no_mark() -> None:
    health = steady()
    assert not health.proven(A, M, 0.0)
    health.succeeded(A, M, 0.0, 1.0)
    assert health.proven(A, M, 2.0) and health.has_served(A, M)
    assert not health.proven(A, "other", 2.0)
    assert not health.proven(A, M, 90.0)
    health.failed(A, M, blame(), 2.0, 3.0)
    assert not health.proven(A, M, 4.0)


def test_windows_outlive_the_process() -> None:
    before = steady()
    before.failed(A, M, blame("quota", 600.0), 100.0, 100.0)
    before.failed(B, M, blame("overloaded", 50.0, "model"), 100.0, 100.0)
    rows = before.dump(110.0, 1_000_000.0)
    after = steady()
    after.load(rows, 5.0, 1_000_060.0)
    assert not after.available(A, M, 530.0).ok
    assert after.available(A, M, 547.0).ok
    assert after.available(B, M, 5.0).ok  # its window ended meanwhile


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"account": "a"},
        {
            "account": A,
            "model": "",
            "reason": "magic",
            "since": 0,
            "until": 9e9,
            "told": True,
            "strikes": 1,
        },
        {
            "account": A,
            "model": "",
            "reason": "failed",
            "since": "then",
            "until": 9e9,
            "told": True,
            "strikes": 1,
        },
    ],
)
def test_odd_rows_are_left_out(row: dict[str, object]) -> None:
    health = steady()
    health.load([row], 0.0, 0.0)
    assert health.available(A, "", 0.0).ok


def test_a_changed_credential_clears_the_account() -> None:
    health = steady()
    health.failed(A, M, blame("refused"), 0.0, 0.0)
    health.failed(B, M, blame("refused"), 0.0, 0.0)
    health.forget(A)
    assert health.available(A, M, 0.0).ok
    assert not health.available(B, M, 0.0).ok


REASONS = st.sampled_from(["network", "failed", "rate_limited", "quota", "refused"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["failed", "dated", "succeeded", "dropped", "started"]),
        REASONS,
        st.floats(0.0, 40.0),
        st.floats(0.0, 5.0),
    ),
    max_size=40,
)


def times(
    steps: list[tuple[str, Reason, float, float]],
) -> Iterator[tuple[str, Reason, float, float]]:
    now = 0.0
    for what, reason, wait_s, took_s in steps:
        now += wait_s
        yield what, reason, now, max(0.0, now - took_s)


@given(STEPS)
def test_whatever_happens_an_account_comes_back(
    steps: list[tuple[str, Reason, float, float]],
) -> None:
    health, now = Health(lambda: 0.7), 0.0
    for what, reason, at, started_at in times(steps):
        now = at
        if what in ("failed", "dated"):
            verdict = blame(reason, 20.0 if what == "dated" else None)
            health.failed(A, M, verdict, started_at, now)
        elif what == "started":
            health.started(A, M, now)
        elif what == "succeeded":
            health.succeeded(A, M, started_at, now)
        else:
            health.dropped(A, M, started_at)
    later = now + 2 * 3600.0
    assert health.started(A, M, later)
    health.succeeded(A, M, later, later)
    found = health.available(A, M, later + RAMP_S)
    assert (True, "") == (found.ok, found.reason)
