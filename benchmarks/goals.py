"""
The benchmark's goals, and whether they are reached.

A goal is a row: the figure, the bound that must hold, and the bound that is aimed at. A
figure whose scenarios were not run is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.measures import Results
from benchmarks.table import (
    Take,
    cpu_ms_per_request,
    cpu_us_per_event,
    head,
    latency,
    median,
    per_core,
    row,
)

HELD_MS = 50.0  # a load is sustained while 99 of 100 events are faster

Find = Callable[[Results, dict[str, Any]], float]
"""Looks a figure up; raises KeyError or ValueError if it was not measured."""


class Goal(NamedTuple):
    """
    Attributes:
        more: whether more is better.
    """

    figure: str
    must: float
    aim: float
    find: Find
    more: bool = False

    def reached(self, value: float) -> str:
        """ "aim", "must" or "missed"."""
        sign = -1 if self.more else 1
        if sign * value <= sign * self.aim:
            return "aim"
        return "must" if sign * value <= sign * self.must else "missed"


def lines(results: Results, single: dict[str, Any]) -> list[str]:
    """The goals that were measured, as Markdown."""
    made = head("goal", "must", "aim", "measured", "reached")
    for goal in GOALS:
        try:
            value = goal.find(results, single)
        except (KeyError, ValueError):
            continue
        sign = "≥" if goal.more else "≤"
        bounds = (f"{sign} {goal.must:g}", f"{sign} {goal.aim:g}")
        made.append(row(goal.figure, *bounds, f"{value:.2f}", goal.reached(value)))
    return made


def _against(scenario: str, other: str, take: Take) -> Find:
    """The gateway's figure as a multiple of *other*'s."""
    return lambda results, single: (
        median(results, scenario, "gateway", take)
        / median(results, scenario, other, take)
    )


def _first_event_over_nginx(results: Results, single: dict[str, Any]) -> float:
    take = latency("first_us", "p50")
    own, nginx = (
        median(results, "paced 100", name, take) for name in ("gateway", "nginx")
    )
    return own - nginx


def _held(results: Results, single: dict[str, Any]) -> float:
    """The most paced streams whose events were fast enough."""
    take = latency("event_us", "p99")
    paced = [name for name in results if re.fullmatch(r"paced \d+", name)]
    quick = [n for n in paced if median(results, n, "gateway", take) < HELD_MS]
    return max(float(name.split()[1]) for name in quick)


def _large_body(results: Results, single: dict[str, Any]) -> float:
    large, small = (
        median(results, name, "gateway", cpu_ms_per_request)
        for name in ("one event, 64 KiB", "one event")
    )
    return large - small


def _slowest_pair(results: Results, single: dict[str, Any]) -> float:
    """The smallest rate of a converted pair, as a share of passing through."""
    shares = []
    for scenario, programs in results.items():
        if " over " in scenario:
            client = scenario.split()[1]
            own = "gateway" if client == "responses" else f"gateway-{client}"
            [name] = programs
            passing = median(results, f"full {client}", own, per_core)
            shares.append(median(results, scenario, name, per_core) / passing)
    return min(shares)


def _many_streams(results: Results, single: dict[str, Any]) -> float:
    many, few = (
        median(results, name, "gateway", cpu_us_per_event)
        for name in ("paced 1000", "paced 100")
    )
    return many / few


def _alone(name: str, program: str = "") -> Find:
    """A single measure; of *program* where it was taken for several."""
    return lambda results, single: float(
        single[name][program] if program else single[name]
    )


GOALS = (
    Goal(
        "CPU of an event, 300 streams, x nginx",
        2.4,
        1.6,
        _against("paced 300", "nginx", cpu_us_per_event),
    ),
    Goal(
        "CPU of an event, 300 streams, x relay",
        1.15,
        0.8,
        _against("paced 300", "relay", cpu_us_per_event),
    ),
    Goal(
        "CPU of an event, 1000 streams, x 100 streams",
        1.1,
        1.0,
        _many_streams,
    ),
    Goal(
        "CPU of a stream of one event, x relay",
        1.8,
        1.1,
        _against("one event", "relay", cpu_ms_per_request),
    ),
    Goal("CPU of a 64 KiB body over 1 KiB, ms", 0.3, 0.15, _large_body),
    Goal("first event over nginx, 100 streams, p50 ms", 2, 1, _first_event_over_nginx),
    Goal("streams held with p99 < 50 ms", 250, 800, _held, more=True),
    Goal(
        "slowest pair of protocols, share of passing through",
        0.25,
        0.4,
        _slowest_pair,
        more=True,
    ),
    Goal(
        "MB per 1000 open streams",
        50,
        30,
        _alone("MB per 1000 open streams", "gateway"),
    ),
    Goal("MB per 1000 queued requests", 40, 20, _alone("MB per 1000 queued requests")),
    Goal(
        "MB for 20 clients that stop reading",
        25,
        12,
        _alone("MB for 20 clients that stop reading 11 MB", "gateway"),
    ),
    Goal(
        "streams alive 1 s after 100 clients hung up",
        0,
        0,
        _alone("100 clients that hang up", "alive_1s_after"),
    ),
    Goal(
        "seconds from start to listening",
        1.5,
        0.7,
        _alone("seconds from start to listening"),
    ),
)
