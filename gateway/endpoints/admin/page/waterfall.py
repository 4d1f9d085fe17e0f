"""
The spans of one request as bars: where its time went.

    arrives │ waits for a slot │ attempt 1: connects, thinks, streams │ attempt 2 …

The spans of an attempt are parts of one bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from gateway.ledger.spans import ENDED, Span

WIDTH = 1000.0
MAX_LANES = 40  # beyond it the last lane stands for the rest
_LEAST = 2.0  # of a part that took no time: it is still seen


class _Kind(NamedTuple):
    """A class of the style sheet, and what the part is."""

    style: str
    what: str


_KINDS = {
    "read": _Kind("w-arrive", "body and key"),
    "queue": _Kind("w-wait", "in the queue"),
    "connect": _Kind("w-connect", "until the upstream's head"),
    "think": _Kind("w-think", "until the first output"),
    "answer": _Kind("w-stream", "output"),
    "drain": _Kind("w-rest", "read on after the client had left"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a lane; ``x`` and ``width`` of ``WIDTH``."""

    x: float
    width: float
    style: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One bar, with milliseconds since the request was received."""

    name: str
    begin_ms: float
    end_ms: float
    parts: Sequence[Part]

    @property
    def ms(self) -> float:
        """How long it took."""
        return self.end_ms - self.begin_ms


def lanes(spans: Sequence[Span], whole_s: float) -> list[Lane]:
    """
    The bars of a timeline.

    Args:
        whole_s: how long the request took, or has taken so far.
    """
    end_s = max([whole_s, 0.000001, *(span.end_s for span in spans)])
    numbered = enumerate(spans)
    groups = [
        [span for _, span in group]
        for _, group in groupby(numbered, lambda one: one[1].attempt or -one[0])
    ]
    if len(groups) <= MAX_LANES:
        return [_lane(group, end_s) for group in groups]
    shown, rest = groups[: MAX_LANES - 1], groups[MAX_LANES - 1 :]
    return [*(_lane(group, end_s) for group in shown), _rest(rest, end_s)]


def _lane(group: Sequence[Span], end_s: float) -> Lane:
    parts = [_part(span, end_s) for span in group]
    first, last = group[0], group[-1]
    return Lane(_name(first), first.start_s * 1000, last.end_s * 1000, parts)


def _rest(groups: Sequence[Sequence[Span]], end_s: float) -> Lane:
    """One bar for all of *groups*."""
    begin_s, stop_s = groups[0][0].start_s, groups[-1][-1].end_s
    name = f"{len(groups)} more"
    part = _placed(begin_s, stop_s, end_s, "w-rest", name)
    return Lane(name, begin_s * 1000, stop_s * 1000, [part])


def _name(span: Span) -> str:
    if span.kind == "read":
        return "Arrives"
    return f"Waits: {span.name}" if span.kind == "queue" else span.name or "attempt"


def _part(span: Span, end_s: float) -> Part:
    style, what = _KINDS[span.kind]
    if span.code:
        what = f"{what}, {span.code}"
    if span.code and span.code != ENDED:
        style = "w-failed"
    return _placed(span.start_s, span.end_s, end_s, style, what)


def _placed(begin_s: float, stop_s: float, end_s: float, style: str, what: str) -> Part:
    scale = WIDTH / end_s
    width = min(WIDTH, max(_LEAST, (stop_s - begin_s) * scale))
    x = min(begin_s * scale, WIDTH - width)
    took_ms = (stop_s - begin_s) * 1000
    return Part(max(0.0, x), width, style, f"{what}: {took_ms:.1f} ms")
