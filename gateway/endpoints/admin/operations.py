"""
The operations of the admin API: one row each, for the router and the description.

A handler takes an ``AdminCall`` and gives a dataclass, a list of them wrapped in one,
or a response of its own. What it changes it says by ``AdminCall.changed``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from gateway.endpoints.admin.errors import AdminError
from gateway.endpoints.admin.values import read_json, read_query
from gateway.telemetry import log

PREFIX = "/api/v1"
WHO = web.RequestKey("who", str)
JSON = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


class AdminCall:
    """
    One request to the admin API.

    Attributes:
        who: ``unix:<uid>``, ``token`` or ``page``.
        query: the query string as the operation's dataclass.
        body: the JSON body as the operation's dataclass.
    """

    def __init__(self, request: web.Request, query: Any, body: Any) -> None:
        self.request = request
        self.who = request[WHO]
        self.query = query
        self.body = body

    def part(self, name: str) -> str:
        """The value of ``{name}`` in the path."""
        return self.request.match_info[name]

    def changed(self, what: str, before: object = None, after: object = None) -> None:
        """
        Log that this call has changed *what*, such as ``user.alice``.

        Args:
            before, after: JSON values without secrets; None for nothing.
        """
        log.get().info(
            "admin.changed", who=self.who, what=what, before=before, after=after
        )


OperationHandler = Callable[[AdminCall], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """
    Attributes:
        path: behind ``/api/v1``, with ``{name}`` for a part that varies.
        answer: the dataclass of the answer; None where there is no JSON.
        query, body: the dataclasses of what it takes.
        errors: statuses that it answers besides those that every operation has.
        media_type: of the answer.
    """

    method: str
    path: str
    summary: str
    handler: OperationHandler
    answer: Any
    status: int = 200
    query: type | None = None
    body: type | None = None
    errors: tuple[int, ...] = ()
    media_type: str = "application/json"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The handler of its route."""
        query: Any = None
        if self.query is not None:
            query = read_query(self.query, request.query)
        elif request.query:
            raise AdminError(
                400, "invalid_request", "This path takes no parameters", field="query"
            )
        body: Any = None
        if self.body is not None:
            body = read_json(self.body, await request.read())
        answer = await self.handler(AdminCall(request, query, body))
        if isinstance(answer, web.StreamResponse):
            return answer
        return json_response(answer, self.status)


def json_response(answer: Any, status: int = 200) -> web.Response:
    """*answer* (dataclasses, dicts, lists, datetimes) as JSON."""
    return web.Response(
        status=status,
        body=orjson.dumps(answer, option=JSON),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
