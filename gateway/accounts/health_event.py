"""What happens to accounts, as the log says it."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.accounts.outage import Outage


class HealthEvent(NamedTuple):
    """A line for the log: the event and its keys."""

    event: str
    facts: dict[str, Any]


def cooled(account: str, model: str, outage: Outage, now: float) -> HealthEvent:
    """*account*, or *model* on it, is left alone; *model* is "" for all of it."""
    facts: dict[str, Any] = {
        "account": account,
        "until_s": round(outage.until - now, 1),
        "reason": outage.reason,
        "strikes": outage.strikes,
    }
    return HealthEvent("account.cooled", facts | ({"model": model} if model else {}))


def recovered(account: str) -> HealthEvent:
    """*account* serves again."""
    return HealthEvent("account.recovered", {"account": account})
