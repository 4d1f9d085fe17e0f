"""A refused upgrade as the answer to the request that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.transport.decoded import too_large
from gateway.transport.interface import STOP, Ended, Feed, LaneSide
from gateway.transport.websocket.upgrade import UpgradeAnswer


class RefusedUpgrade:
    """An ``UpstreamResponse`` that has come whole."""

    def __init__(self, answer: UpgradeAnswer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.idle_timeout_s = 0.0
        self.facts: Mapping[str, Any] = {"websocket": "refused"}
        self._body = answer.body

    @property
    def has_ended(self) -> bool:
        """See ``UpstreamResponse.has_ended``."""
        return True

    async def read(self) -> bytes:
        """See ``UpstreamResponse.read``."""
        body, self._body = self._body, b""
        return body

    async def body(self, limit_bytes: int) -> bytes:
        """See ``UpstreamResponse.body``."""
        if len(self._body) > limit_bytes:
            raise too_large(limit_bytes)
        return await self.read()

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        """See ``UpstreamResponse.pump``."""
        if body := await self.read():
            outcome = feed(body)
            if outcome is not None and outcome is not STOP:
                await outcome

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        """See ``UpstreamResponse.close``."""
        self._body = b""
        if ended is not None:
            ended()
