"""
The way through an HTTP proxy to an https or websocket origin: a tunnel by ``CONNECT``.

Rule 1: only a 2xx answer opens the tunnel; anything else, or nothing, is a failure of
        the connection, and no request was sent.
Rule 2: the proxy's answer is a head without a body. A byte behind it cannot be the
        origin's, which speaks only when it is spoken to.

Source: RFC 9110, 9.3.6
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import cast

from gateway.transport.request import Proxy, Route, authority_of

HEAD_LIMIT_BYTES = 65536
"""The most that the head of the proxy's answer may take."""

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\r\n]*)?\r?\n")


class TunnelRefused(ConnectionError):
    """The proxy has opened no tunnel; the text says why and holds no secret."""


def connect_request(route: Route, proxy: Proxy) -> bytes:
    """What asks *proxy* for a tunnel to the origin of *route*."""
    authority = authority_of(route.origin)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "\r\n"]).encode()


class ProxyTunnel(asyncio.Protocol):
    """
    Asks a proxy for a tunnel, then leaves its transport to the protocol *above*.

    Args:
        request: as ``connect_request`` writes it.
        above: gets ``connection_made`` when the tunnel is open, else
            ``connection_lost`` with the reason.
    """

    def __init__(self, request: bytes, above: asyncio.Protocol) -> None:
        self._request = request
        self._above = above
        self._transport: asyncio.Transport
        self._head = bytearray()
        self._error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._head += data
        while end := _END_OF_HEAD.search(self._head):
            status = _STATUS_LINE.match(self._head)
            if status is None:
                self._refuse("answered what is not HTTP")
                return
            code = int(status[1])
            if code >= 200:
                self._answered(code, len(self._head) - end.end())
                return
            del self._head[: end.end()]  # an interim answer
        if len(self._head) > HEAD_LIMIT_BYTES:
            self._refuse(f"answered with more than {HEAD_LIMIT_BYTES} bytes of head")

    def connection_lost(self, exc: Exception | None) -> None:
        error = self._error or exc or TunnelRefused("hung up before it answered")
        self._above.connection_lost(error)

    def _answered(self, status: int, bytes_behind: int) -> None:
        if status >= 300:
            self._refuse(f"refused the tunnel: {status} {_phrase(status)}".rstrip())
        elif bytes_behind:
            self._refuse("sent bytes behind its answer")
        else:
            self._transport.set_protocol(self._above)
            self._above.connection_made(self._transport)

    def _refuse(self, text: str) -> None:
        self._error = TunnelRefused(text)
        self._transport.abort()


def _phrase(status: int) -> str:
    """What *status* means; the proxy's own words may quote what it was sent."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
