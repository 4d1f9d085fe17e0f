"""
The endpoints beside the answers: models, token counts, kept responses.

They take no slot. What an account alone knows is asked of the account.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from aiohttp import web

from gateway import log, outgoing
from gateway.accounts.choice import serves
from gateway.accounts.pool import Pool
from gateway.answer_headers import id_headers
from gateway.config import Account
from gateway.conversation import Conversations
from gateway.errors import ClientError, UpstreamError
from gateway.failures import Refusal, redacted_verdict
from gateway.handlers import Handlers, Visit
from gateway.headers import downwards, upstream_request_id, upwards
from gateway.ledger.turns import Thread
from gateway.models import catalogue, entry_of, read_list
from gateway.protocols.estimate import estimate_tokens
from gateway.transport.reply import Reply
from gateway.upstream import MAX_BODY_BYTES, Upstream

COUNT_TIMEOUT_S = 30.0
MODELS_TIMEOUT_S = 5.0
MODELS_KEPT_S = 300.0  # how long an account's own list of models is believed
SIDE_TIMEOUT_S = 60.0


class SideHandlers:
    """
    Args:
        handlers: the frame that every recorded endpoint shares.
    """

    def __init__(
        self,
        handlers: Handlers,
        pool: Pool,
        upstream: Upstream,
        conversations: Conversations,
    ) -> None:
        self._conversations = conversations
        self._handlers = handlers
        self._pool = pool
        self._upstream = upstream
        self._listed: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    # --- models -----------------------------------------------------------------------

    async def models(self, visit: Visit) -> web.Response:
        """``GET /v1/models``: what all accounts together serve."""
        self._handlers.identify(visit.request, visit.record)
        accounts = list(self._pool.accounts.values())
        async with asyncio.TaskGroup() as group:
            lists = [group.create_task(self._list(account)) for account in accounts]
        told = catalogue([(a, task.result()) for a, task in zip(accounts, lists)])
        visit.record.ended("ok")
        return _answer(visit, 200, orjson.dumps(told))

    async def model(self, visit: Visit) -> web.Response:
        """``GET /v1/models/{id}``."""
        self._handlers.identify(visit.request, visit.record)
        ident = _ident(visit)
        for account in self._pool.accounts.values():
            if serves(account, ident):
                visit.record.ended("ok")
                return _answer(visit, 200, orjson.dumps(entry_of(ident, account.name)))
        raise ClientError("model_not_found", f"No account serves the model '{ident}'")

    async def _list(self, account: Account) -> list[dict[str, Any]]:
        """An account's own list, from memory where it is fresh; [] if it has none."""
        if account.embedded or not any("*" in glob for glob in account.models):
            return []
        kept_at, listed = self._listed.get(account.name, (0.0, []))
        if kept_at and time.monotonic() - kept_at < MODELS_KEPT_S:
            return listed
        try:
            async with asyncio.timeout(MODELS_TIMEOUT_S):
                reply = await self._upstream.open(
                    account,
                    account.protocol,
                    "/models",
                    upwards({}, account, "models", same_protocol=False),
                    b"",
                    method="GET",
                )
                try:
                    data = await reply.body(MAX_BODY_BYTES)
                finally:
                    reply.close()
        except (UpstreamError, TimeoutError):
            return listed
        found = read_list(data) if reply.status == 200 else listed
        self._listed[account.name] = (time.monotonic(), found)
        return found

    # --- token counts -----------------------------------------------------------------

    async def count_tokens(self, visit: Visit) -> web.Response:
        """``POST /v1/messages/count_tokens``; estimated where nobody can count."""
        turn = await self._handlers.turn(visit, "/messages/count_tokens", slot=False)
        choice = self._pool.choose(turn, (), time.monotonic())
        if not choice.fitting:
            raise self._pool.refusal(turn, choice, time.monotonic())
        accounts = self._pool.accounts
        counts = [
            name
            for name in choice.ordered or choice.fitting
            if accounts[name].speaks("messages") == "messages"
        ]
        if not counts:
            visit.record.ended("ok")
            visit.record.estimated = True
            estimate = max(1, estimate_tokens(turn.ask.document))
            return _answer(visit, 200, orjson.dumps({"input_tokens": estimate}))
        account = accounts[counts[0]]
        document = self._pool.document(turn, account.name, turn.ask.document)
        request = outgoing.write(turn, account, document)
        return await self._pass(
            visit,
            account,
            "POST",
            request.path,
            request.body,
            turn.query,
            COUNT_TIMEOUT_S,
        )

    # --- kept responses ---------------------------------------------------------------

    async def response(self, visit: Visit) -> web.Response:
        """``/v1/responses/{id}`` and below: to the account that made the response."""
        identity = self._handlers.identify(visit.request, visit.record)
        ident = _ident(visit)
        user = identity.user.name
        if kept := await self._conversations.kept(user, ident):
            return await self._kept_response(visit, user, ident, kept)
        account = self._pool.maker(user, ident)
        if account is None or account.embedded or account.protocol != "responses":
            raise ClientError("not_found", f"Response with id '{ident}' not found")
        request = visit.request
        data = await self._handlers.body(visit, identity)
        path = request.rel_url.raw_path.removeprefix("/v1")
        return await self._pass(
            visit,
            account,
            request.method,
            path,
            data,
            request.rel_url.raw_query_string,
            SIDE_TIMEOUT_S,
        )

    async def _kept_response(
        self, visit: Visit, user: str, ident: str, kept: Thread
    ) -> web.Response:
        """What the gateway itself keeps, since no account does."""
        request = visit.request
        if request.method == "POST":
            raise ClientError(
                "invalid_request", "Only a background response can be cancelled"
            )
        told = kept.response
        if request.method == "DELETE":
            await self._conversations.forget(user, ident)
            told = {"id": ident, "object": "response", "deleted": True}
        elif request.path.endswith("/input_items"):
            told = _listed(kept.given)
        visit.record.ended("ok")
        return _answer(visit, 200, orjson.dumps(told))

    # --- all of them ------------------------------------------------------------------

    async def _pass(
        self,
        visit: Visit,
        account: Account,
        method: str,
        path: str,
        data: bytes,
        query: str,
        timeout_s: float,
    ) -> web.Response:
        """One account's answer, as it is; its failures as ours."""
        record = visit.record
        record.account = account.name
        headers = upwards(
            visit.request.headers, account, record.request_id, same_protocol=True
        )
        reply: Reply | None = None
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._upstream.open(
                    account,
                    visit.wire.name,
                    path,
                    headers,
                    data,
                    method=method,
                    query=query,
                )
                answer = await reply.body(MAX_BODY_BYTES)
        except TimeoutError:
            raise UpstreamError("upstream_timeout") from None
        except UpstreamError as error:
            raise redacted_verdict(error, "", data).error from None
        finally:
            if reply:
                reply.close()
        ident = log.clean_id(upstream_request_id(reply.headers))
        record.upstream_request_id = ident
        if reply.status >= 300:
            refusal = Refusal(reply.status, reply.headers, answer)
            raise redacted_verdict(refusal, "", data).error
        record.ended("ok")
        passed = downwards(reply.headers, same_protocol=True, renamed=False)
        return _answer(visit, reply.status, answer, passed)


def _ident(visit: Visit) -> str:
    """What stands for ``{id}`` in the path."""
    assert isinstance(visit.request, web.Request)  # it came through the router
    return visit.request.match_info["id"]


def _listed(given: list[Any]) -> dict[str, Any]:
    """The list of what a kept turn was *given*."""
    ids = [item.get("id") for item in given if isinstance(item, dict)] or [None]
    return {
        "object": "list",
        "data": given,
        "has_more": False,
        "first_id": ids[0],
        "last_id": ids[-1],
    }


def _answer(
    visit: Visit, status: int, data: bytes, headers: dict[str, str] | None = None
) -> web.Response:
    visit.record.status = status
    return web.Response(
        status=status,
        body=data,
        headers={**(headers or {}), **id_headers(visit.record)},
        content_type="application/json",
    )
