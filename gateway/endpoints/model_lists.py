"""
``GET /v1/models``: the accounts' own lists of models, asked for once and remembered.

Rule 1: one question per account is in flight, however many clients wait for it; a
        client that leaves does not cancel it.
Rule 2: a list that is too old is used while a new one is asked for, and while none can
        be had. A failure is remembered too, so a dead account holds up one client.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from gateway.accounts.accounts import Accounts
from gateway.accounts.model_index import serves
from gateway.config.schema import Account
from gateway.endpoints.auxiliary_call import json_answer, path_id
from gateway.endpoints.model_catalog import catalogue, entry_of, read_list
from gateway.endpoints.request_reader import RequestReader
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import ClientError, GatewayError
from gateway.relay.headers import upwards
from gateway.relay.upstream import HttpRequest, Upstream

MODELS_TIMEOUT_S = 5.0
MODELS_KEPT_S = 300.0  # how long an account's own list is believed
MODELS_FAILED_S = 30.0  # how long an account that gave none is not asked
MAX_LIST_BYTES = 8 * 1024 * 1024
NO_LIST = frozenset({404, 405, 501})  # the server has none, and will have none soon


@dataclass(slots=True)
class _List:
    """What *account* said last; ``fresh_until`` in the loop's time."""

    account: Account
    entries: list[dict[str, Any]] = field(default_factory=list)
    fresh_until: float = 0.0
    asking: asyncio.Task[None] | None = None


class ModelLists:
    """The handlers, and the lists that they remember."""

    def __init__(
        self, reader: RequestReader, accounts: Accounts, upstream: Upstream
    ) -> None:
        self._reader = reader
        self._accounts = accounts
        self._upstream = upstream
        self._lists: dict[str, _List] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def models(self, scope: RequestScope) -> web.Response:
        """``GET /v1/models``: what all accounts together serve."""
        self._reader.identity(scope)
        accounts = list(self._accounts.by_name.values())
        lists = self._known(accounts)
        waited = [one.asking for one in lists if one.asking and not one.entries]
        if waited:
            await asyncio.wait(waited)  # cancels nothing
        document = catalogue([(one.account, one.entries) for one in lists])
        scope.record.set_outcome("ok")
        return json_answer(scope, 200, orjson.dumps(document))

    async def model(self, scope: RequestScope) -> web.Response:
        """``GET /v1/models/{id}``."""
        self._reader.identity(scope)
        ident = path_id(scope)
        for account in self._accounts.by_name.values():
            if serves(account, ident):
                scope.record.set_outcome("ok")
                document = orjson.dumps(entry_of(ident, account.name))
                return json_answer(scope, 200, document)
        raise ClientError("model_not_found", f"No account serves the model '{ident}'")

    async def stop(self) -> None:
        """Cancel every question to an account."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _known(self, accounts: list[Account]) -> list[_List]:
        """The list of each account; what is too old is being asked for."""
        known: dict[str, _List] = {}
        for account in accounts:
            one = self._lists.get(account.name)
            if one is None or one.account != account:  # a reload has changed it
                one = _List(account)
            known[account.name] = one
            self._refresh(one)
        self._lists = known
        return list(known.values())

    def _refresh(self, one: _List) -> None:
        loop, account = asyncio.get_running_loop(), one.account
        if account.embedded or not any("*" in glob for glob in account.models):
            return
        if one.asking or loop.time() < one.fresh_until:
            return
        if not self._accounts.status.is_available(account):
            return
        one.asking = loop.create_task(
            self._refresh_now(one),
            name="model-list",
            context=Context(),  # it is no part of the request that asked first
        )
        self._tasks.add(one.asking)
        one.asking.add_done_callback(self._tasks.discard)

    async def _refresh_now(self, one: _List) -> None:
        loop = asyncio.get_running_loop()
        try:
            status, data = await self._fetch(one.account)
        except (GatewayError, TimeoutError):
            status, data = 0, b""
        finally:
            one.asking = None
        kept_s = MODELS_FAILED_S
        if status == 200:
            one.entries, kept_s = read_list(data), MODELS_KEPT_S
        elif status in NO_LIST:
            kept_s = MODELS_KEPT_S
        one.fresh_until = loop.time() + kept_s

    async def _fetch(self, account: Account) -> tuple[int, bytes]:
        headers = upwards({}, account, "models", same_protocol=False)
        request = HttpRequest(account.protocol, "/models", headers, b"", method="GET")
        async with asyncio.timeout(MODELS_TIMEOUT_S):
            reply = await self._upstream.open(account, request)
            try:
                return reply.status, await reply.body(MAX_LIST_BYTES)
            finally:
                reply.close()
