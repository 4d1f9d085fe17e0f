"""The seam over connections of our own: the way to an upstream without a proxy."""

from __future__ import annotations

from collections.abc import Iterable
from ssl import SSLContext

from yarl import URL

from gateway.content_coding import Turns
from gateway.errors import UpstreamError
from gateway.transport.connection import Connection
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.decoded import decoded
from gateway.transport.dialing import Dialer
from gateway.transport.http_response import HttpResponse
from gateway.transport.interface import UpstreamResponse
from gateway.transport.request import request_head, target_of


class HttpTransport:
    """
    A Transport over one pool.

    Args:
        tls: what https upstreams are checked with.
        pool: another pool than the usual one.
        turns: shared with all others who decode.
    """

    def __init__(
        self,
        tls: SSLContext,
        pool: ConnectionPool | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.pool = pool or ConnectionPool(Dialer(tls))
        self._turns = turns or Turns()

    async def open(
        self,
        method: str,
        url: URL,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> UpstreamResponse:
        target = target_of(method, url)
        head = request_head(target, headers, len(body))
        connection = self.pool.maybe_idle(target.origin)
        if connection is not None:
            reply = HttpResponse(connection, method, idle_timeout_s)
            try:
                return await self._answered(connection, reply, head, body)
            except UpstreamError as exc:
                # An upstream closes a kept connection whenever it likes. If it did
                # so before it said anything, nobody has seen the request.
                if reply.touched or exc.code != "upstream_reset":
                    raise
        connection = await self.pool.fresh(target.origin, connect_timeout_s)
        reply = HttpResponse(connection, method, idle_timeout_s)
        return await self._answered(connection, reply, head, body)

    async def _answered(
        self, connection: Connection, reply: HttpResponse, head: bytes, body: bytes
    ) -> UpstreamResponse:
        """Send the request on *connection* and wait for the head of *reply*."""
        try:
            connection.listen(reply, head, body)
            await reply.head()
        except BaseException:
            reply.close()
            raise
        return decoded(reply, self._turns)

    async def stop(self) -> None:
        await self.pool.stop()
