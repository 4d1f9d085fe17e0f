"""
The conversations of websockets: what a response, named as the parent of the next one,
stands for.

Rule 1: a turn holds its own input and output, and a link to the turn before, so that a
        conversation is held once, however many of its responses can be named.
Rule 2: what one websocket has said no other can name.
Rule 3: bytes are bounded, of each user and of all: the turns that were named longest
        ago can be named no more. The bytes of one are free when no later turn needs
        them.
Rule 4: the ids of what is no longer held are known for a while: a request that names
        one is refused, and not sent to an account that cannot know it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from gateway.ledger.response_store import PreviousTurn

MAX_USER_BYTES = 128 * 1024 * 1024
MAX_TOTAL_BYTES = 512 * 1024 * 1024
MAX_FORGOTTEN = 256  # ids that a websocket is remembered to have had
TURN_BYTES = 512  # that a turn takes besides its items


@dataclass(slots=True, eq=False)
class Turn:
    """
    Attributes:
        parent: the turn before, None for the first.
        items: the bytes of its input and output items, joined by commas; "" for none.
        lane: the one that it ran in.
        stored: where the ledger has it; None if it has not.
        external: the response before the first turn, which is held elsewhere; "".
        links: how many turns go on from this one, and whether it can be named.
    """

    parent: Turn | None
    items: bytes
    lane: str = ""
    stored: PreviousTurn | None = None
    external: str = ""
    links: int = 0

    def history(self) -> list[bytes]:
        """The items of all turns up to this one, the oldest first."""
        parts: list[bytes] = []
        turn: Turn | None = self
        while turn is not None:
            if turn.items:
                parts.append(turn.items)
            turn = turn.parent
        return parts[::-1]

    @property
    def size(self) -> int:
        """The bytes that it takes up."""
        return len(self.items) + TURN_BYTES


class Key(NamedTuple):
    """A turn's name: the websocket, and the id of the response."""

    connection_id: str
    response_id: str


class _UserTurns:
    """The turns of one user that can be named, the one named last at the end."""

    def __init__(self) -> None:
        self.named: OrderedDict[Key, Turn] = OrderedDict()
        self.bytes = 0


class _Connection:
    """The responses of one websocket: those that can be named, and those that could."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.forgotten: OrderedDict[str, None] = OrderedDict()

    def forget(self, response_id: str) -> None:
        """*response_id* can be named no more."""
        self.held.discard(response_id)
        self.forgotten[response_id] = None
        if len(self.forgotten) > MAX_FORGOTTEN:
            self.forgotten.popitem(last=False)

    def keep(self, response_id: str) -> None:
        """*response_id* can be named."""
        self.held.add(response_id)
        self.forgotten.pop(response_id, None)


class TurnMemory:
    """
    The turns of all websockets of the process.

    Args:
        max_user_bytes, max_total_bytes: see rule 3.
    """

    def __init__(
        self,
        max_user_bytes: int = MAX_USER_BYTES,
        max_total_bytes: int = MAX_TOTAL_BYTES,
    ) -> None:
        self._max_user_bytes = max_user_bytes
        self._max_total_bytes = max_total_bytes
        self._users: dict[str, _UserTurns] = {}
        self._connections: dict[str, _Connection] = {}
        self.bytes = 0

    def find(self, user: str, key: Key) -> Turn | None:
        """The turn that *key* names; it becomes the one that was named last."""
        turns = self._users.get(user)
        turn = turns.named.get(key) if turns else None
        if turns and turn:
            turns.named.move_to_end(key)
        return turn

    def was_here(self, key: Key) -> bool:
        """Whether *key* named a turn that is not held any more."""
        connection = self._connections.get(key.connection_id)
        return connection is not None and key.response_id in connection.forgotten

    def add(self, user: str, key: Key, turn: Turn) -> None:
        """Let *key* name *turn* from now on."""
        self.forget(user, key)
        turns = self._users.setdefault(user, _UserTurns())
        turns.named[key] = turn
        self._link(turns, turn)
        connection = self._connections.setdefault(key.connection_id, _Connection())
        connection.keep(key.response_id)
        while turns.named and turns.bytes > self._max_user_bytes:
            self._evict(user, turns)
        while self.bytes > self._max_total_bytes and self._users:
            largest = max(self._users, key=lambda name: self._users[name].bytes)
            self._evict(largest, self._users[largest])

    def forget(self, user: str, key: Key) -> None:
        """Let *key* name nothing any more."""
        turns = self._users.get(user)
        turn = turns.named.pop(key, None) if turns else None
        if turns is None or turn is None:
            return
        self._unlink(turns, turn)
        if connection := self._connections.get(key.connection_id):
            connection.forget(key.response_id)
        if not turns.named:
            self._users.pop(user, None)

    def drop(self, user: str, connection_id: str) -> None:
        """A websocket has ended."""
        connection = self._connections.pop(connection_id, None)
        for response_id in connection.held if connection else ():
            self.forget(user, Key(connection_id, response_id))

    def _evict(self, user: str, turns: _UserTurns) -> None:
        self.forget(user, next(iter(turns.named)))

    def _link(self, turns: _UserTurns, turn: Turn) -> None:
        """Put one link on *turn*; one that was free takes up its bytes again."""
        at: Turn | None = turn
        while at is not None:
            at.links += 1
            if at.links > 1:
                return
            self._count(turns, at.size)
            at = at.parent

    def _unlink(self, turns: _UserTurns, turn: Turn) -> None:
        """Take one link off *turn*, and free what nothing links to."""
        at: Turn | None = turn
        while at is not None:
            at.links -= 1
            if at.links:
                return
            self._count(turns, -at.size)
            at = at.parent

    def _count(self, turns: _UserTurns, size: int) -> None:
        turns.bytes += size
        self.bytes += size
