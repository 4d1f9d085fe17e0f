"""
When a worker that has ended is started again: at once, then with growing pauses.

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

    def died(self, now: float, lived_s: float, *, counts: bool = True) -> float | None:
        """
        Seconds until the next start; None: there were too many deaths.

        Args:
            counts: whether it counts as a death. A start that fails for a reason of
                its own, while other workers serve, may be tried for ever.
        """
        if counts:
            self._deaths.append(now)
            full = len(self._deaths) == MAX_DEATHS
            if full and now - self._deaths[0] <= WINDOW_S:
                return None
        if lived_s >= WELL_S:
            self._wait_s = 0.0
        wait_s = self._wait_s
        self._wait_s = min(max(FIRST_S, 2 * wait_s), MAX_S)
        return wait_s
