"""
The fair queue: which waiter gets the next slot.

A waiter asks for a slot of any one of the *names* (of a user, or of accounts) that fit
it.

Rule 1: a user's own waiters are served in the order in which they arrived.
Rule 2: round robin between users. The next slot of a name goes to the user who was
        served there the longest ago; a user who begins to wait comes last.
Rule 3: a slot of one name counts as service in every group of that user that the name
        fits, and in no other. So a pool of equal accounts is one round, and no user
        starves at one account because another serves it well.

    FairQueue ── FitGroup: the waiters with the same fitting names
                     └── UserQueue: one user's waiters in the group, by arrival

To add, remove or serve a waiter costs a binary search, whatever the length; a position
is computed from counts.
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
    An entry of the queue.

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


class UserQueue(Generic[W]):
    """
    One user's waiters inside a group.

    Attributes:
        last_served: the number of the user's last service; the smallest is next.
    """

    __slots__ = ("user", "last_served", "waiters")

    def __init__(self, user: str, last_served: int) -> None:
        self.user = user
        self.last_served = last_served
        self.waiters: list[tuple[int, W]] = []

    def before(self, arrival: int) -> int:
        """How many of them arrived before *arrival*."""
        return bisect_left(self.waiters, (arrival,))


class FitGroup(Generic[W]):
    """
    The waiters with the same fitting names.

    Attributes:
        ring: the queues, the one that was served the longest ago first.
        depth: ``depth[k]`` queues have more than *k* waiters.
    """

    __slots__ = ("fits", "queues", "ring", "depth", "size")

    def __init__(self, fits: frozenset[str]) -> None:
        self.fits = fits
        self.queues: dict[str, UserQueue[W]] = {}
        self.ring: list[tuple[int, UserQueue[W]]] = []
        self.depth: list[int] = []
        self.size = 0

    def add(self, waiter: W, last_served: int) -> None:
        """Add *waiter* to its user's queue; *last_served* is that of a new queue."""
        queue = self.queues.get(waiter.user)
        if queue is None:
            queue = self.queues[waiter.user] = UserQueue(waiter.user, last_served)
            insort(self.ring, (last_served, queue), key=itemgetter(0))
        length = len(queue.waiters)
        if length == len(self.depth):
            self.depth.append(0)
        self.depth[length] += 1
        queue.waiters.insert(queue.before(waiter.arrival), (waiter.arrival, waiter))
        self.size += 1

    def remove(self, waiter: W) -> int:
        """Take *waiter* out; returns ``last_served`` of its queue."""
        queue = self.queues[waiter.user]
        del queue.waiters[queue.before(waiter.arrival)]
        self.size -= 1
        length = len(queue.waiters)
        self.depth[length] -= 1
        if not self.depth[length]:  # no queue is that deep, so none is deeper
            self.depth.pop()
        if not length:
            del self.queues[waiter.user]
            del self.ring[bisect_left(self.ring, (queue.last_served,))]
        return queue.last_served

    def note_served(self, user: str, last_served: int) -> None:
        """*user* goes to the end of the ring."""
        queue = self.queues.get(user)
        if queue is None:
            return
        del self.ring[bisect_left(self.ring, (queue.last_served,))]
        queue.last_served = last_served
        self.ring.append((last_served, queue))

    def ahead(self, user: str, rounds: int, last_served: int) -> int:
        """
        How many waiters of other users come before one of *user*.

        Args:
            rounds: how many of the user's own come before that one.
            last_served: the user's.
        """
        own = self.queues.get(user)
        length = len(own.waiters) if own else 0
        whole = sum(self.depth[:rounds]) - min(length, rounds)
        deep = self.depth[rounds] if rounds < len(self.depth) else 0
        if deep == (length > rounds):  # no other user is that deep
            return whole
        first = bisect_left(self.ring, (last_served,))
        sample = self.ring[: min(first, RING_EXACT)]
        seen = sum(
            len(queue.waiters) > rounds for _, queue in sample if queue.user != user
        )
        return whole + (seen * first // len(sample) if sample else 0)


class FairQueue(Generic[W]):
    """The waiters of all groups."""

    def __init__(self) -> None:
        self._groups: dict[frozenset[str], FitGroup[W]] = {}
        self._at: dict[str, list[FitGroup[W]]] = {}  # by name
        self._served = 0

    def __bool__(self) -> bool:
        """Whether there is a waiter."""
        return bool(self._groups)

    @property
    def served(self) -> int:
        """The number of the last service."""
        return self._served

    def skip_to(self, served: int) -> None:
        """Number services from *served* on, unless they have come so far."""
        self._served = max(self._served, served)

    def add(self, waiter: W, last_served: int | None = None) -> None:
        """
        Add *waiter*.

        Args:
            last_served: what ``remove`` returned, for a waiter that comes back.
        """
        group = self._groups.get(waiter.fits)
        if group is None:
            group = self._groups[waiter.fits] = FitGroup(waiter.fits)
            for name in waiter.fits:
                self._at.setdefault(name, []).append(group)
        self._served += 1
        group.add(waiter, self._served if last_served is None else last_served)

    def remove(self, waiter: W) -> int:
        """Take *waiter* out; returns its user's ``last_served``."""
        group = self._groups[waiter.fits]
        last_served = group.remove(waiter)
        if not group.size:
            del self._groups[waiter.fits]
            for name in waiter.fits:
                self._at[name].remove(group)
                if not self._at[name]:
                    del self._at[name]
        return last_served

    def next(self, name: str) -> W | None:
        """The waiter that gets the next slot of *name*."""
        groups = self._at.get(name)
        if not groups:
            return None
        if len(groups) == 1:  # as nearly always
            return groups[0].ring[0][1].waiters[0][1]
        user = min((g.ring[0] for g in groups), key=itemgetter(0))[1].user
        queues = (queue for g in groups if (queue := g.queues.get(user)))
        return min(queue.waiters[0] for queue in queues)[1]

    def serve(self, waiter: W, name: str) -> None:
        """*waiter* got a slot of *name*: it leaves, and its user goes to the end."""
        self.remove(waiter)
        self._served += 1
        for group in self._at.get(name, ()):
            group.note_served(waiter.user, self._served)

    def waiting(self, names: Iterable[str]) -> int:
        """How many wait for at least one of *names*."""
        return sum(group.size for group in self._touching(names))

    def reach(self, name: str) -> set[str]:
        """Every name that fits a waiter that *name* fits."""
        return {other for group in self._at.get(name, ()) for other in group.fits}

    def at(self, name: str) -> list[W]:
        """The waiters that *name* fits, in no order."""
        return [
            waiter
            for group in self._at.get(name, ())
            for queue in group.queues.values()
            for _, waiter in queue.waiters
        ]

    def of(self, user: str) -> list[W]:
        """The waiters of *user*, in no order."""
        queues = (group.queues.get(user) for group in self._groups.values())
        return [waiter for queue in queues if queue for _, waiter in queue.waiters]

    def position(self, waiter: W, slots: Mapping[str, int]) -> int:
        """
        The position of *waiter* in the fair order, from 1.

        Of waiters that fit other names too, only a share counts: that of the common
        names in all of theirs.

        Args:
            slots: how many slots each name has.
        """
        groups = self._touching(waiter.fits)
        last_served = self._groups[waiter.fits].queues[waiter.user].last_served
        own = sum(
            queue.before(waiter.arrival)
            for group in groups
            if (queue := group.queues.get(waiter.user))
        )
        others = sum(
            group.ahead(waiter.user, own, last_served)
            * _share(group.fits, waiter.fits, slots)
            for group in groups
        )
        # 1e-9: whatever the order in which the shares are added
        return 1 + own + int(others + 1e-9)

    def _touching(self, names: Iterable[str]) -> Iterable[FitGroup[W]]:
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
