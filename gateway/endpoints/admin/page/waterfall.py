"""
The timeline of one request as bars: where its time went.

    arrives │ waits for a slot │ attempt 1: connects, thinks, streams │ attempt 2 …

Every mark belongs to one bar; what no bar needs is in the list of marks below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH = 1000.0
MAX_LANES = 40  # beyond it the last lane stands for the rest
_LEAST = 2.0  # of a part that took no time: it is still seen

Mark = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a lane; ``x`` and ``width`` of ``WIDTH``."""

    x: float
    width: float
    style: str
    title: str


@dataclass(slots=True)
class Lane:
    """One bar, with milliseconds since the request was received."""

    name: str
    begin_ms: float
    end_ms: float
    steps: list[tuple[float, float, str, str]] = field(default_factory=list)
    parts: Sequence[Part] = ()

    @property
    def ms(self) -> float:
        """How long it took."""
        return self.end_ms - self.begin_ms

    def step(self, begin_ms: float, end_ms: float, style: str, what: str) -> None:
        """Add a part; it ends the lane."""
        self.steps.append((begin_ms, end_ms, style, what))
        self.end_ms = max(self.end_ms, end_ms)


def lanes(marks: Sequence[Mark], total_ms: float | None) -> Sequence[Lane]:
    """
    The bars of a timeline.

    Args:
        marks: with ``at_ms``, ``event`` and facts, in order.
        total_ms: how long the request took; None while it runs.
    """
    if not marks:
        return []
    end_ms = max(float(marks[-1]["at_ms"]), total_ms or 0.0)
    found = _Walk(marks, end_ms).lanes()
    if len(found) > MAX_LANES:
        rest = found[MAX_LANES - 1 :]
        last = Lane(f"{len(rest)} more", rest[0].begin_ms, rest[-1].end_ms)
        last.step(last.begin_ms, last.end_ms, "w-rest", last.name)
        found = [*found[: MAX_LANES - 1], last]
    scale = WIDTH / max(end_ms, 0.001)
    for lane in found:
        lane.parts = [_part(step, scale) for step in lane.steps]
    return found


class _Walk:
    """One pass over the marks."""

    def __init__(self, marks: Sequence[Mark], end_ms: float) -> None:
        self._marks = marks
        self._end_ms = end_ms
        self._lanes: list[Lane] = []

    def lanes(self) -> list[Lane]:
        at = 0
        while at < len(self._marks):
            event = self._marks[at]["event"]
            if event == "received":
                at = self._until(at, _ARRIVED, "Arrives", "w-arrive", "body and key")
            elif event == "queued":
                scope = self._marks[at].get("scope", "")
                name = f"Waits: {scope} slot" if scope else "Waits"
                at = self._until(at, _SERVED, name, "w-wait", "in the queue")
            elif event == "connecting":
                at = self._attempt(at)
            else:
                at += 1
        return self._lanes

    def _ms(self, at: int) -> float:
        return (
            float(self._marks[at]["at_ms"]) if at < len(self._marks) else self._end_ms
        )

    def _find(self, at: int, events: frozenset[str]) -> int:
        while at < len(self._marks) and self._marks[at]["event"] not in events:
            at += 1
        return at

    def _until(
        self, at: int, events: frozenset[str], name: str, style: str, what: str
    ) -> int:
        begin, stop = self._ms(at), self._find(at + 1, events)
        lane = Lane(name, begin, begin)
        lane.step(begin, self._ms(stop), style, what)
        self._lanes.append(lane)
        return stop

    def _attempt(self, at: int) -> int:
        """An attempt, from its connection to its end."""
        begin, stop = self._ms(at), self._find(at + 1, _ENDED)
        lane = Lane(str(self._marks[at].get("account", "attempt")), begin, begin)
        style, what = "w-connect", "until the upstream's head"
        for mark in self._marks[at + 1 : stop]:
            if following := _STEPS.get(mark["event"]):
                now = float(mark["at_ms"])
                lane.step(begin, now, style, what)
                begin, (style, what) = now, following
        if stop < len(self._marks) and self._marks[stop]["event"] == "attempt_failed":
            style, what = "w-failed", str(self._marks[stop].get("code", "failed"))
        lane.step(begin, self._ms(stop), style, what)
        self._lanes.append(lane)
        return max(stop, at + 1)


_ARRIVED = frozenset(("queued", "chosen", "refused", "failed", "client_left"))
_SERVED = frozenset(
    ("queued", "chosen", "granted", "refused", "failed", "client_left", "terminal")
)
_ENDED = frozenset(("attempt_failed", "terminal", "failed", "refused", "chosen"))
_STEPS = {
    "head": ("w-think", "until the first output"),
    "first_output": ("w-stream", "output"),
    "client_left": ("w-rest", "read on after the client had left"),
}


def _part(step: tuple[float, float, str, str], scale: float) -> Part:
    begin, end, style, what = step
    width = max(_LEAST, (end - begin) * scale)
    x = min(begin * scale, WIDTH - width)
    return Part(max(0.0, x), width, style, f"{what}: {end - begin:.1f} ms")
