"""
The HTTP server: aiohttp's, over connections of our own.

A path is brought into its canonical form before a handler or the router sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_runner import AppRunner

from gateway.client.connection import ClientConnection, Refuse
from gateway.endpoints.paths import ODD_TARGET, canonical_url

IDLE_TIMEOUT_S = 300.0  # of a kept connection; longer than clients and proxies keep it
LOOKS = 20  # for idle connections, in that time
LINGER_S = 10.0  # reading behind an answer to a body that was not read to its end


class HttpServer(web.Server):
    """
    Args:
        made: aiohttp's own for the same application.
        refuse: answers heads that cannot be served.

    Attributes:
        connected: connections that are open.
        on_counted: called when ``connected`` has changed.
    """

    def __init__(self, made: web.Server, refuse: Refuse) -> None:
        super().__init__(
            made.request_handler,
            request_factory=self._request,
            handler_cancellation=True,
        )
        self._make = made.request_factory
        self._refuse = refuse
        self._draining = False
        self._leaving = False
        self._look: asyncio.TimerHandle | None = None  # for idle connections
        self.connected = 0
        self.on_counted: Callable[[], object] = lambda: None

    def __call__(self) -> RequestHandler:
        connection = ClientConnection(
            self,
            self._refuse,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            lingering_time=LINGER_S,
        )
        if self._draining:
            connection.hurry()
        return connection

    def connection_made(
        self, handler: RequestHandler, transport: asyncio.Transport
    ) -> None:
        super().connection_made(handler, transport)
        self.connected += 1
        if self._look is None:
            self._look_later()
        self.on_counted()

    def connection_lost(
        self, handler: RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self.connected -= 1
        if not self.connected and self._look is not None:
            self._look.cancel()
            self._look = None
        self.on_counted()

    def _look_later(self) -> None:
        """One timer for all connections, instead of one for each."""
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(IDLE_TIMEOUT_S / LOOKS, self._close_idle)

    def _close_idle(self) -> None:
        self._look_later()
        since = asyncio.get_running_loop().time() - IDLE_TIMEOUT_S
        for connection in self.connections:
            if isinstance(connection, ClientConnection):
                connection.close_if_idle(since)

    def drain(self) -> None:
        """Let no connection delay the stop by what it does not send."""
        self._draining = True
        for connection in self.connections:
            if isinstance(connection, ClientConnection):
                connection.hurry()

    def leave(self) -> None:
        """Let each connection be used for what runs on it, and for no more requests."""
        self._leaving = True

    def idle_connections(self) -> Iterator[int]:
        """
        Give up every connection that waits for a request: its descriptor, which is the
        caller's now. Its client notices nothing.
        """
        for connection in list(self.connections):
            if isinstance(connection, ClientConnection):
                fd = connection.detach()
                if fd is not None:
                    yield fd

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if ODD_TARGET.search(message.path):
            url = canonical_url(message.url)
            if url is not message.url:
                message = message._replace(path=url.raw_path_qs, url=url)
        if self._leaving:
            message = message._replace(should_close=True)
        return self._make(message, payload, protocol, writer, task)


class HttpRunner(AppRunner):
    """
    Runs an application on a ``HttpServer``.

    Args:
        refuse: answers heads that cannot be served.
    """

    def __init__(self, app: web.Application, refuse: Refuse, **options: Any) -> None:
        super().__init__(app, **options)
        self._refuse = refuse

    def drain(self) -> None:
        """Let no connection delay the stop by what it does not send."""
        if isinstance(self.server, HttpServer):
            self.server.drain()

    def leave(self) -> None:
        """Let each connection be used for what runs on it, and for no more requests."""
        if isinstance(self.server, HttpServer):
            self.server.leave()

    def idle_connections(self) -> Iterator[int]:
        """Give up every connection that waits for a request: its descriptor."""
        if isinstance(self.server, HttpServer):
            yield from self.server.idle_connections()

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self.server.connections) if self.server is not None else 0

    async def _make_server(self) -> web.Server:
        return HttpServer(await super()._make_server(), self._refuse)
