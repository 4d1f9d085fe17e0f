"""
Which way a request takes: straight, or through the proxy that the environment names.

Rule 1: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` name a proxy by the
        upstream's scheme, ``NO_PROXY`` the hosts that need none; in capitals or not.
Rule 2: a proxy that we cannot speak to is a failure; going round it would be a leak.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any
from urllib.request import getproxies_environment

from yarl import URL

from gateway.content_coding import Turns
from gateway.errors import UpstreamError
from gateway.transport.aiohttp_transport import AiohttpTransport
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer, tls_context
from gateway.transport.http_transport import HttpTransport
from gateway.transport.interface import UpstreamResponse
from gateway.transport.no_proxy import matches
from gateway.transport.request import origin_of
from gateway.transport.resolver import Resolver
from gateway.transport.shortage import Shortage


def maybe_proxy(url: URL, proxies: dict[str, str]) -> URL | None:
    """
    The proxy for *url*, None if it is reached directly.

    Args:
        proxies: as ``urllib.request.getproxies_environment`` reads them.

    Raises:
        UpstreamError: "upstream_connect" for a proxy that is not an HTTP one.
    """
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or matches(proxies.get("no", ""), url.raw_host or "", url.port or 0):
        return None
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.scheme not in ("http", "https") or not proxy.host:
        detail = f"a proxy of the scheme {proxy.scheme!r} is not supported"
        raise UpstreamError("upstream_connect", detail=detail)
    return proxy


class RoutedTransport:
    """
    The Transport of the daemon; the environment is read once, here.

    Args:
        turns: shared with all others who decode.

    Attributes:
        shortage: of what the process itself needs, whoever meets it.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        tls = tls_context()
        turns = turns or Turns()
        self._proxies = getproxies_environment()
        self.shortage = Shortage()
        resolver = Resolver()
        dialer = Dialer(tls, resolver, self.shortage)
        self._direct = HttpTransport(tls, ConnectionPool(dialer), turns)
        self._proxied = AiohttpTransport(tls, resolver, self.shortage, turns)

    def open(
        self,
        method: str,
        url: URL,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> Coroutine[Any, Any, UpstreamResponse]:
        """See ``Transport.open``; what it gives to await is the chosen way's own."""
        proxy = None
        if self._proxies:
            origin_of(url)
            proxy = maybe_proxy(url, self._proxies)
        if proxy is None:
            return self._direct.open(
                method,
                url,
                headers,
                body,
                connect_timeout_s=connect_timeout_s,
                idle_timeout_s=idle_timeout_s,
            )
        return self._proxied.open(
            method,
            url,
            headers,
            body,
            connect_timeout_s=connect_timeout_s,
            idle_timeout_s=idle_timeout_s,
            proxy=proxy,
        )

    async def stop(self) -> None:
        await self._direct.stop()
        await self._proxied.stop()
        self.shortage.stop()
