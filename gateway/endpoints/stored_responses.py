"""
``/v1/responses/{id}`` and below: a response that the gateway stores, else one that the
account stores which made it. No other account has it, so there is no failover.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounts.accounts import Accounts
from gateway.config.schema import Account
from gateway.endpoints.auxiliary_call import (
    AuxiliaryCalls,
    AuxiliaryRequest,
    json_answer,
    path_id,
)
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.request_reader import RequestReader
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import ClientError, UpstreamError
from gateway.ledger.response_store import StoredConversation
from gateway.relay.conversation import Conversations
from gateway.relay.failures import UpstreamRefusal
from gateway.relay.headers import upwards

STORED_TIMEOUT_S = 60.0  # at most; an answer's own limit may be shorter
MAX_STORED_BYTES = 64 * 1024 * 1024  # of an answer


class StoredResponses:
    """The handler of requests for responses that were made before."""

    def __init__(
        self,
        live: LiveConfig,
        reader: RequestReader,
        accounts: Accounts,
        calls: AuxiliaryCalls,
        budget_guard: BudgetGuard,
        conversations: Conversations,
    ) -> None:
        self._live = live
        self._reader = reader
        self._accounts = accounts
        self._calls = calls
        self._budget_guard = budget_guard
        self._conversations = conversations

    async def serve(self, scope: RequestScope) -> web.Response:
        """The handler."""
        identity = self._reader.identity(scope)
        user, ident = identity.user.name, path_id(scope)
        self._budget_guard.admit(user, scope.client.name)
        if kept := await self._conversations.kept(user, ident):
            return await self._kept(scope, user, ident, kept)
        await self._conversations.find_maker(user, ident)
        account = self._maker(user, ident)
        self._accounts.status.check(account, user)
        body = await self._reader.body(scope, identity)
        # A reload may have replaced the account while the body arrived.
        return await self._passed(scope, self._maker(user, ident), body)

    def _maker(self, user: str, ident: str) -> Account:
        account = self._accounts.maker(user, ident)
        if account is None or account.embedded or not account.keeps_responses:
            raise ClientError("not_found", f"Response with id '{ident}' not found")
        return account

    async def _passed(
        self, scope: RequestScope, account: Account, body: bytes
    ) -> web.Response:
        """The account's answer as it is."""
        request, started_at = scope.request, time.monotonic()
        limits = self._live.config.upstream
        call = AuxiliaryRequest(
            request.method,
            request.rel_url.raw_path.removeprefix("/v1"),
            upwards(
                request.headers, account, scope.record.request_id, same_protocol=True
            ),
            body,
            request.rel_url.raw_query_string,
            min(STORED_TIMEOUT_S, limits.first_event_timeout_s),
            MAX_STORED_BYTES,
        )
        try:
            answer = await self._calls.send(scope, account, call)
        except (UpstreamRefusal, UpstreamError) as failure:
            raise self._calls.note_failure(
                scope, account, failure, body, started_at
            ).error
        scope.record.set_outcome("ok")
        return json_answer(scope, answer.status, answer.body, answer.headers)

    async def _kept(
        self, scope: RequestScope, user: str, ident: str, kept: StoredConversation
    ) -> web.Response:
        """A response that the gateway itself stores, since no account does."""
        request = scope.request
        if request.method == "POST":
            raise ClientError(
                "invalid_request", "Only a background response can be cancelled"
            )
        document = kept.response
        if request.method == "DELETE":
            await self._conversations.forget(user, ident)
            document = {"id": ident, "object": "response", "deleted": True}
        elif request.path.endswith("/input_items"):
            document = _listed(kept.input_items)
        scope.record.set_outcome("ok")
        return json_answer(scope, 200, orjson.dumps(document))


def _listed(given: list[Any]) -> dict[str, Any]:
    """The list of the input items that a stored turn was *given*."""
    ids = [item.get("id") for item in given if isinstance(item, dict)] or [None]
    return {
        "object": "list",
        "data": given,
        "has_more": False,
        "first_id": ids[0],
        "last_id": ids[-1],
    }
