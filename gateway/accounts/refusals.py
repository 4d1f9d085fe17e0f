"""
The errors of clients whose every account is out.

They say when to come back where waiting helps, and what is wrong where it does not.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.accounts.health import Health
from gateway.accounts.verdict import Verdict
from gateway.errors import GatewayError, Overloaded, UpstreamError, whole_retry_after


def returns_at(
    health: Health, accounts: Iterable[str], model: str, now: float, user: str = ""
) -> float | None:
    """
    When the first of *accounts* returns if all are out; None for none. One that is
    paused does not return by itself.
    """
    accounts = [name for name in accounts if name not in health.paused]
    found = [health.last_resort(account, model, now, user) for account in accounts]
    return min((now if f.ok else f.until or now for f in found), default=None)


def refusal(
    health: Health, accounts: Iterable[str], model: str, now: float, user: str = ""
) -> GatewayError:
    """
    The error for a client when every account is out.

    Waiting does not help against a refused credential or a used-up quota without
    a date: the client gets those as what they are.
    """
    fitting = list(accounts)
    names = [name for name in fitting if name not in health.paused]
    if fitting and not names:
        return _paused(health, fitting, now)
    outages = [m for name in names for m in health.outages_of(name, model, user, now)]
    at = returns_at(health, names, model, now, user)
    wait_s = 1.0 if at is None else at - now
    reasons = {outage.reason for outage in outages if not outage.back(now)}
    undated = not any(outage.dated for outage in outages)
    if reasons and reasons <= {"refused", "quota"} and undated:
        code = "upstream_refused" if "refused" in reasons else "upstream_quota"
        return UpstreamError(code)
    return Overloaded("cooling_down", retry_after_s=wait_s)


def _paused(health: Health, accounts: list[str], now: float) -> Overloaded:
    """Only the operator knows for how long: as likely as not as long again."""
    since = max(health.paused[name] for name in accounts)
    return Overloaded("accounts_paused", retry_after_s=now - since)


def last_error(
    health: Health,
    verdict: Verdict,
    accounts: Iterable[str],
    model: str,
    now: float,
    user: str = "",
) -> GatewayError:
    """The error of the last *verdict*, saying when to come back if that helps."""
    error, lasting = verdict.error, verdict.reason in ("refused", "quota")
    lasting = lasting and error.status != 429  # final for Codex without a time
    if verdict.pass_on or not verdict.reason or lasting and not verdict.until_s:
        return error
    at = returns_at(health, accounts, model, now, user)
    error.retry_after_s = whole_retry_after(1.0 if at is None else at - now)
    return error
