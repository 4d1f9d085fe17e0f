"""
A Transport over aiohttp's client.

The tests of the transport's promises run against it, too. So the promises are what any
good client can keep, and not habits of the gateway's own code.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ssl import SSLContext
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import http_exceptions
from yarl import URL

from gateway.content_coding import DecodeScheduler
from gateway.errors import UpstreamError
from gateway.transport.decoded import decoded, too_large
from gateway.transport.interface import STOP, Ended, Feed, LaneSide, UpstreamResponse
from gateway.transport.request import request_headers, target_of

HEAD_LIMIT_BYTES = 65536
"""The longest line of an answer's head."""

BUFFER_BYTES = 65536
"""How much of a body may wait to be read, before its socket is not read any more."""

KEEP_ALIVE_S = 55.0
"""How long an unused connection is kept: less than the minute of many servers."""

_BYTES_AS_THEY_ARE = 65536  # above it aiohttp wants a file to read a body from


@contextmanager
def upstream_errors() -> Iterator[None]:
    """Translate what aiohttp raises; nothing of ours may run inside."""
    try:
        yield
    except aiohttp.ClientError as exc:
        raise UpstreamError(_code_of(exc), detail=repr(exc)) from exc
    except http_exceptions.HttpProcessingError as exc:
        raise UpstreamError("upstream_malformed", detail=repr(exc)) from exc
    except OSError as exc:
        raise UpstreamError("upstream_reset", detail=repr(exc)) from exc


def _code_of(error: aiohttp.ClientError) -> str:
    if isinstance(
        error,
        (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ServerFingerprintMismatch,
        ),
    ):
        return "upstream_connect"
    if isinstance(error, aiohttp.ClientPayloadError):
        cause = error.__cause__
        if isinstance(cause, OSError) or "ConnectionReset" in str(error):
            return "upstream_reset"
        return "upstream_cut"
    if isinstance(error, aiohttp.ClientResponseError):
        return "upstream_malformed"
    return "upstream_reset"


class AiohttpTransport:
    """
    A Transport over one ``aiohttp.ClientSession``, made at the first request.

    Args:
        tls: what https upstreams are checked with.
    """

    def __init__(self, tls: SSLContext) -> None:
        self._tls = tls
        self._turns = DecodeScheduler()
        self._session: aiohttp.ClientSession | None = None
        self._stopped = False

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
        pairs = request_headers(target_of(method, url), headers, len(body))
        timeout = aiohttp.ClientTimeout(sock_connect=connect_timeout_s)
        trace = SimpleNamespace(reused=False)
        for last_try in (False, True):
            try:
                with upstream_errors():
                    response = await self._running_session().request(
                        method,
                        url.with_user(None),
                        headers=pairs,
                        data=_payload(body),
                        timeout=timeout,
                        allow_redirects=False,
                        trace_request_ctx=trace,
                    )
                return decoded(AiohttpResponse(response, idle_timeout_s), self._turns)
            except UpstreamError as exc:
                if last_try or not (trace.reused and _untouched(exc.__cause__)):
                    raise
            trace.reused = False
        raise AssertionError("the second try returns or raises")

    async def stop(self) -> None:
        self._stopped = True
        if self._session is not None:
            await self._session.close()

    def _running_session(self) -> aiohttp.ClientSession:
        if self._stopped:
            raise UpstreamError("upstream_connect", detail="the transport has stopped")
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_S,
                ssl=self._tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=BUFFER_BYTES,
            max_line_size=HEAD_LIMIT_BYTES,
            max_field_size=HEAD_LIMIT_BYTES,
            skip_auto_headers=("Accept", "Content-Type", "User-Agent"),
            trace_configs=[trace],
        )


async def _note_reuse(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: object
) -> None:
    context.trace_request_ctx.reused = True


def _untouched(error: BaseException | None) -> bool:
    """Whether the connection broke before anything of an answer had come."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else the head that had begun
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    if len(body) > _BYTES_AS_THEY_ARE:
        return io.BytesIO(body)
    return body or None


class AiohttpResponse:
    """A UpstreamResponse over ``aiohttp.ClientResponse``."""

    def __init__(self, response: aiohttp.ClientResponse, idle_timeout_s: float) -> None:
        self._response = response
        self.idle_timeout_s = idle_timeout_s
        self.facts: Mapping[str, Any] = {}
        self._closed = False
        self.status = response.status
        self.headers = response.headers

    @property
    def has_ended(self) -> bool:
        return self._response.content.is_eof()

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(self.idle_timeout_s or None):
                with upstream_errors():
                    return await self._response.content.readany()
        except TimeoutError:
            detail = f"nothing came for {self.idle_timeout_s} s"
            raise UpstreamError("upstream_idle", detail=detail) from None

    async def body(self, limit_bytes: int) -> bytes:
        whole = bytearray()
        while piece := await self.read():
            whole += piece
            if len(whole) > limit_bytes:
                raise too_large(limit_bytes)
        return bytes(whole)

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        while piece := await self.read():
            outcome = feed(piece)
            if outcome is STOP:
                return
            if outcome is not None:
                await outcome

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        if ended is not None and self.has_ended:
            ended()
        if linger_s > 0 and not self._response.content.is_eof():
            # aiohttp takes the connection back by itself when the body ends
            loop = asyncio.get_running_loop()
            loop.call_later(linger_s, self._response.close)
        else:
            self._response.close()
