"""
The admin API without HTTP: the page asks the same operations as every other client.

So it shows and does nothing that the API could not, each refusal has the API's words
and field, and a change is logged as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from aiohttp import web

from gateway.endpoints.admin.errors import AdminError, not_found
from gateway.endpoints.admin.operations import JSON, AdminCall, Operation
from gateway.endpoints.admin.values import read_json, read_query
from gateway.errors import CODES, GatewayError


class _Call(AdminCall):
    """A call whose path was never in a URL."""

    def __init__(
        self, request: web.Request, query: Any, body: Any, parts: Mapping[str, str]
    ) -> None:
        super().__init__(request, query, body)
        self._parts = parts

    def part(self, name: str) -> str:
        return self._parts[name]


class InProcessApi:
    """
    Args:
        operations: of the API.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._rows = {(one.method, one.path): one for one in operations}

    def has(self, row: str) -> bool:
        """Whether there is the operation *row*."""
        method, _, path = row.partition(" ")
        return (method, path) in self._rows

    async def call(
        self,
        request: web.Request,
        row: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        **parts: str,
    ) -> Any:
        """
        What the operation *row* (``GET /accounts/{name}``) answers, as plain JSON
        values.

        Args:
            request: the page's own; it says who asks.
            query: texts, as in a URL; "" is left out.
            parts: the values of the path's ``{name}``.

        Raises:
            AdminError: the operation's refusal.
        """
        method, _, path = row.partition(" ")
        one = self._rows.get((method, path))
        if one is None:
            raise not_found("This gateway cannot do that")
        asked = read_query(one.query, query or {}) if one.query else None
        given = read_json(one.body, orjson.dumps(body or {})) if one.body else None
        try:
            answer = await one.handler(_Call(request, asked, given, parts))
        except GatewayError as error:  # of a part that the API asks
            words = CODES[error.code].sentence
            raise AdminError(error.status, error.code, words) from None
        if isinstance(answer, web.StreamResponse):  # an answer without a body
            return None
        return orjson.loads(orjson.dumps(answer, option=JSON))
