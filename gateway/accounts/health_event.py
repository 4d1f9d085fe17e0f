"""What happens to accounts, as the log says it."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.accounts.outage import Outage


class HealthEvent(NamedTuple):
    """A line for the log: the event and its keys."""

    event: str
    facts: dict[str, Any]


def cooled(account: str, model: str, mark: Outage, now: float) -> HealthEvent:
    """*account*, or *model* on it, is left alone; *model* is "" for all of it."""
    facts: dict[str, Any] = {
        "account": account,
        "until_s": round(mark.until - now, 1),
        "reason": mark.reason,
        "strikes": mark.strikes,
    }
    return HealthEvent("account.cooled", facts | ({"model": model} if model else {}))


def recovered(account: str) -> HealthEvent:
    """*account* serves again."""
    return HealthEvent("account.recovered", {"account": account})
