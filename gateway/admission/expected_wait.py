"""
How long it will take until a slot frees, from what was measured.

Two simple truths are mixed by how much the service times spread. If all were alike,
each slot would free one mean after it was taken, so the ages of the running requests
tell all. If they spread like waiting for chance does, ages tell nothing, and slots
free at an even rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MEMORY = 16
"""How many service times weigh in a mean; older ones fade exponentially."""
OUTLIER = 10.0
"""A service time counts for at most so many means: a clock that leapt is not a fact."""
_LEAST = 1 / MEMORY  # what a service time weighs once there are enough of them


class Service:
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
        """0: all alike; 1: as chance spreads, or worse (variance / mean²)."""
        if not self.mean_s:
            return 0.0
        return min(1.0, self._variance / self.mean_s**2)


class Server(NamedTuple):
    """
    One name's slots.

    Attributes:
        ages_s: seconds since each running request got its slot; slots that are
            about to free are left out.
    """

    slots: int
    mean_s: float
    spread: float
    ages_s: Sequence[float]


def mean_of(
    services: Sequence[Service], ages_s: Sequence[float]
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


def expected_wait_s(position: int, servers: Sequence[Server]) -> float:
    """Seconds until the *position*-th slot (from 1) of *servers* frees."""
    slots = sum(server.slots for server in servers)
    if not slots:
        return 0.0
    rate = sum(server.slots / server.mean_s for server in servers)
    spread = sum(server.slots * server.spread for server in servers) / slots
    mean_s = slots / rate
    # one that is overdue by x may well take x more
    rests = sorted(abs(s.mean_s - age) for s in servers for age in s.ages_s)
    rests[:0] = [0.0] * (slots - len(rests))
    surplus = len(rests) - slots  # of a limit that was lowered: they free nothing
    rounds, index = divmod(position - 1, slots)
    alike_s = rests[index + surplus] + rounds * mean_s
    return (1 - spread) * alike_s + spread * position / rate
