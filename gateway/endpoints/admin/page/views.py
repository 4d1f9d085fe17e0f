"""
The views: each asks the admin API and hands its answers to a template.

Rule: what the user of a search typed wrong is said beside the form, not on a page of
      its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from gateway.endpoints.admin.errors import AdminError
from gateway.endpoints.admin.page.accounts import accounts_values
from gateway.endpoints.admin.page.api import InProcessApi
from gateway.endpoints.admin.page.gateway import gateway_values
from gateway.endpoints.admin.page.health import SPANS, health_values
from gateway.endpoints.admin.page.now import MAX_FAILURES, first_request, now_values
from gateway.endpoints.admin.page.renderer import HEADERS, View, redirect
from gateway.endpoints.admin.page.requests import (
    ASKED,
    PAGE_ROWS,
    request_values,
    search_values,
)
from gateway.endpoints.admin.page.usage import (
    DEFAULT_SINCE,
    as_csv,
    chosen_keys,
    usage_values,
)
from gateway.endpoints.admin.page.users import user_values, users_values

FAILURES_SINCE_S = 86_400
FAILURES_KEPT_S = 5.0
OPEN = ("running", "waiting")
MAX_OPEN = 1000  # open requests that are looked at

Values = dict[str, Any]


class Views:
    """
    Args:
        listen: gives the addresses of the public listeners.
    """

    def __init__(self, api: InProcessApi, listen: Callable[[], Sequence[str]]) -> None:
        self._api = api
        self._listen = listen
        self._failures: list[Values] = []
        self._failures_at = -FAILURES_KEPT_S

    async def now(self, request: web.Request) -> View:
        """``GET /``."""
        status, open_, accounts, failures = await asyncio.gather(
            self._api.call(request, "GET /status"),
            self._open(request),
            self._accounts(request),
            self._last_failures(request),
        )
        since = time.time() - FAILURES_SINCE_S
        values = now_values(status, open_, accounts, failures, since)
        values["first_request"] = self.first_request("$GATEWAY_API_KEY", accounts)
        return View("now.html", "Now", "/", values, on="request account user")

    async def requests(self, request: web.Request) -> web.StreamResponse | View:
        """``GET /requests``: the newest, or what a search finds."""
        asked, error = dict(request.query), ""
        answer: Values = {"data": []}
        if wanted := asked.get("id", "").strip():
            if found := await self._search(request, wanted):
                return found
        else:
            query = {name: asked[name] for name in (*ASKED, "next") if name in asked}
            query["limit"] = str(PAGE_ROWS)
            try:
                answer = await self._api.call(request, "GET /requests", query)
            except AdminError as refusal:
                error = str(refusal)
        values = search_values(asked, answer["data"], answer.get("next"))
        values |= {**await self._names(request), "error": error}
        live = not (wanted or error or asked.get("next"))
        on = "request" if live else ""
        status = 400 if error else 200
        return View("requests.html", "Requests", "/requests", values, status, on)

    async def _search(
        self, request: web.Request, wanted: str
    ) -> web.StreamResponse | None:
        """The way to the request that *wanted* names; None for none."""
        try:
            detail = await self._api.call(request, "GET /requests/{id}", id=wanted)
        except AdminError as error:
            if error.status != 404:
                raise
            return None
        return redirect(f"/requests/{detail['request_id']}")

    async def request(self, request: web.Request) -> View:
        """``GET /requests/{id}``."""
        wanted = request.match_info["id"]
        detail = await self._api.call(request, "GET /requests/{id}", id=wanted)
        ident = detail["request_id"]
        on = "request" if detail["state"] != "ended" else ""
        values, title = request_values(detail), f"Request {ident[:8]}"
        return View(
            "request.html", title, "/requests", values, on=on, only=ident if on else ""
        )

    async def usage(self, request: web.Request) -> View:
        """``GET /usage``."""
        by = chosen_keys(request.query.getall("by", []))
        asked = {name: request.query.get(name, "") for name in ("user", "since")}
        asked["plot"] = request.query.get("plot", "")
        if "since" not in request.query:
            asked["since"] = DEFAULT_SINCE
        error, rows = "", []
        try:
            rows = await self._sums(request, by, asked)
        except AdminError as refusal:
            error = str(refusal)
        values = usage_values(asked, by, rows)
        values |= {"error": error, **await self._names(request)}
        status = 400 if error else 200
        return View("usage.html", "Usage", "/usage", values, status)

    async def usage_csv(self, request: web.Request) -> web.Response:
        """``GET /usage.csv``: every row and column of the same sums."""
        by = chosen_keys(request.query.getall("by", []))
        asked = {name: request.query.get(name, "") for name in ("user", "since")}
        rows = await self._sums(request, by, asked)
        name = {"Content-Disposition": 'attachment; filename="usage.csv"'}
        return web.Response(
            text=as_csv(by, rows), content_type="text/csv", headers={**HEADERS, **name}
        )

    async def health(self, request: web.Request) -> View:
        """``GET /health``."""
        spans = [span for span, _ in SPANS]
        since = request.query.get("since", "24h")
        since = since if since in spans else "24h"
        health, accounts = await asyncio.gather(
            self._api.call(request, "GET /health", {"since": since}),
            self._accounts(request),
        )
        values = health_values(since, health, accounts)
        return View("health.html", "Health", "/health", values, every=60)

    async def accounts(self, request: web.Request, test: Values | None = None) -> View:
        """``GET /accounts``."""
        values = accounts_values(await self._accounts(request), test)
        values["can_test"] = self._api.has("POST /accounts/{name}/test")
        return View("accounts.html", "Accounts", "/accounts", values, on="account")

    async def gateway(
        self, request: web.Request, outcome: Values | None = None
    ) -> View:
        """``GET /gateway``."""
        status, config = await asyncio.gather(
            self._api.call(request, "GET /status"),
            self._api.call(request, "GET /config"),
        )
        values = gateway_values(status, config, outcome)
        every = 0 if outcome else 10  # what a reload has said stays
        return View("gateway.html", "Gateway", "/gateway", values, every=every)

    async def users(
        self, request: web.Request, form: Values | None = None, status: int = 200
    ) -> View:
        """``GET /users``."""
        answer, spent = await asyncio.gather(
            self._api.call(request, "GET /users"), self._spent(request)
        )
        values = users_values(answer["data"], spent, form)
        return View("users.html", "Users", "/users", values, status, "user", every=10)

    async def user(
        self, request: web.Request, status: int = 200, name: str = "", **forms: Any
    ) -> View:
        """``GET /users/{name}``; *forms* as ``user_values`` takes them."""
        name = name or request.match_info["name"]
        user, spent = await asyncio.gather(
            self._api.call(request, "GET /users/{name}", name=name),
            self._spent(request),
        )
        if new_key := forms.get("new_key"):
            accounts = await self._accounts(request)
            forms["first_request"] = self.first_request(new_key, accounts)
        values = user_values(user, spent.get(name, 0.0), **forms)
        # a page that shows a key is not asked for again
        every, on = (0, "") if new_key else (10, "user")
        return View("user.html", name, "/users", values, status, on, every=every)

    def first_request(self, key: str, accounts: Sequence[Values]) -> str:
        """A command to paste; "" where only systemd knows the address."""
        tcp = (one for one in self._listen() if not one.startswith("unix:"))
        address = next(tcp, "")
        return address and first_request(address, key, accounts)

    # --- what several views ask ---------------------------------------------------

    async def _list(
        self, request: web.Request, query: Mapping[str, str]
    ) -> list[Values]:
        answer = await self._api.call(request, "GET /requests", query)
        return list(answer["data"])

    async def _last_failures(self, request: web.Request) -> list[Values]:
        """
        The last that failed or were refused. Where they are few the ledger reads a
        whole day for them, so it is asked seldom, for all pages together.
        """
        now = time.monotonic()
        if now - self._failures_at >= FAILURES_KEPT_S:
            self._failures_at = now
            since = _iso(time.time() - FAILURES_SINCE_S)
            ask = {"since": since, "limit": str(MAX_FAILURES)}
            failed, refused = await asyncio.gather(
                self._list(request, {**ask, "outcome": "failed"}),
                self._list(request, {**ask, "outcome": "refused"}),
            )
            self._failures = failed + refused
        return self._failures

    async def _open(self, request: web.Request) -> list[Values]:
        found: list[Values] = []
        for state in OPEN:
            query = {"state": state, "limit": str(MAX_OPEN)}
            found += await self._list(request, query)
        return found

    async def _accounts(self, request: web.Request) -> list[Values]:
        answer = await self._api.call(request, "GET /accounts")
        return list(answer["data"])

    async def _sums(
        self, request: web.Request, by: Sequence[str], asked: Mapping[str, str]
    ) -> list[Values]:
        query = {"by": ",".join(by), "user": asked["user"], "since": asked["since"]}
        answer = await self._api.call(request, "GET /usage", query)
        return list(answer["data"])

    async def _spent(self, request: web.Request) -> dict[str, float]:
        """What each user has cost today, in US dollars."""
        query = {"by": "user", "since": time.strftime("%Y-%m-%d", time.gmtime())}
        answer = await self._api.call(request, "GET /usage", query)
        return {row["user"]: row["cost_usd"] for row in answer["data"]}

    async def _names(self, request: web.Request) -> Values:
        """The names that a search may ask for."""
        users, accounts = await asyncio.gather(
            self._api.call(request, "GET /users"), self._accounts(request)
        )
        return {
            "user_names": [one["name"] for one in users["data"]],
            "account_names": [one["name"] for one in accounts],
        }


def _iso(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
