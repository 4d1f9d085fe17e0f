"""How the gateway is: alive, ready, in figures."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from gateway.accounts.accounts import Accounts
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.open_requests import OpenRequests
from gateway.ledger.ledger import Ledger
from gateway.telemetry.merged_metrics import Samples
from gateway.telemetry.metrics import Metrics


class StatusHandlers:
    """
    The handlers; those of /healthz and / ask for no key.

    Attributes:
        other_counters: what the other processes of this host have counted.
    """

    def __init__(
        self,
        live: LiveConfig,
        open_requests: OpenRequests,
        accounts: Accounts,
        ledger: Ledger,
        metrics: Metrics,
        engine_state: Callable[[], str] = lambda: "",
    ) -> None:
        self._live = live
        self._open = open_requests
        self._accounts = accounts
        self._ledger = ledger
        self._metrics = metrics
        self.other_counters: Callable[[], Awaitable[Samples]] | None = None
        self._engine_state = engine_state

    async def hello(self, request: web.Request) -> web.Response:
        """``HEAD /``, ``HEAD /api/hello``: clients ask whether anybody is there."""
        return web.Response()

    async def health(self, request: web.Request) -> web.Response:
        """``GET /healthz``: the process lives."""
        return _json(200, {"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """``GET /readyz``: it takes work; else 503 and why not."""
        accounts = self._accounts.status.states()
        reasons = []
        if self._open.draining:
            reasons.append("draining")
        if not self._accounts.status.usable():
            reasons.append("no usable account")
        if not self._ledger.healthy:
            reasons.append("ledger unavailable")
        engine = self._engine_state()
        if engine == "refusing":
            reasons.append("engine unavailable")
        state: dict[str, Any] = {
            "status": "unavailable" if reasons else "ready",
            "reasons": reasons,
            "accounts": accounts,
        }
        if engine:
            state["engine"] = engine
        return _json(503 if reasons else 200, state)

    async def metrics(self, request: web.Request) -> web.Response:
        """``GET /metrics``: Prometheus text."""
        if token := self._live.config.server.metrics_token.encode():
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            bearer = given.strip().encode("utf-8", "surrogateescape")
            fits = hmac.compare_digest(bearer, token)
            if scheme.lower() != "bearer" or not fits:
                return _json(401, {"error": "the metrics token is missing or wrong"})
        others = await self.other_counters() if self.other_counters else None
        text, content_type = self._metrics.render(others)
        return web.Response(body=text, headers={"Content-Type": content_type})


def _json(status: int, document: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(document), content_type="application/json"
    )
