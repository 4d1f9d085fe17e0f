"""
``previous_response_id`` for accounts that keep nothing.

A Responses client may name its last answer instead of repeating the conversation.
The account that made an answer natively knows it; of a converted one nobody does, so
the gateway keeps the turn (unless ``store`` is false) and puts it before the next.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.accounts.pool import Pool
from gateway.errors import ClientError
from gateway.ledger.state import Kept, State
from gateway.protocols.responses.request import with_earlier
from gateway.protocols.sse import events, payload
from gateway.protocols.wire import read_object, sub
from gateway.turn import Turn

MAX_KEPT_BYTES = 8 * 1024 * 1024  # of one turn with all before it
Document = dict[str, Any]


class Conversations:
    """
    Args:
        state: where turns are kept.
    """

    def __init__(self, state: State, pool: Pool) -> None:
        self._state = state
        self._pool = pool

    async def document(self, turn: Turn) -> Document:
        """
        The body of *turn* with the turns that it goes on from, if they are kept here.

        Raises:
            ClientError: "previous_response_not_found": nobody can know them.
        """
        document = turn.ask.document
        ident = document.get("previous_response_id")
        if turn.wire.name != "responses" or not isinstance(ident, str):
            return document
        user = turn.user.name
        if self._pool.is_native(self._pool.maker(user, ident)):
            return document
        if kept := await self._state.find(ident, user):
            return with_earlier(document, read_object(kept.body).get("items", []))
        if self._pool.has_native(turn):
            return document  # one of them may know it
        raise ClientError(
            "previous_response_not_found",
            f"Previous response with id '{ident}' not found",
            param="previous_response_id",
        )

    async def keep(self, turn: Turn, document: Document, response: Document) -> None:
        """
        Keep the turn that *response*, a converted answer to *document*, ended.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        if not response.get("id") or document.get("store") is False:
            return
        items = [*_items(document), *(response.get("output") or [])]
        body = orjson.dumps({"items": items, "response": response})
        if len(body) <= MAX_KEPT_BYTES:
            user, account = turn.user.name, turn.record.account
            await self._state.keep(Kept(response["id"], user, account, body))

    async def kept(self, user: str, ident: str) -> Document | None:
        """The kept turn *ident* of *user*: ``items`` and ``response``."""
        found = await self._state.find(ident, user)
        return read_object(found.body) if found else None

    async def forget(self, user: str, ident: str) -> None:
        """Drop a kept turn."""
        await self._state.forget(ident, user)


def _items(document: Document) -> list[Any]:
    given = document.get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return given if isinstance(given, list) else []


def response_in(terminal: bytes) -> Document:
    """The ``response`` object of a converted stream's terminal."""
    for event in events(terminal):
        if response := sub(read_object(payload(event)), "response"):
            return response
    return {}
