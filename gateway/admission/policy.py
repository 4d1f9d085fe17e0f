"""
Who is next.

Waiters stand in line for slots by *name* (of a user, or of accounts). A waiter takes
any one of the names that fit it.

Rule 1: a user's own waiters are served in the order in which they arrived.
Rule 2: users take turns. Where a slot of a name frees, it is the turn of the user
        whose last turn at that name is the longest ago; who begins to wait is last.
Rule 3: a turn at one name counts for every line of that user in which the name
        stands, and for no other. So a pool of equal accounts is one round, and
        nobody starves at one account by being served well at another.

    Line ── Group: waiters with the same fitting names
              └── Lane: one user's waiters in the group, by arrival

Waiting, leaving and serving cost a binary search each, whatever the length; a place
in line is computed from counts.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Generic, TypeVar

RING_EXACT = 256
"""Up to so many users before one in the ring are looked at; beyond, a sample is."""


class Waiter:
    """
    One who waits.

    Args:
        arrival: a number that grows with each arrival; no two waiters share it.
        fits: the names of which it takes any one.
    """

    __slots__ = ("user", "arrival", "fits")

    def __init__(self, user: str, arrival: int, fits: frozenset[str]) -> None:
        self.user = user
        self.arrival = arrival
        self.fits = fits


W = TypeVar("W", bound=Waiter)


class Lane(Generic[W]):
    """One user's waiters inside a group; *turn* is the number of its last turn."""

    __slots__ = ("user", "turn", "waiters")

    def __init__(self, user: str, turn: int) -> None:
        self.user = user
        self.turn = turn
        self.waiters: list[tuple[int, W]] = []

    def before(self, arrival: int) -> int:
        """How many of them arrived before *arrival*."""
        return bisect_left(self.waiters, (arrival,))


class Group(Generic[W]):
    """
    The waiters with the same fitting names.

    Attributes:
        ring: the lanes, the one whose last turn is the longest ago first.
        depth: ``depth[k]`` lanes have more than *k* waiters.
    """

    __slots__ = ("fits", "lanes", "ring", "depth", "size")

    def __init__(self, fits: frozenset[str]) -> None:
        self.fits = fits
        self.lanes: dict[str, Lane[W]] = {}
        self.ring: list[tuple[int, Lane[W]]] = []
        self.depth: list[int] = []
        self.size = 0

    def add(self, waiter: W, turn: int) -> None:
        """Let *waiter* stand in its user's lane; a new lane had its turn at *turn*."""
        lane = self.lanes.get(waiter.user)
        if lane is None:
            lane = self.lanes[waiter.user] = Lane(waiter.user, turn)
            insort(self.ring, (turn, lane), key=itemgetter(0))
        length = len(lane.waiters)
        if length == len(self.depth):
            self.depth.append(0)
        self.depth[length] += 1
        lane.waiters.insert(lane.before(waiter.arrival), (waiter.arrival, waiter))
        self.size += 1

    def remove(self, waiter: W) -> int:
        """Take *waiter* out; the last turn of its lane."""
        lane = self.lanes[waiter.user]
        del lane.waiters[lane.before(waiter.arrival)]
        self.size -= 1
        length = len(lane.waiters)
        self.depth[length] -= 1
        if not self.depth[length]:  # no lane is that deep, so none is deeper
            self.depth.pop()
        if not length:
            del self.lanes[waiter.user]
            del self.ring[bisect_left(self.ring, (lane.turn,))]
        return lane.turn

    def had_turn(self, user: str, turn: int) -> None:
        """*user* goes to the end of the ring."""
        lane = self.lanes.get(user)
        if lane is None:
            return
        del self.ring[bisect_left(self.ring, (lane.turn,))]
        lane.turn = turn
        self.ring.append((turn, lane))

    def ahead(self, user: str, rounds: int, turn: int) -> int:
        """
        How many waiters of other users come before one of *user*.

        Args:
            rounds: how many of the user's own come before that one.
            turn: the last turn of the user.
        """
        own = self.lanes.get(user)
        length = len(own.waiters) if own else 0
        whole = sum(self.depth[:rounds]) - min(length, rounds)
        deep = self.depth[rounds] if rounds < len(self.depth) else 0
        if deep == (length > rounds):  # nobody else is that deep
            return whole
        first = bisect_left(self.ring, (turn,))
        sample = self.ring[: min(first, RING_EXACT)]
        seen = sum(
            len(lane.waiters) > rounds for _, lane in sample if lane.user != user
        )
        return whole + (seen * first // len(sample) if sample else 0)


class FairQueue(Generic[W]):
    """Everybody who waits, in every group."""

    def __init__(self) -> None:
        self._groups: dict[frozenset[str], Group[W]] = {}
        self._at: dict[str, list[Group[W]]] = {}  # by name
        self._turn = 0

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._groups)

    def add(self, waiter: W, turn: int | None = None) -> None:
        """
        Let *waiter* stand in line.

        Args:
            turn: what ``remove`` gave, for one who comes back.
        """
        group = self._groups.get(waiter.fits)
        if group is None:
            group = self._groups[waiter.fits] = Group(waiter.fits)
            for name in waiter.fits:
                self._at.setdefault(name, []).append(group)
        self._turn += 1
        group.add(waiter, self._turn if turn is None else turn)

    def remove(self, waiter: W) -> int:
        """Let *waiter* leave; the number of its user's last turn."""
        group = self._groups[waiter.fits]
        turn = group.remove(waiter)
        if not group.size:
            del self._groups[waiter.fits]
            for name in waiter.fits:
                self._at[name].remove(group)
                if not self._at[name]:
                    del self._at[name]
        return turn

    def next(self, name: str) -> W | None:
        """Whose turn it is when a slot of *name* frees."""
        groups = self._at.get(name)
        if not groups:
            return None
        user = min((g.ring[0] for g in groups), key=itemgetter(0))[1].user
        lanes = (lane for g in groups if (lane := g.lanes.get(user)))
        return min(lane.waiters[0] for lane in lanes)[1]

    def serve(self, waiter: W, name: str) -> None:
        """*waiter* got a slot of *name*: it leaves, and its user has had a turn."""
        self.remove(waiter)
        self._turn += 1
        for group in self._at.get(name, ()):
            group.had_turn(waiter.user, self._turn)

    def waiting(self, names: Iterable[str]) -> int:
        """How many wait for at least one of *names*."""
        return sum(group.size for group in self._touching(names))

    def reach(self, name: str) -> set[str]:
        """Every name that fits somebody whom *name* fits."""
        return {other for group in self._at.get(name, ()) for other in group.fits}

    def at(self, name: str) -> list[W]:
        """Everybody whom *name* fits, in no order."""
        return [
            waiter
            for group in self._at.get(name, ())
            for lane in group.lanes.values()
            for _, waiter in lane.waiters
        ]

    def of(self, user: str) -> list[W]:
        """Everybody of *user*, in no order."""
        lanes = (group.lanes.get(user) for group in self._groups.values())
        return [waiter for lane in lanes if lane for _, waiter in lane.waiters]

    def position(self, waiter: W, slots: Mapping[str, int]) -> int:
        """
        The place of *waiter* in the just order, from 1.

        Where others may go elsewhere too, only the share of them counts that the
        common names have in all of theirs.

        Args:
            slots: how many slots each name has.
        """
        groups = self._touching(waiter.fits)
        turn = self._groups[waiter.fits].lanes[waiter.user].turn
        own = sum(
            lane.before(waiter.arrival)
            for group in groups
            if (lane := group.lanes.get(waiter.user))
        )
        others = sum(
            group.ahead(waiter.user, own, turn) * _share(group.fits, waiter.fits, slots)
            for group in groups
        )
        return 1 + own + int(others)

    def _touching(self, names: Iterable[str]) -> Iterable[Group[W]]:
        return {
            id(group): group for name in names for group in self._at.get(name, ())
        }.values()


def _share(
    theirs: frozenset[str], mine: frozenset[str], slots: Mapping[str, int]
) -> float:
    """The part of *theirs* that lies in *mine*, counted in slots."""
    if theirs <= mine:
        return 1.0
    common = sum(slots.get(name, 1) for name in theirs & mine)
    return common / max(1, sum(slots.get(name, 1) for name in theirs))
