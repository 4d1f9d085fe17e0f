"""
The requests that are being served, and how they end when the daemon stops.

    drain       nothing new is taken; requests that wait for a slot, or for their own
                body, are refused; streams go on
    end_all     what is still open gets its protocol's ending
    abort_all   clients that do not take their ending are cut off
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import GatewayError, Overloaded


class OpenRequests:
    """
    A collection of ``RequestScope``.

    Attributes:
        draining: nothing new is taken.
    """

    def __init__(self, live: LiveConfig) -> None:
        self.draining = False
        self._draining_since = 0.0  # monotonic
        self._live = live
        self._scopes: set[RequestScope] = set()
        self._all_served = asyncio.Event()
        self._when_drained: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._scopes)

    def __iter__(self) -> Iterator[RequestScope]:
        return iter(list(self._scopes))

    def add(self, scope: RequestScope) -> None:
        """*scope* is being served from now on."""
        self._scopes.add(scope)

    def discard(self, scope: RequestScope) -> None:
        """*scope* has been served."""
        self._scopes.discard(scope)
        if self.draining and not self._scopes:
            self._all_served.set()
            self._when_drained()

    async def served(self) -> None:
        """Return when a drain has served all of them."""
        while self._scopes:
            self._all_served.clear()
            await self._all_served.wait()

    def drain(self, when_drained: Callable[[], None] = lambda: None) -> None:
        """
        Take nothing new, and refuse what waits.

        Args:
            when_drained: called when the last one has been served.
        """
        self.draining = True
        self._when_drained = when_drained
        self._draining_since = time.monotonic()
        for scope in self:
            if scope.is_waiting:
                scope.stop(self._drain_error())

    def check_draining(self) -> None:
        """
        Raises:
            Overloaded: "draining", when nothing new is taken.
        """
        if self.draining:
            raise self._drain_error()

    def _drain_error(self) -> Overloaded:
        """The refusal while streams finish; the next daemon comes after this one."""
        left_s = self._live.config.server.drain_timeout_s - (
            time.monotonic() - self._draining_since
        )
        return Overloaded("draining", retry_after_s=left_s)

    def end_all(self) -> None:
        """End what has no ending yet."""
        for scope in self:
            if not scope.has_ending:
                scope.stop(GatewayError("gateway_shutdown"))

    def end(self, request_id: str, error: GatewayError) -> bool:
        """End the request of that id with *error*; False if it has its ending."""
        for scope in self:
            if scope.record.request_id == request_id and not scope.has_ending:
                scope.stop(error)
                return True
        return False

    def abort_all(self) -> None:
        """Cut off the clients that do not take their ending."""
        for scope in self:
            scope.abort()
