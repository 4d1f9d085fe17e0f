"""
How long it will take until a slot frees, from what was measured.

Two estimates are mixed by how much the service times spread. If all times were alike,
each slot would free one mean after it was taken, so the ages of the running requests
would say when. If they are exponentially distributed, ages say nothing, and
slots free at an even rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MEMORY = 16
"""How many service times weigh in a mean; older ones fade exponentially."""
OUTLIER = 10.0
"""A service time counts for at most so many means: a clock that leapt is not a fact."""
_LEAST = 1 / MEMORY  # what a service time weighs once there are enough of them


class ServiceTimes:
    """Service times of one user or account: decayed mean and variance."""

    __slots__ = ("count", "mean_s", "_variance")

    def __init__(self) -> None:
        self.count = 0
        self.mean_s = 0.0
        self._variance = 0.0

    def add(self, seconds: float) -> None:
        """Learn one service time; a negative one is a broken clock's."""
        if not seconds >= 0:
            return
        mean_s, count = self.mean_s, self.count + 1
        self.count = count
        if count <= MEMORY:
            weight = 1 / count
        else:
            weight = _LEAST
            most = OUTLIER * mean_s + 1
            if seconds > most:
                seconds = most
        off = seconds - mean_s
        change = weight * off
        self.mean_s = mean_s + change
        self._variance = (1 - weight) * (self._variance + change * off)

    @property
    def spread(self) -> float:
        """0: all alike; 1: exponentially distributed, or worse (variance / mean²)."""
        if not self.mean_s:
            return 0.0
        return min(1.0, self._variance / self.mean_s**2)


class BusySlots(NamedTuple):
    """
    The slots of one user or account.

    Attributes:
        ages_s: seconds since each running request got its slot; slots that are
            about to free are left out.
    """

    slots: int
    mean_s: float
    spread: float
    ages_s: Sequence[float]


def mean_of(
    services: Sequence[ServiceTimes], ages_s: Sequence[float]
) -> tuple[float, float]:
    """
    Mean (seconds) and spread of the first of *services* that has measured anything.

    If none has, the running requests are the measure: seen at a random moment, a
    request has half of its time behind it.
    """
    for service in services:
        if service.count:
            return max(service.mean_s, 0.001), service.spread
    if not ages_s:
        return 1.0, 1.0
    return max(1.0, 2 * sum(ages_s) / len(ages_s)), 1.0


def expected_wait_s(position: int, busy: Sequence[BusySlots]) -> float:
    """Seconds until the *position*-th slot (from 1) of *busy* frees."""
    slots = sum(one.slots for one in busy)
    if not slots:
        return 0.0
    rate = sum(one.slots / one.mean_s for one in busy)
    spread = sum(one.slots * one.spread for one in busy) / slots
    mean_s = slots / rate
    # one that is overdue by x may well take x more
    rests = sorted(abs(s.mean_s - age) for s in busy for age in s.ages_s)
    rests[:0] = [0.0] * (slots - len(rests))
    surplus = len(rests) - slots  # of a limit that was lowered: they free nothing
    rounds, index = divmod(position - 1, slots)
    alike_s = rests[index + surplus] + rounds * mean_s
    return (1 - spread) * alike_s + spread * position / rate
