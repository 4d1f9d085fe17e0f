"""
Which way a request takes: directly, or through the proxy that the environment names.

Rule 1: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` name a proxy by the
        upstream's scheme, ``NO_PROXY`` the hosts that need none; in capitals or not.
Rule 2: a proxy that the gateway cannot speak to is a failure. To connect directly
        instead would be a leak.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport.no_proxy import matches
from gateway.transport.request import Proxy, origin_of


def proxy_rule(proxies: Mapping[str, str]) -> Callable[[URL], Proxy | None] | None:
    """
    ``maybe_proxy`` bound to *proxies*, None where there are none.

    Args:
        proxies: as ``urllib.request.getproxies_environment`` reads them.
    """
    return partial(maybe_proxy, proxies=dict(proxies)) if proxies else None


def maybe_proxy(url: URL, proxies: Mapping[str, str]) -> Proxy | None:
    """
    The proxy for *url*, None if it is reached directly.

    Raises:
        UpstreamError: "upstream_connect" for a proxy that is not an HTTP one.
        ValueError: *url* is not an absolute http or https URL.
    """
    origin = origin_of(url)
    text = proxies.get(origin.scheme) or proxies.get("all")
    if not text or matches(proxies.get("no", ""), origin.host, origin.port):
        return None
    return _parse(text)


@lru_cache(maxsize=16)
def _parse(text: str) -> Proxy:
    try:
        url = URL(text if "://" in text else f"http://{text}")
        origin = origin_of(url)
    except ValueError:
        # The text may hold a password, and so may the error's.
        scheme = text.partition("://")[0] if "://" in text else "http"
        detail = f"the proxy of the scheme {scheme!r} is not supported"
        raise UpstreamError("upstream_connect", detail=detail) from None
    if url.user is None and url.password is None:
        return Proxy(origin)
    credentials = f"{url.user or ''}:{url.password or ''}".encode()
    return Proxy(origin, f"Basic {b64encode(credentials).decode()}")
