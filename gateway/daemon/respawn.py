"""
When a worker that has ended is started again: at once, then with growing pauses.

Rule: while other workers live, it is tried for ever. To end the gateway would cut their
      streams, and bring back the same trouble. Once none is left, there is nothing to
      lose, and an end is what supervisors and alerts see.

Pure: the caller says what time it is.
"""

from __future__ import annotations

from collections import deque

FIRST_S = 0.1
MAX_S = 5.0
WELL_S = 10.0  # a worker that has lived so long was no failed start
WINDOW_S = 60.0
MAX_DEATHS = 5  # within the window: something is wrong that a new start does not mend


class Respawn:
    """The deaths of the workers of one slot."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS)
        self._wait_s = 0.0

    def died(self, now: float, lived_s: float) -> float:
        """Seconds until the next start."""
        self._deaths.append(now)
        if lived_s >= WELL_S:
            self._wait_s = 0.0
        wait_s = self._wait_s
        self._wait_s = min(max(FIRST_S, 2 * wait_s), MAX_S)
        return wait_s

    def too_often(self, now: float) -> bool:
        """Whether there were too many deaths in a short time."""
        full = len(self._deaths) == MAX_DEATHS
        return full and now - self._deaths[0] <= WINDOW_S
