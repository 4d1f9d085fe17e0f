"""
How long an account cools down when its upstream did not say.

Rule 1: seconds, not minutes. Of accounts that reported an overload, half were seen to
        serve again after 17 s, and of those that limited the rate without a word,
        92 of 100 within 3 s.
Rule 2: doubled on every strike, capped, and jittered, so that accounts and gateways
        do not come back in step.
Rule 3: what an account took to recover is learned, and forgotten again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from gateway.accounts.verdict import Reason


class BackoffPolicy(NamedTuple):
    """
    The cooldowns of one reason.

    Attributes:
        first_s: the first cooldown; half the learned recovery time takes its place.
        cap_s: the longest.
        brief: it passes by itself within seconds: learned from, probed every
            ``EARLY_S`` while nothing else is left, and proven over by any success.
        patience: so many strikes do not yet refuse a request that has no other
            account; 0 = no end.
    """

    first_s: float
    cap_s: float
    brief: bool
    patience: int = 3


POLICIES: dict[str, BackoffPolicy] = {
    "network": BackoffPolicy(1.0, 30.0, True),
    "failed": BackoffPolicy(2.0, 60.0, True),
    "overloaded": BackoffPolicy(2.0, 60.0, True),
    "rate_limited": BackoffPolicy(2.0, 60.0, True),
    # The rest wait for a human or a calendar. Every probe costs a request its time.
    "quota": BackoffPolicy(60.0, 3600.0, False),
    "refused": BackoffPolicy(300.0, 3600.0, False),
    # A request with no other account shall get the upstream's own answer.
    "no_model": BackoffPolicy(60.0, 3600.0, False, patience=0),
}

EARLY_S = 3.0
"""Longest wait between two probes of an account, if brief, while all are out."""

LONE_S = 5.0
"""The same for the other reasons: a person who has just mended the account's key should
not have to wait for it, and no other account could serve the request anyway."""

SHORTEST_S = 0.5
LONGEST_FIRST_S = 30.0
_LEARN = 0.3  # share of the newest outage in the mean
_FORGET_S = 3600.0  # half-life of what was learned


@dataclass(slots=True)
class Recovery:
    """The mean recovery time of one account, in seconds."""

    mean_s: float
    at: float

    def learn(self, outage_s: float, usual_s: float, now: float) -> None:
        """Take in an outage that lasted *outage_s*."""
        mean = self.mean(usual_s, now)
        self.mean_s, self.at = mean + _LEARN * (outage_s - mean), now

    def mean(self, usual_s: float, now: float) -> float:
        """The mean, on its way back to *usual_s*."""
        kept = math.exp2(-max(0.0, now - self.at) / _FORGET_S)
        return usual_s + (self.mean_s - usual_s) * kept


def usual_s(reason: Reason) -> float:
    """The recovery time that is assumed while nothing is known."""
    return 2 * POLICIES[reason].first_s


def cooldown_s(
    reason: Reason, strikes: int, recovery: Recovery | None, now: float
) -> float:
    """The cooldown of strike number *strikes*, before jitter."""
    policy = POLICIES[reason]
    first_s = policy.first_s
    if policy.brief and recovery is not None:
        half = recovery.mean(usual_s(reason), now) / 2
        first_s = min(max(half, SHORTEST_S), LONGEST_FIRST_S)
    return min(policy.cap_s, math.ldexp(first_s, min(strikes - 1, 30)))


def jittered(seconds: float, chance: float) -> float:
    """*seconds* ± 10 %; *chance* is uniform in 0…1."""
    return seconds * (0.9 + 0.2 * chance)
