"""
The connection pool: connections in use, and idle ones for the next request.

Rule 1: connections in use are not limited here: slots are the limit. Idle connections
        are, per route.
Rule 2: the youngest serves first, so that surplus ones reach their age limit.
"""

from __future__ import annotations

import asyncio

from gateway.errors import UpstreamError
from gateway.transport.connection import Connection
from gateway.transport.dialing import Dialer
from gateway.transport.request import Route

KEEP_ALIVE_S = 55.0
"""How long an idle connection is kept: less than the minute of many servers."""

MAX_IDLE_PER_ROUTE = 256
"""How many idle connections are kept; one more is closed."""


class ConnectionPool:
    """
    Connections by route.

    Attributes:
        live: every open connection, idle or not.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        keep_alive_s: float = KEEP_ALIVE_S,
        max_idle_per_route: int = MAX_IDLE_PER_ROUTE,
    ) -> None:
        self.live: set[Connection] = set()
        self._dialer = dialer
        self._keep_alive_s = keep_alive_s
        self._max_idle_per_route = max_idle_per_route
        # route → connection → since when it is idle, the oldest first
        self._idle: dict[Route, dict[Connection, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._all_gone: asyncio.Future[None] | None = None

    @property
    def idle_count(self) -> int:
        return sum(map(len, self._idle.values()))

    def maybe_idle(self, route: Route) -> Connection | None:
        """An idle connection by *route*, or None."""
        idle = self._idle.get(route)
        while idle:
            connection, _ = idle.popitem()
            if connection.is_usable:
                return connection
        return None

    async def connect(self, route: Route, timeout_s: float) -> Connection:
        """
        A new connection by *route*.

        Raises:
            UpstreamError: "upstream_connect".
        """
        if not self._stopped:
            connection = await self._dialer.dial(route, self, timeout_s)
            if connection.is_usable and not self._stopped:
                self.live.add(connection)
                return connection
            connection.abort()
        detail = "stopped" if self._stopped else "closed as soon as it was open"
        raise UpstreamError("upstream_connect", detail=f"{route.origin.host}: {detail}")

    async def stop(self) -> None:
        """Close every connection; returns when all are closed."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self.live):
            connection.stop()
        if self.live:
            self._all_gone = asyncio.get_running_loop().create_future()
            await self._all_gone

    # --- for the connections ----------------------------------------------------------

    def take_back(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.route, {})
        if self._stopped or len(idle) >= self._max_idle_per_route:
            connection.abort()
            return
        idle[connection] = connection.loop.time()
        if self._timer is None:
            self._sweep_in(self._keep_alive_s)

    def discard(self, connection: Connection) -> None:
        self.live.discard(connection)
        self._idle.get(connection.route, {}).pop(connection, None)
        if self._all_gone is not None and not self.live and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _sweep_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Close what was idle too long; one timer for the whole pool."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        oldest = now
        for idle in self._idle.values():
            for connection, since in list(idle.items()):
                if now - since < self._keep_alive_s:
                    oldest = min(oldest, since)
                    break
                del idle[connection]
                connection.abort()
        if self.idle_count:
            self._sweep_in(oldest + self._keep_alive_s - now)
