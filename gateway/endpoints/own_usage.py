"""
``GET /v1/usage``: what a user may do, does, and has used, asked with its own key.

Rule 1: an answer is about the user of the key alone.
Rule 2: it takes no slot. The ledger is read for one user at a time, and what was read
        is good for some seconds, so that asking often costs other users nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from gateway.accounting.budget_guard import BudgetGuard
from gateway.admission.interface import AdmissionView, HolderInfo
from gateway.endpoints.auth import Identity, refuse_keys_in
from gateway.endpoints.auxiliary_call import json_answer
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.request_reader import RequestReader
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import GatewayError
from gateway.ledger.database import reason
from gateway.ledger.ledger import Ledger
from gateway.ledger.own_usage import usage_of

DAYS = 31  # today and those before it
KEPT_S = 5.0
MAX_KEPT = 256  # users whose sums are kept
MAX_REQUESTS = 100  # listed; the numbers count all

Sums = Sequence[dict[str, Any]]


class OwnUsage:
    """The handler, and the sums that it remembers."""

    def __init__(
        self,
        live: LiveConfig,
        reader: RequestReader,
        admission: AdmissionView,
        budgets: BudgetGuard,
        ledger: Ledger,
    ) -> None:
        self._live = live
        self._reader = reader
        self._admission = admission
        self._budgets = budgets
        self._ledger = ledger
        self._reading = asyncio.Lock()
        self._kept: OrderedDict[str, tuple[float, Sums]] = OrderedDict()

    async def usage(self, scope: RequestScope) -> web.Response:
        """``GET /v1/usage``."""
        identity = self._reader.identity(scope)
        refuse_keys_in(scope.request.query)
        user = identity.user.name
        since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        since -= timedelta(days=DAYS - 1)
        sums = await self._sums(user, since)
        holders = [one for one in await self._admission.holders() if one.user == user]
        waiting = sum(one.state.startswith("queued") for one in holders)
        document = {
            "object": "usage",
            "user": user,
            "key": self._key(identity),
            "limits": dataclasses.asdict(identity.limits),
            "running": len(holders) - waiting,
            "waiting": waiting,
            "requests": [_request(one) for one in holders[:MAX_REQUESTS]],
            "budget": self._budget(identity),
            "since": f"{since:%Y-%m-%d}",
            "usage": sums,
        }
        scope.record.set_outcome("ok")
        return json_answer(scope, 200, orjson.dumps(document, option=orjson.OPT_UTC_Z))

    def _key(self, identity: Identity) -> dict[str, Any]:
        expires = identity.expires_at
        until = None if expires is None else datetime.fromtimestamp(expires, UTC)
        return {"prefix": identity.key, "expires_at": until}

    def _budget(self, identity: Identity) -> dict[str, Any]:
        """Each budget of the user, by its name in the config."""
        name, budget = identity.user.name, identity.user.budget
        found: dict[str, Any] = {
            one.budget: {
                "limit": one.limit,
                "used": round(one.used, 9),
                "used_percent": round(one.used_percent, 1),
                "resets_at": datetime.fromtimestamp(one.resets_at, UTC),
            }
            for one in self._budgets.statuses(name)
        }
        if limit := budget.requests_per_minute:
            found["requests_per_minute"] = {
                "limit": limit,
                "used": self._budgets.used_of_minute(name),
            }
        return found

    async def _sums(self, user: str, since: datetime) -> Sums:
        async with self._reading:
            now, kept = time.monotonic(), self._kept.get(user)
            if kept and kept[0] > now:
                return kept[1]
            try:
                sums = await self._ledger.read(
                    lambda connection: usage_of(connection, user, since)
                )
            except (SQLAlchemyError, OSError) as error:
                raise GatewayError("ledger_unavailable", detail=reason(error)) from None
            self._kept[user] = time.monotonic() + KEPT_S, sums
            self._kept.move_to_end(user)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return sums


def _request(holder: HolderInfo) -> dict[str, Any]:
    return {
        "request_id": holder.request_id,
        "state": "waiting" if holder.state.startswith("queued") else holder.state,
        "age_s": round(holder.age_s, 3),
    }
