"""How the gateway is: alive, ready, in figures."""

from __future__ import annotations

import hmac
from typing import Any

import orjson
from aiohttp import web

from gateway.accounts.accounts import Accounts
from gateway.endpoints.model_requests import Handlers
from gateway.ledger.ledger import Ledger
from gateway.telemetry.metrics import Metrics


class StatusHandlers:
    """
    Args:
        token: what /metrics asks for; "" = nothing.
    """

    def __init__(
        self,
        handlers: Handlers,
        pool: Accounts,
        ledger: Ledger,
        metrics: Metrics,
        token: str,
    ) -> None:
        self._handlers = handlers
        self._pool = pool
        self._ledger = ledger
        self._metrics = metrics
        self._token = token.encode()

    def replace(self, token: str) -> None:
        """Take up a changed token."""
        self._token = token.encode()

    async def hello(self, request: web.Request) -> web.Response:
        """``HEAD /``, ``HEAD /api/hello``: clients ask whether anybody is there."""
        return web.Response()

    async def health(self, request: web.Request) -> web.Response:
        """``GET /healthz``: the process lives."""
        return _json(200, {"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """``GET /readyz``: it takes work; else 503 and why not."""
        accounts = self._pool.status.states()
        reasons = []
        if self._handlers.draining:
            reasons.append("draining")
        if not self._pool.status.usable():
            reasons.append("no usable account")
        if not self._ledger.healthy:
            reasons.append("ledger unavailable")
        told: dict[str, Any] = {
            "status": "unavailable" if reasons else "ready",
            "reasons": reasons,
            "accounts": accounts,
        }
        return _json(503 if reasons else 200, told)

    async def metrics(self, request: web.Request) -> web.Response:
        """``GET /metrics``: Prometheus text."""
        if self._token:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            bearer = given.strip().encode("utf-8", "surrogateescape")
            fits = hmac.compare_digest(bearer, self._token)
            if scheme.lower() != "bearer" or not fits:
                return _json(401, {"error": "the metrics token is missing or wrong"})
        text, content_type = self._metrics.render()
        return web.Response(body=text, headers={"Content-Type": content_type})


def _json(status: int, told: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(told), content_type="application/json"
    )
