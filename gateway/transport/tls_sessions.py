"""
TLS sessions: by one, a further connection to a server goes without its certificates.

To read and check these is more than half of what a new connection costs.

Rule 1: a server has one at most, for ``MAX_AGE_S``; then its certificate is checked
        again.
Rule 2: one is taken from a connection that ends, and seldom: to copy it out of OpenSSL
        costs a third of a handshake.
Rule 3: a session is only offered. A server may send its certificates all the same, and
        a handshake that fails with one is the last with it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from time import monotonic

MAX_AGE_S = 3600.0
MIN_PAUSE_S = 60.0  # between two looks for the session of one server
MAX_SERVERS = 256


class ServerSession:
    """The session with one server."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._session: ssl.SSLSession | None = None
        self._taken_at = self._looked_at = float("-inf")

    def offer(self) -> ssl.SSLSession | None:
        """The session for a new connection; None if there is none."""
        if self._clock() - self._taken_at > MAX_AGE_S:
            self._session = None
        return self._session

    def connection_ended(
        self, tls: ssl.SSLObject, offered: ssl.SSLSession | None, secured: bool
    ) -> None:
        """Learn from a connection, whose handshake was done if *secured*."""
        refused = offered is not None and not (secured and tls.session_reused)
        if refused and offered is self._session:
            self._session = None
        now = self._clock()
        if not secured or self.offer() or now - self._looked_at < MIN_PAUSE_S:
            return
        self._looked_at, session = now, tls.session
        if session is not None and session.has_ticket:
            self._session, self._taken_at = session, now


class TlsSessions:
    """The sessions that the connections of one ``ssl.SSLContext`` share."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._servers: dict[tuple[str, int], ServerSession] = {}

    def of(self, host: str, port: int) -> ServerSession:
        """That with the server at *host* and *port*."""
        found = self._servers.get((host, port))
        if found is None:
            if len(self._servers) >= MAX_SERVERS:
                del self._servers[next(iter(self._servers))]
            found = self._servers[host, port] = ServerSession(self._clock)
        return found
