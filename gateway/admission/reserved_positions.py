"""
Places in line that outlive their request for a few seconds.

Claude Code repeats a refused streaming request at once without streaming, in the same
session: it should not have to start at the end.
"""

from __future__ import annotations

from typing import NamedTuple

KEEP_S = 5.0


class ReservedPosition(NamedTuple):
    """
    Attributes:
        turn: of its user in the line for accounts; None: it waited for its user.
        until: monotonic seconds.
    """

    arrival: int
    turn: int | None
    until: float


class ReservedPositions:
    """By user and session; several requests of one session keep a place each."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], list[ReservedPosition]] = {}

    def __bool__(self) -> bool:
        """Whether any place is kept."""
        return bool(self._places)

    def any_of(self, user: str, now: float) -> bool:
        """Whether a place of *user* is kept."""
        self._expire(now)
        return any(owner == user for owner, _ in self._places)

    def keep(
        self, user: str, session: str, arrival: int, turn: int | None, now: float
    ) -> None:
        """Remember a place; without a session nobody could come back for it."""
        self._expire(now)
        if session:
            place = ReservedPosition(arrival, turn, now + KEEP_S)
            self._places.setdefault((user, session), []).append(place)

    def take(self, user: str, session: str, now: float) -> ReservedPosition | None:
        """The oldest place that is kept for *session*, once."""
        self._expire(now)
        places = self._places.get((user, session))
        if not places:
            return None
        place = places.pop(0)
        if not places:
            del self._places[(user, session)]
        return place

    def _expire(self, now: float) -> None:
        """Forget what is over, also by a clock that went back."""
        while self._places:
            key, places = next(iter(self._places.items()))
            valid = [place for place in places if 0 < place.until - now <= KEEP_S]
            if len(valid) == len(places):
                return  # those behind it are younger, or were looked at before
            del self._places[key]
            if valid:
                self._places[key] = valid
