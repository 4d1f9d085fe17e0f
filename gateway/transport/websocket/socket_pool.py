"""
The open websockets: those that serve an answer, and idle ones for the next request.

Rule 1: a socket serves one user, and requests with the same headers (``SocketKey``).
Rule 2: an idle one that knows the conversation of a request serves first; then the one
        that was idle longest, since its conversation is the least likely to go on.
Rule 3: an account has MAX_PER_ACCOUNT at most. Where there is no room, an idle one of
        the user who has most of them is closed.
Rule 4: an idle one is pinged, and closed without a pong: a socket that a network has
        forgotten would swallow a request. One is closed, too, when it was idle for
        IDLE_S or open for MAX_AGE_S: upstreams close theirs after an hour.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from gateway.protocols.responses.socket_create import Chain, SocketCreate
from gateway.transport.connection import Connection
from gateway.transport.websocket.web_socket import WebSocket

MAX_PER_ACCOUNT = 48
"""Sockets of one account, idle or not: a vendor was seen to refuse 50 and more."""

IDLE_S = 900.0
MAX_AGE_S = 3300.0
PING_EVERY_S = 25.0
"""Networks forget a silent connection after a minute, the quickest of them."""


class SocketKey(NamedTuple):
    """
    What requests must have in common to share a socket.

    Attributes:
        digest: of the address and of the headers of the upgrade.
    """

    account: str
    user: str
    digest: bytes


@dataclass(slots=True, eq=False)
class PooledSocket:
    """
    Attributes:
        chain: the conversation that it knows; None: none.
        is_idle: no answer is under way.
        has_served: it is not new: the upstream may have closed it unnoticed.
        is_retired: its account has changed; it serves no other request.
    """

    key: SocketKey
    socket: WebSocket
    chain: Chain | None = None
    is_idle: bool = False
    has_served: bool = False
    is_retired: bool = False


class SocketPool:
    """
    Attributes:
        live: every open socket, by its connection.
    """

    def __init__(
        self,
        *,
        max_per_account: int = MAX_PER_ACCOUNT,
        idle_s: float = IDLE_S,
        max_age_s: float = MAX_AGE_S,
        ping_every_s: float = PING_EVERY_S,
    ) -> None:
        self.live: dict[Connection, PooledSocket] = {}
        self._max_per_account = max_per_account
        self._idle_s = idle_s
        self._max_age_s = max_age_s
        self._ping_every_s = ping_every_s
        self._opening: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._all_gone: asyncio.Future[None] | None = None

    @property
    def idle(self) -> list[PooledSocket]:
        """The idle ones, the longest idle first."""
        idle = [one for one in self.live.values() if one.is_idle]
        return sorted(idle, key=lambda one: one.socket.idle_since)

    def maybe_idle(self, key: SocketKey, create: SocketCreate) -> PooledSocket | None:
        """An idle socket for *create*, or None; it is in use from now on."""
        fitting = [one for one in self.idle if one.key == key and self._serves(one)]
        knowing = [one for one in fitting if one.chain and _knows(one.chain, create)]
        for one in [*knowing, *fitting][:1]:
            one.is_idle = False
            return one
        return None

    def reserve(self, account: str) -> bool:
        """Make room for one more socket of *account*; whether there is any."""
        if self._stopped:
            return False
        while self._count(account) >= self._max_per_account:
            idle = [one for one in self.idle if one.key.account == account]
            if not idle:
                return False
            counts = Counter(one.key.user for one in idle)
            user = max(counts, key=counts.__getitem__)
            next(one for one in idle if one.key.user == user).socket.close()
        self._opening[account] += 1
        return True

    def opened(self, key: SocketKey, socket: WebSocket | None) -> PooledSocket | None:
        """A ``reserve`` has led to *socket*, which is in use; or to None."""
        self._opening[key.account] -= 1
        if socket is None:
            return None
        if self._stopped or not socket.is_usable:
            socket.abort()
            return None
        pooled = PooledSocket(key, socket)
        self.live[socket.connection] = pooled
        if self._timer is None:
            self._sweep_later()
        return pooled

    def put_back(self, pooled: PooledSocket, chain: Chain | None) -> None:
        """The answer on *pooled* is over, and *chain* is what it knows now."""
        pooled.chain, pooled.has_served = chain, True
        if pooled.is_retired or self._stopped or not pooled.socket.is_usable:
            pooled.socket.close()
            return
        pooled.is_idle = True
        pooled.socket.release()

    def retire(self, account: str) -> None:
        """Close the idle sockets of *account*, and the others after their answers."""
        for one in list(self.live.values()):
            if one.key.account == account:
                one.is_retired = True
                if one.is_idle:
                    one.socket.close()

    def accounts(self) -> set[str]:
        """The accounts with sockets."""
        return {one.key.account for one in self.live.values()}

    async def stop(self) -> None:
        """Close every socket; returns when all are closed."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection, one in list(self.live.items()):
            if one.is_idle:
                one.socket.close()
            else:
                connection.stop()
        if self.live:
            self._all_gone = asyncio.get_running_loop().create_future()
            await self._all_gone

    # --- for the connections ----------------------------------------------------------

    def take_back(self, connection: Connection) -> None:
        """See ``ConnectionOwner``; a websocket is never another's."""
        connection.abort()

    def discard(self, connection: Connection) -> None:
        """See ``ConnectionOwner``."""
        self.live.pop(connection, None)
        if self._all_gone is not None and not self.live and not self._all_gone.done():
            self._all_gone.set_result(None)

    # --- inside -----------------------------------------------------------------------

    def _count(self, account: str) -> int:
        open_ = sum(
            one.key.account == account and one.socket.is_usable
            for one in self.live.values()
        )
        return open_ + self._opening[account]

    def _serves(self, pooled: PooledSocket) -> bool:
        now = asyncio.get_running_loop().time()
        young = now - pooled.socket.opened_at < self._max_age_s
        return young and pooled.socket.is_usable

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._ping_every_s, self._sweep)

    def _sweep(self) -> None:
        """Rule 4; one timer for all sockets."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for one in list(self.live.values()):
            socket = one.socket
            if not socket.is_usable:
                continue
            if one.is_idle and socket.awaits_pong:
                socket.abort()
            elif one.is_idle and (
                now - socket.idle_since >= self._idle_s or not self._serves(one)
            ):
                socket.close()
            else:
                socket.ping()
        if self.live:
            self._sweep_later()


def _knows(chain: Chain, create: SocketCreate) -> bool:
    """Whether a socket with *chain* knows the conversation of *create*."""
    if create.previous:
        return create.previous == chain.response_id
    return create.follows(chain)
