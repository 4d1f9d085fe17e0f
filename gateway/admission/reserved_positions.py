"""
Positions in the queue that outlive their request for a few seconds.

Claude Code repeats a refused streaming request at once without streaming, in the same
session: the repeat should not have to start at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

KEEP_S = 5.0


class ReservedPosition(NamedTuple):
    """
    Attributes:
        last_served: of its user in the queue for accounts; None: it waited for its
            user.
        until: monotonic seconds.
    """

    arrival: int
    last_served: int | None
    until: float


class ReservedPositions:
    """By user and session; several requests of one session have a position each."""

    def __init__(self) -> None:
        self._positions: dict[tuple[str, str], list[ReservedPosition]] = {}

    def __bool__(self) -> bool:
        """Whether any position is reserved."""
        return bool(self._positions)

    def any_of(self, user: str, now: float) -> bool:
        """Whether a position of *user* is reserved."""
        self._expire(now)
        return any(owner == user for owner, _ in self._positions)

    def reserve(
        self, user: str, session: str, arrival: int, last_served: int | None, now: float
    ) -> None:
        """Reserve a position; without a session no repeat can be recognised."""
        self._expire(now)
        if session:
            position = ReservedPosition(arrival, last_served, now + KEEP_S)
            self._positions.setdefault((user, session), []).append(position)

    def take(self, user: str, session: str, now: float) -> ReservedPosition | None:
        """The oldest position that is reserved for *session*, once."""
        self._expire(now)
        positions = self._positions.get((user, session))
        if not positions:
            return None
        position = positions.pop(0)
        if not positions:
            del self._positions[(user, session)]
        return position

    def dump(self) -> list[list[object]]:
        """Every position, for another process of this machine, whose clock it is."""
        return [
            [user, session, *position]
            for (user, session), positions in self._positions.items()
            for position in positions
        ]

    def load(self, known: Iterable[Sequence[Any]]) -> None:
        """Take over what ``dump`` of another process gave."""
        for user, session, arrival, last_served, until in known:
            position = ReservedPosition(arrival, last_served, until)
            self._positions.setdefault((user, session), []).append(position)

    def _expire(self, now: float) -> None:
        """Forget what is over, also by a clock that went back."""
        while self._positions:
            key, positions = next(iter(self._positions.items()))
            valid = [one for one in positions if 0 < one.until - now <= KEEP_S]
            if len(valid) == len(positions):
                return  # those behind it are younger, or were looked at before
            del self._positions[key]
            if valid:
                self._positions[key] = valid
