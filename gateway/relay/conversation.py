"""
``previous_response_id`` for accounts that store nothing.

A Responses client may name its last answer instead of repeating the conversation.
An account that made an answer natively knows it. No account knows a converted one, so
the gateway stores the turn (unless ``store`` is false) and puts it before the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.accounts.accounts import Accounts
from gateway.context import RequestContext
from gateway.errors import ClientError
from gateway.ledger.response_store import (
    PreviousTurn,
    ResponseStore,
    StoredConversation,
    StoredTurn,
)
from gateway.protocols.json_access import read_object, sub
from gateway.protocols.lossless_json import dumps
from gateway.protocols.responses.request import with_earlier
from gateway.protocols.sse import events, payload
from gateway.relay.failover_state import FailoverState

Document = dict[str, Any]


class Question(NamedTuple):
    """What a turn asked: its own input as JSON, and what it goes on from."""

    earlier: PreviousTurn
    input: bytes


class Conversations:
    """
    Args:
        store: where turns are stored.
        has_siblings: other processes serve with the same ledger, so a response that
            this one does not know may be one of theirs. Alone it knows better than
            the rows: which response was not to be stored, and whose account has been
            replaced.
    """

    def __init__(
        self, store: ResponseStore, accounts: Accounts, has_siblings: bool = False
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._has_siblings = has_siblings

    async def resume(self, state: FailoverState) -> None:
        """
        Put the stored turns that the request goes on from before its own.

        Raises:
            ClientError: "previous_response_not_found": no account can know them, or
                they are those of another user.
        """
        context = state.context
        ident = context.ask.outline.get("previous_response_id")
        if not context.wire.keeps_responses or not isinstance(ident, str):
            return
        user = context.user.name
        await self.find_maker(user, ident)
        if self._accounts.keeps_response(user, ident):
            return
        if kept := await self._store.find(ident, user):
            state.earlier = kept.last_turn
            state.replace_document(with_earlier(state.document, kept.items))
        elif self._may_be_native(state) and not await self._store.is_of_another(
            ident, user
        ):
            state.native_only = True  # one of them may know it
        else:
            raise ClientError(
                "previous_response_not_found",
                f"Previous response with id '{ident}' not found",
                param="previous_response_id",
            )

    async def find_maker(self, user: str, ident: str) -> None:
        """
        Learn which account made the response *ident*, where another process served it.
        """
        if self._has_siblings and self._accounts.maker(user, ident) is None:
            if account := await self._store.owner(ident, user):
                self._accounts.learn_maker(user, ident, account)

    def _may_be_native(self, state: FailoverState) -> bool:
        """Whether an account may know a turn that was not made here."""
        context, continuation = state.context, state.continuation
        if continuation and continuation.must_be_known:
            return False
        return self._accounts.has_native(context.ask.model, context.wire.name)

    def question(self, state: FailoverState) -> Question | None:
        """What is stored of the request; None if it is not to be."""
        context, wire = state.context, state.context.wire
        if not wire.keeps_responses or context.path != wire.path:
            return None
        document = context.ask.document
        if document.get("store") is False:
            return None
        if (known := state.continuation) and known.earlier:
            return Question(known.earlier, known.input)
        return Question(state.earlier, dumps(_items(document)))

    async def keep(
        self, context: RequestContext, question: Question | None, response: Document
    ) -> PreviousTurn | None:
        """
        Store the turn that *response*, a converted answer, ended; returns it for the
        turn that continues it, None if it is not stored.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        ident = response.get("id")
        if question is None or not isinstance(ident, str) or not ident:
            return None
        answer = dumps(response)
        body = b'{"input":%b,"response":%b}' % (question.input, answer)
        user, account = context.user.name, context.record.account
        return await self._store.store(
            StoredTurn(ident, user, account, body, question.earlier)
        )

    async def kept(self, user: str, ident: str) -> StoredConversation | None:
        """The stored conversation up to the response *ident* of *user*."""
        return await self._store.find(ident, user)

    async def forget(self, user: str, ident: str) -> None:
        """Drop a stored turn; later turns that go on from it stay whole."""
        await self._store.delete(ident, user)


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
