"""
Room for request bodies: the bytes of one user's that arrive or wait are bounded.

Rule 1: a body is read only while its user has room. One that tells its length has all
        of its room from the start; the others get it as they grow.
Rule 2: the oldest one that waits for room is the next to get it. One that is in memory
        already, because it came with its head, need not wait for what has not come.
Rule 3: one body may be larger than the limit: alone, every body has room.
Rule 4: where all room is taken by bodies that grow, one of them goes on beyond the
        limit; else they would wait for each other forever.
Rule 5: a share is released once, whatever ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class BodyShare:
    """
    What one body takes up of its user's room; a context manager that releases it.

    Attributes:
        size: its bytes in memory, decoded.
        reserved: more bytes that there is room for.
        whole: it came with its head.
        complete: nothing more of it arrives.
        need: the bytes that it waits to have room for.
        waiting: done when it has.
        waited_s: how long it has waited for room.
    """

    __slots__ = (
        *("size", "reserved", "whole", "complete", "need", "waiting", "waited_s"),
        "_room",
    )

    def __init__(self, room: _Room) -> None:
        self.size = self.reserved = self.need = 0
        self.whole = self.complete = False
        self.waiting: asyncio.Future[None] | None = None
        self.waited_s = 0.0
        self._room: _Room | None = room
        room.shares[self] = None

    async def room(self, need: int = 1, *, whole: bool = False) -> None:
        """
        Wait until *need* more bytes may be taken.

        Args:
            need: 1 where the number is not known; what is read then may exceed the
                limit by a read buffer.
            whole: the body is in memory already.
        """
        room = self._room
        if room is None or self.reserved >= need:
            return
        self.need, self.whole = need, whole
        if not room.waiting and room.fits(self):
            room.reserve(self, need)
            return
        loop = asyncio.get_running_loop()
        self.waiting, began = loop.create_future(), loop.time()
        room.waiting += 1
        try:
            room.grant_next()
            await self.waiting
        finally:
            room.waiting -= 1
            self.waiting = None
            self.waited_s += loop.time() - began

    def try_hold(self, size: int) -> bool:
        """
        Take up the whole body of *size* bytes, which is in memory already; False if it
        must wait for room.
        """
        room = self._room
        self.need, self.whole = size, True
        if room is None or room.waiting or not room.fits(self):
            return False
        self.size, self.complete = size, True
        room.used += size
        return True

    def wake(self) -> None:
        """The end of the body has come while it waited: it needs no room for that."""
        if self.waiting and not self.waiting.done():
            self.waiting.set_result(None)

    def take(self, size: int) -> None:
        """*size* more bytes are in memory."""
        if self._room is not None:
            self.size += size
            self._room.used += size
            self._room.reserve(self, max(0, self.reserved - size))

    def close(self) -> None:
        """The body is complete; it waits for its turn."""
        self.complete = True
        if self._room is not None:
            self._room.reserve(self, 0)
            self._room.stop_exceeding(self)

    def release(self) -> None:
        """Give the bytes back; nothing happens the second time."""
        room, self._room = self._room, None
        if room is not None:
            room.leave(self)

    def __enter__(self) -> BodyShare:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class _Room:
    """
    The room of one user; its shares are in the order of their arrival.

    Attributes:
        used: the bytes in memory.
        reserved: those that may come besides.
        coming: the part of these that is not in memory in any form.
    """

    def __init__(self, max_bytes: int, forget: Callable[[], object]) -> None:
        self.max_bytes = max_bytes
        self.used = self.reserved = self.coming = 0
        self.waiting = 0
        self.shares: dict[BodyShare, None] = {}
        self._exceeding: BodyShare | None = None
        self._forget = forget

    def reserve(self, share: BodyShare, size: int) -> None:
        """Let *share* have room for *size* more bytes."""
        more, share.reserved = size - share.reserved, size
        self.reserved += more
        if not share.whole:
            self.coming += more

    def fits(self, share: BodyShare) -> bool:
        """Whether there is room for what *share* needs."""
        taken = self.used + self.reserved - (self.coming if share.whole else 0)
        return taken == share.size or taken + share.need <= self.max_bytes

    def grant_next(self) -> None:
        """Let those go on that have room, the oldest first."""
        blocked: set[bool] = set()
        first = [self._exceeding] if self._exceeding else []
        for share in [*first, *self.shares] if self.waiting else ():
            waiting = share.waiting
            if waiting is None or waiting.done() or share.whole in blocked:
                continue
            if self.fits(share) or self._may_exceed(share):
                self.reserve(share, share.need)
                waiting.set_result(None)
            else:
                blocked.add(share.whole)

    def _may_exceed(self, share: BodyShare) -> bool:
        """Whether *share* is the one that goes on beyond the limit."""
        for one in self.shares:
            if one.reserved > 1 or (one.complete and one.size):
                return False  # room comes when that one goes on
        if self._exceeding is None:
            self._exceeding = share
        return self._exceeding is share

    def stop_exceeding(self, share: BodyShare) -> None:
        """Nothing more of *share* arrives."""
        if self._exceeding is share:
            self._exceeding = None
        self.grant_next()

    def leave(self, share: BodyShare) -> None:
        """*share* is over."""
        del self.shares[share]
        self.used -= share.size
        self.reserve(share, 0)
        self.stop_exceeding(share)
        if not self.shares:
            self._forget()


class BodyRooms:
    """The rooms of all users that have a body in them."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    def enter(self, user: str, max_bytes: int) -> BodyShare:
        """A share for a body of *user* that begins to arrive; it takes nothing yet."""
        room = self._rooms.get(user)
        if room is None:
            room = _Room(max_bytes, lambda: self._rooms.pop(user, None))
            self._rooms[user] = room
        return BodyShare(room)

    def resize(self, user: str, max_bytes: int) -> None:
        """Change the limit of *user* at once; what is in memory stays."""
        if room := self._rooms.get(user):
            room.max_bytes = max_bytes
            room.grant_next()

    def used(self, user: str) -> int:
        """The bytes of *user* that arrive or wait."""
        room = self._rooms.get(user)
        return room.used if room else 0
