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

from gateway.endpoints.admin.operations import JSON, AdminCall, Operation
from gateway.endpoints.admin.values import read_json, read_query


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
        one = self._rows[method, path]
        asked = read_query(one.query, query or {}) if one.query else None
        given = read_json(one.body, orjson.dumps(body or {})) if one.body else None
        answer = await one.handler(_Call(request, asked, given, parts))
        return orjson.loads(orjson.dumps(answer, option=JSON))
