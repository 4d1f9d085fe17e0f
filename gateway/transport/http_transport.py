"""HTTP/1.1 towards upstreams, over connections that serve one request after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from yarl import URL

from gateway.content_coding import DecodeScheduler
from gateway.errors import UpstreamError
from gateway.transport.connection import Connection
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.decoded import decoded
from gateway.transport.http_response import HttpResponse
from gateway.transport.interface import UpstreamResponse
from gateway.transport.request import Proxy, request_head, target_of


class HttpTransport:
    """
    A Transport over one pool.

    Args:
        scheduler: shared with all others who decode.
        proxy_of: the proxy for a URL, None if it is reached directly; may raise an
            ``UpstreamError``.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        scheduler: DecodeScheduler | None = None,
        proxy_of: Callable[[URL], Proxy | None] | None = None,
    ) -> None:
        self.pool = pool
        self._scheduler = scheduler or DecodeScheduler()
        self._proxy_of = proxy_of

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
        proxy = self._proxy_of(url) if self._proxy_of is not None else None
        target = target_of(method, url, proxy)
        head = request_head(target, headers, len(body))
        connection = self.pool.maybe_idle(target.route)
        if connection is not None:
            reply = HttpResponse(connection, method, idle_timeout_s)
            try:
                return await self._answered(connection, reply, head, body)
            except UpstreamError as exc:
                # An upstream may close an idle connection at any moment. If no byte of
                # an answer has arrived, the request was not processed.
                if reply.has_received or exc.code != "upstream_reset":
                    raise
        connection = await self.pool.connect(target.route, connect_timeout_s)
        reply = HttpResponse(connection, method, idle_timeout_s)
        return await self._answered(connection, reply, head, body)

    async def _answered(
        self, connection: Connection, reply: HttpResponse, head: bytes, body: bytes
    ) -> UpstreamResponse:
        """Send the request on *connection* and wait for the head of *reply*."""
        try:
            connection.send_request(reply, head, body)
            await reply.head()
        except BaseException:
            reply.close()
            raise
        return decoded(reply, self._scheduler)

    async def stop(self) -> None:
        await self.pool.stop()
