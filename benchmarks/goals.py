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


def _hand_on(scenario: str, program: str) -> Find:
    """From the end of an answer at the upstream to the next request there."""
    take = latency("gap_us", "p50")
    return lambda results, single: median(results, scenario, program, take)


def _over_nginx(quantile: str, program: str) -> Find:
    take = latency("event_us", quantile)
    return lambda results, single: (
        median(results, "paced 300", program, take)
        - median(results, "paced 300", "nginx", take)
    )


def _ratio(scenario: str, program: str, other: str, take: Take) -> Find:
    return lambda results, single: (
        median(results, scenario, program, take)
        / median(results, scenario, other, take)
    )


EVENT, REQUEST = cpu_us_per_event, cpu_ms_per_request
AGAINST = {
    ("CPU of an event, 300 streams", "paced 300", EVENT): {
        "nginx": (1.7, 1.25),
        "relay": (1.15, 0.8),
        "smg": (0.9, 0.75),
        "sglang-router": (1.1, 0.95),
    },
    ("CPU of a stream of one event", "one event", REQUEST): {
        "smg": (0.8, 0.6),
        "relay": (1.2, 0.9),
    },
    ("CPU of a whole answer", "no stream", REQUEST): {
        "smg": (1.2, 1.0),
        "relay": (1.2, 0.9),
        "portkey": (0.15, 0.15),
        "litellm": (0.02, 0.02),
    },
}

GOALS = (
    *(
        Goal(f"{figure}, x {other}", *bounds, _ratio(scenario, "gateway", other, take))
        for (figure, scenario, take), others in AGAINST.items()
        for other, bounds in others.items()
    ),
    *(
        Goal(f"event over nginx, 300 streams, {name}, {q} ms", *bounds, find)
        for name, program in (("tick", "gateway"), ("no tick", "gateway-no-tick"))
        for q, bounds in (("p50", (2, 1)), ("p99", (4, 3)))
        for find in [_over_nginx(q, program)]
    ),
    Goal(
        "CPU of an event, 300 streams, tick x no tick",
        1.0,
        0.91,
        _ratio("paced 300", "gateway", "gateway-no-tick", EVENT),
    ),
    Goal(
        "CPU of an event, TLS to the upstream, x nginx",
        1.7,
        1.3,
        _ratio("tls 300", "gateway-tls", "nginx-tls", EVENT),
    ),
    Goal(
        "CPU of a conversation of 1 MiB, ms",
        4,
        2,
        lambda results, single: median(results, "one event, 1 MiB", "gateway", REQUEST),
    ),
    Goal(
        "freed slot of a user to the next request at the upstream, p50 ms",
        1.2,
        0.8,
        _hand_on("one slot of a user", "gateway"),
    ),
    Goal(
        "freed slot of an account to the next request at the upstream, p50 ms",
        1.2,
        0.8,
        _hand_on("one slot of an account", "gateway-one-slot"),
    ),
    Goal("idle MB", 75, 60, _alone("idle MB")),
    Goal(
        "CPU of an event, 1000 streams, x 100 streams",
        1.1,
        1.0,
        _many_streams,
    ),
    Goal("CPU of a 64 KiB body over 1 KiB, ms", 0.3, 0.15, _large_body),
    Goal("first event over nginx, 100 streams, p50 ms", 2, 1, _first_event_over_nginx),
    Goal("streams held with p99 < 50 ms", 1500, 2000, _held, more=True),
    Goal(
        "slowest pair of protocols, share of passing through",
        0.6,
        0.8,
        _slowest_pair,
        more=True,
    ),
    Goal(
        "MB per 1000 open streams",
        25,
        20,
        _alone("MB per 1000 open streams", "gateway"),
    ),
    Goal("MB per 1000 queued requests", 18, 15, _alone("MB per 1000 queued requests")),
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
        0.45,
        0.3,
        _alone("seconds from start to listening"),
    ),
)
