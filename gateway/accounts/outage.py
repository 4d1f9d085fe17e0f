"""
One outage of an account, and what it allows.

    cooling ──until──▶ half-open ──a request starts──▶ probing
       ▲                                                │   │
       └──────────────────failed────────────────────────┘   succeeded
                                                            ▼
    well ◀──RAMP_S── ramping: its share of new requests doubles each second
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from gateway.accounts.backoff import LONE_S, POLICIES
from gateway.accounts.verdict import Reason

PROBE_PATIENCE_S = 10.0  # a probe that says nothing for so long lets another start
DATED_PROBE_S = 900.0  # the upstream's own time can be stale: asked once in so long
RAMP_S = 5.0
RAMP_STARTS = 4  # requests that may start at once after a return


class Availability(NamedTuple):
    """
    Whether an account may be sent a request now.

    Attributes:
        ok: it may.
        reason: why not, or what it recovers from; "" if well.
        until: monotonic time of its return; None if well.
        probe: the request would be the probe.
        spare: it just returned and has had its share; others first.
        shunned: it may not only because its streams broke: without another account
            it may.
        dated: the upstream itself said when it returns.
    """

    ok: bool
    reason: str = ""
    until: float | None = None
    probe: bool = False
    spare: bool = False
    shunned: bool = False
    dated: bool = False


WELL = Availability(True)
PAUSED = Availability(False, "paused")


@dataclass(slots=True)
class Outage:
    """
    Times are monotonic seconds.

    Attributes:
        dated: the upstream itself said when the account returns.
        quiet: it is not logged, since the account serves others.
        breaks: its streams broke within the answer: only a whole answer ends it.
    """

    reason: Reason
    since: float
    struck_at: float
    until: float
    early: float  # of ``last_resort``
    dated: bool
    strikes: int
    probe_at: float | None = None
    ramp_from: float | None = None
    starts: int = 0
    quiet: bool = False
    breaks: bool = False

    def over(self, now: float) -> bool:
        """Whether the ramp after its return has ended, too."""
        return self.ramp_from is not None and now >= self.ramp_from + RAMP_S

    def back(self, now: float) -> bool:
        """Whether it has returned, or may be probed."""
        return self.ramp_from is not None or self.until <= now


def look(outage: Outage, now: float) -> Availability:
    """*outage* while other accounts are well."""
    if outage.ramp_from is not None:
        share = RAMP_STARTS * math.exp2(now - outage.ramp_from)
        return Availability(True, outage.reason, None, spare=outage.starts >= share)
    stale = outage.struck_at + DATED_PROBE_S if outage.dated else outage.until
    found = _half_open(outage, min(outage.until, stale), now)
    return found._replace(shunned=True) if outage.breaks and not found.ok else found


def look_again(outage: Outage, now: float) -> Availability:
    """*outage* when nothing else is left."""
    policy = POLICIES[outage.reason]
    if outage.ramp_from is not None or outage.dated and outage.reason != "no_model":
        return look(outage, now)
    if not policy.patience or outage.strikes < policy.patience or outage.breaks:
        return Availability(True, outage.reason, outage.until)
    early = outage.early if policy.brief else outage.struck_at + LONE_S
    return _half_open(outage, min(outage.until, early), now)


def _half_open(outage: Outage, due: float, now: float) -> Availability:
    if now < due:
        dated = outage.dated and due == outage.until
        return Availability(False, outage.reason, due, dated=dated)
    if outage.probe_at is not None and now < outage.probe_at + PROBE_PATIENCE_S:
        return Availability(False, outage.reason, now + 1.0)
    return Availability(True, outage.reason, outage.until, probe=True)


def worse(found: list[Availability]) -> Availability:
    """The account and the model on it: the worse of the two."""
    if not found:
        return WELL
    if len(found) == 1:
        return found[0]
    shut = [f for f in found if not f.ok]
    if shut:
        longest = max(shut, key=lambda f: f.until or 0.0)
        return longest._replace(shunned=all(f.shunned for f in shut))
    probe, spare = any(f.probe for f in found), any(f.spare for f in found)
    return found[0]._replace(probe=probe, spare=spare)
