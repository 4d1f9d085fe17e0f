"""
Stored responses: what a later request continues by ``previous_response_id``.

A response is stored as a *turn*: its own input, its output, and a link to the turn
before.

Rule 1: a turn does not repeat the turns before, so a conversation grows by what is
        new in it.
Rule 2: a turn that was deleted or replaced, or has expired, is not found any more. Its
        row stays while a later turn continues it.
Rule 3: a turn belongs to one user. What a user stores is bounded: the oldest turns
        that no other turn continues are removed first.
Rule 4: a conversation is bounded in turns and bytes. One that is broken, circular or
        too long is not found.

    turn 1 ◀── turn 2 ◀── turn 3        links point backwards
                     ◀── turn 3'        and may branch
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Select, and_, select

from gateway.config import schema as config
from gateway.ledger.ledger import Ledger
from gateway.ledger.response_owner import is_of_another, response_owner
from gateway.ledger.response_rows import MAX_TURNS, DeleteTurns, InsertTurns, steps
from gateway.ledger.tables import response
from gateway.ledger.writer import RowWrite

MAX_BYTES = 8 * 1024 * 1024  # of one turn with all before it
FOR_EVER = timedelta(days=36500)

_turn = response.c


class PreviousTurn(NamedTuple):
    """
    The last turn of a stored conversation, for the turn that continues it.

    Attributes:
        turns, total_bytes: of the whole conversation up to this turn.
    """

    turn_id: str = ""
    turns: int = 0
    total_bytes: int = 0


class StoredTurn(NamedTuple):
    """
    A response as it is stored.

    Attributes:
        previous: the turn that it continues.
        body: JSON: ``{"input": […], "response": {…}}``.
    """

    response_id: str
    user: str
    account: str
    body: bytes
    previous: PreviousTurn = PreviousTurn()


class StoredConversation(NamedTuple):
    """
    A stored conversation up to one response.

    Attributes:
        input_items: all items before the response's own output.
        response: the ``response`` object.
        last_turn: what the next turn continues.
    """

    input_items: list[Any]
    response: dict[str, Any]
    last_turn: PreviousTurn

    @property
    def items(self) -> list[Any]:
        """All items, with the response's own output."""
        return [*self.input_items, *(self.response.get("output") or ())]


class ResponseStore:
    """
    Args:
        ledger: open; what is written here goes through its one writer.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._upsert = ledger.database.plain_upsert(response)
        self._delete = DeleteTurns()
        self.replace(ledger.rules)

    def replace(self, rules: config.LedgerSettings) -> None:
        """Apply changed rules to the turns that follow."""
        days = rules.response_retention_days
        self._retention = timedelta(days=days) if days else FOR_EVER
        self._insert = InsertTurns(self._upsert, rules.response_max_bytes)

    async def store(self, turn: StoredTurn) -> PreviousTurn | None:
        """
        Store *turn* durably; a second of the same id and user replaces the first. A
        turn that is too long, or whose previous turn has been removed, is not stored.
        Returns it for the turn that continues it; None if it is too long.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        size = len(turn.body)
        turns, total = turn.previous.turns + 1, turn.previous.total_bytes + size
        if turns > MAX_TURNS or total > MAX_BYTES:
            return None
        now = datetime.now(UTC)
        row = {
            "turn_id": uuid.uuid4().hex,
            "parent_id": turn.previous.turn_id,
            "response_id": turn.response_id,
            "user": turn.user,
            "account": turn.account,
            "created_at": now,
            "expires_at": now + self._retention,
            "turns": turns,
            "total_bytes": total,
            "bytes": size,
            "body": turn.body,
        }
        await self._ledger.write(RowWrite(self._insert, row["turn_id"], row))
        return PreviousTurn(str(row["turn_id"]), turns, total)

    async def owner(self, response_id: str, user: str) -> str:
        """The account that made *response_id* for *user*; "" if it is not known."""
        return await response_owner(self._ledger, response_id, user)

    async def is_of_another(self, response_id: str, user: str) -> bool:
        """Whether *response_id* was made for others than *user* alone."""
        return await is_of_another(self._ledger, response_id, user)

    async def find(self, response_id: str, user: str) -> StoredConversation | None:
        """The conversation up to *response_id*; None if it is not there as a whole."""

        def ask(connection: Connection) -> StoredConversation | None:
            named = connection.execute(_named(response_id, user)).first()
            if named is None:
                return None
            last = PreviousTurn(named.turn_id, named.turns, named.total_bytes)
            chain = _chain(connection, last.turn_id, user)
            return _conversation(connection, chain, last) if chain else None

        return await self._ledger.read(ask)

    async def delete(self, response_id: str, user: str) -> None:
        """
        Delete a stored turn; one that is not there is no error.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        row = {"response_id": response_id, "user": user}
        await self._ledger.write(RowWrite(self._delete, (response_id, user), row))


# --- reading ------------------------------------------------------------------------


def _named(response_id: str, user: str) -> Select[tuple[str, int, int]]:
    """The turn that *response_id* names: its id, turns, bytes."""
    return (
        select(_turn.turn_id, _turn.turns, _turn.total_bytes)
        .where(
            _turn.response_id == response_id,
            _turn.user == user,
            _turn.expires_at > datetime.now(UTC),
        )
        .order_by(_turn.created_at.desc())
        .limit(1)
    )


def _chain(connection: Connection, last: str, user: str) -> list[str]:
    """
    The turn ids from the first to *last*; [] for a chain that is broken, circular or
    too long.
    """
    columns = _turn.turn_id, _turn.parent_id, _turn.bytes
    links = select(*columns).where(_turn.turn_id == last, _turn.user == user)
    walk = links.cte("walk", recursive=True)
    before = and_(_turn.turn_id == walk.c.parent_id, _turn.user == user)
    # UNION, not UNION ALL: in a circle nothing new is found, and the walk ends.
    walk = walk.union(select(*columns).join(walk, before))
    rows = connection.execute(select(walk).limit(MAX_TURNS + 1)).all()
    found = {turn_id: (parent_id, size) for turn_id, parent_id, size in rows}
    chain: list[str] = []
    at, left = last, MAX_BYTES
    while at:
        parent_id, size = found.pop(at, ("", MAX_BYTES + 1))
        left -= size
        if left < 0:
            return []
        chain.append(at)
        at = parent_id
    return chain[::-1] if len(chain) <= MAX_TURNS else []


def _conversation(
    connection: Connection, chain: list[str], last: PreviousTurn
) -> StoredConversation | None:
    """The conversation of the turns *chain*; None if one of them is gone meanwhile."""
    bodies: dict[str, bytes] = {}
    for some in steps(chain):
        rows = select(_turn.turn_id, _turn.body).where(_turn.turn_id.in_(some))
        bodies |= {turn_id: body for turn_id, body in connection.execute(rows)}
    items: list[Any] = []
    answer: dict[str, Any] = {}
    for turn_id in chain:
        if turn_id not in bodies:
            return None
        items += answer.get("output") or ()
        own, answer = _read(bodies[turn_id])
        items += own
    return StoredConversation(items, answer, last)


def _read(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The input and the response that a turn's *body* holds."""
    stored = orjson.loads(body)
    answer = stored.get("response") or {}
    if "items" in stored:  # of an older version: the whole conversation with output
        items = stored["items"]
        return items[: len(items) - len(answer.get("output") or ())], answer
    return stored.get("input") or [], answer
