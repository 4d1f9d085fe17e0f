"""
Outages as JSON values, for the next process and for others.

Rule: clocks err, and a restored outage must not outlive that. No cooldown is longer
      than its reason's cap, whatever a row says; an upstream that gave a later time
      gives it to the next request again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gateway.accounts.account_health import AccountHealth, Scope
from gateway.accounts.backoff import EARLY_S, POLICIES
from gateway.accounts.outage import Outage

MAX_RESTORED_STRIKES = 64
SAME_S = 1.0  # the clocks of two processes are no closer


def row_of_outage(
    outage: Outage, account: str, scope: Scope, name: str, shift: float
) -> dict[str, Any]:
    """
    *outage* as JSON values, in Unix seconds.

    Args:
        name: the model or the user that it concerns; "" for the whole account.
        shift: Unix seconds less monotonic ones.
    """
    return {
        "account": account,
        "model": name if scope == "model" else "",
        "user": name if scope == "user" else "",
        "reason": outage.reason,
        "since": outage.since + shift,
        "until": outage.until + shift,
        "told": outage.dated,
        "strikes": outage.strikes,
        "quiet": outage.quiet,
        "breaks": outage.breaks,
    }


def outage_of(
    row: dict[str, Any], now: float, shift: float
) -> tuple[str, Scope, str, Outage] | None:
    """
    Account, scope, name and outage of such a row; None for an odd one, or one whose
    cooldown is over.

    Args:
        now: monotonic seconds.
        shift: monotonic seconds less Unix ones.
    """
    try:
        account, model = str(row["account"]), str(row["model"])
        user = str(row.get("user") or "")
        until, since = float(row["until"]) + shift, float(row["since"]) + shift
        strikes, dated = int(row["strikes"]), bool(row["told"])
        reason = row["reason"]
        cap_s = POLICIES[reason].cap_s
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not (math.isfinite(until) and math.isfinite(since) and until > now):
        return None
    until, since = min(until, now + cap_s), min(now, max(since, now - cap_s))
    strikes = min(max(1, strikes), MAX_RESTORED_STRIKES)
    early = min(until, now + EARLY_S)
    outage = Outage(reason, since, now, until, early, dated, strikes)
    outage.quiet, outage.breaks = bool(row.get("quiet")), bool(row.get("breaks"))
    if user:
        return account, "user", user, outage
    return account, "model" if model else "account", model, outage


def merge_outages(
    account: str,
    one: AccountHealth,
    rows: Iterable[dict[str, Any]],
    now: float,
    shift: float,
    whole: bool,
) -> None:
    """
    Put what another process knows of *account* on *one*.

    Args:
        now, shift: as for ``outage_of``.
        whole: the rows are all that is known: other outages are over.
    """
    known = {(scope, name): outage for scope, name, outage in one.all_outages()}
    named = set()
    for row in rows:
        found = outage_of(row, now, shift)
        if found is None or found[0] != account:
            continue
        _, scope, name, outage = found
        named.add((scope, name))
        old = known.get((scope, name))
        lasts = old is not None and old.ramp_from is None
        if not (lasts and old and abs(old.until - outage.until) < SAME_S):
            one.put(scope, name, outage)
    for key, outage in known.items():
        if whole and key not in named and outage.ramp_from is None:
            outage.ramp_from, outage.starts, outage.probe_at = now, 0, None
