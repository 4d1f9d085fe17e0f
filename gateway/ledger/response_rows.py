"""
The rows of stored turns: how one is written, ended and removed.

Runs in the writer's thread, inside its transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    delete,
    exists,
    func,
    select,
    update,
)

from gateway.ledger.statement import CoreStatement
from gateway.ledger.tables import response

MAX_TURNS = 1000  # in a row
TRIM_TO = 0.9  # of what a user may store, so that not every turn has to trim
TRIM_STEP = 50  # turns that are read together
READ_STEP = 200  # turns that one statement names

ENDED = datetime(1970, 1, 1, tzinfo=UTC)
"""The expiry of a turn that was deleted or replaced."""

TurnRows = Collection[dict[str, Any]]
_turn = response.c


class InsertTurns(CoreStatement):
    """
    Inserts turns.

    Args:
        insert: writes one row.
        max_bytes: that one user may store; 0 = no limit.
    """

    __slots__ = ("_insert", "_max_bytes")

    def __init__(self, insert: CoreStatement, max_bytes: int) -> None:
        self._insert = insert
        self._max_bytes = max_bytes

    def run(self, connection: Connection, rows: TurnRows) -> None:
        """See ``CoreStatement.run``."""
        for row in rows:
            parent = select(_turn.turn_id).where(_turn.turn_id == row["parent_id"])
            if row["parent_id"] and connection.execute(parent).first() is None:
                continue  # it was removed meanwhile: the conversation is not whole
            self._insert.run(connection, [row])
            _end(connection, row["response_id"], row["user"], row["turn_id"])
        for user in {row["user"] for row in rows} if self._max_bytes else ():
            _trim(connection, user, self._max_bytes)


class DeleteTurns(CoreStatement):
    """Deletes turns."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def run(self, connection: Connection, rows: TurnRows) -> None:
        """See ``CoreStatement.run``."""
        for row in rows:
            _end(connection, row["response_id"], row["user"], "")


def _end(connection: Connection, response_id: str, user: str, keep: str) -> None:
    """
    End the turns that *response_id* names, all but the one with the turn id *keep*.
    Each is removed unless a later turn needs it, and with it those before it that only
    it needed.
    """
    same = (
        _turn.response_id == response_id,
        _turn.user == user,
        _turn.expires_at > ENDED,
    )
    ended = connection.scalars(
        select(_turn.turn_id).where(*same, _turn.turn_id != keep)
    )
    for turn_id in ended.all():
        one = update(response).where(_turn.turn_id == turn_id)
        connection.execute(one.values(expires_at=ENDED))
        _remove_unneeded(connection, turn_id)


def _remove_unneeded(connection: Connection, turn_id: str) -> None:
    """Remove *turn_id* and the turns before it, up to the first that is needed."""
    now = datetime.now(UTC)
    for _ in range(MAX_TURNS):
        unneeded = _turn.turn_id == turn_id, _is_over(now), _is_last()
        found = connection.execute(select(_turn.parent_id).where(*unneeded)).first()
        if found is None:
            return
        _remove(connection, [turn_id])
        turn_id = found[0]


def _trim(connection: Connection, user: str, max_bytes: int) -> None:
    """Remove the oldest last turns of *user* until what is left is within bounds."""
    kept = select(func.coalesce(func.sum(_turn.bytes), 0)).where(_turn.user == user)
    over = connection.scalar(kept) or 0
    if over <= max_bytes:
        return
    over -= int(max_bytes * TRIM_TO)
    last = select(_turn.turn_id, _turn.bytes).where(_turn.user == user, _is_last())
    last = last.order_by(_turn.created_at).limit(TRIM_STEP)
    while over > 0 and (found := connection.execute(last).all()):
        some = []
        for turn_id, size in found:
            if over > 0:
                some.append(turn_id)
                over -= size
        _remove(connection, some)


def _remove(connection: Connection, turn_ids: Sequence[str]) -> None:
    for some in steps(turn_ids):
        connection.execute(delete(response).where(_turn.turn_id.in_(some)))


def steps(turn_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """*turn_ids*, as many at a time as one statement names."""
    for start in range(0, len(turn_ids), READ_STEP):
        yield turn_ids[start : start + READ_STEP]


def _is_over(now: datetime) -> ColumnElement[bool]:
    """A turn that cannot be found any more."""
    return _turn.expires_at <= now


def _is_last() -> ColumnElement[bool]:
    """A turn that no other continues."""
    later = response.alias()
    return ~exists().where(later.c.parent_id == _turn.turn_id)


def purge(connection: Connection, now: datetime, most: int) -> int:
    """Remove at most *most* turns that are not needed any more; returns how many."""
    removed = 0
    while removed < most:
        unneeded = select(_turn.turn_id).where(_is_over(now), _is_last())
        some = connection.scalars(unneeded.limit(most - removed)).all()
        if not some:
            break
        _remove(connection, some)
        removed += len(some)
    return removed
