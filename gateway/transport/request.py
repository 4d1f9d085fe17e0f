"""
A request as HTTP/1.1 bytes.

Rule 1: the framing is the transport's alone. A caller's framing headers are left out,
        so that no request has two lengths.
Rule 2: a value that would break out of its line is refused, not repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from yarl import URL

OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that only the transport writes, in lower case."""

_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_BREAKS_OUT = "the value of a header holds CR, LF or NUL"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
Pairs = list[tuple[str, str]]


class Origin(NamedTuple):
    """Scheme, host and port of a server; IPv6 addresses are without brackets."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Proxy:
    """
    An HTTP proxy.

    Attributes:
        authorization: the value of ``Proxy-Authorization``, "" if it needs none.
    """

    origin: Origin
    authorization: str = field(default="", repr=False)


class Route(NamedTuple):
    """
    Where a connection leads to; requests of one route may share it.

    Attributes:
        must_tunnel: a proxy is passed by a tunnel even without TLS behind it: what is
            spoken is not HTTP, after its first request.
    """

    origin: Origin
    proxy: Proxy | None = None
    must_tunnel: bool = False

    @property
    def is_forwarded(self) -> bool:
        """Whether the proxy reads the request, instead of tunnelling it."""
        if self.proxy is None or self.must_tunnel:
            return False
        return self.origin.scheme == "http"


class Target(NamedTuple):
    """
    What a method and a URL say in a request.

    Attributes:
        line: the first line, without its end.
        host: the value of the ``Host`` header.
    """

    route: Route
    method: str
    line: str
    host: str


def origin_of(url: URL) -> Origin:
    """
    The origin of *url*.

    Raises:
        ValueError: it is not an absolute http or https URL.
    """
    if url.scheme not in ("http", "https") or not url.raw_host or not url.port:
        raise ValueError("the URL is not an absolute http or https URL")
    return Origin(url.scheme, url.raw_host, url.port)


def authority_of(origin: Origin) -> str:
    """Host and port of *origin* in one word."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{host}:{origin.port}"


@lru_cache(maxsize=256)  # a client's query is part of it
def target_of(
    method: str, url: URL, proxy: Proxy | None = None, must_tunnel: bool = False
) -> Target:
    """
    Where a request goes; the same few come again and again.

    Args:
        must_tunnel: see ``Route``.

    Raises:
        ValueError: as ``origin_of``; *method* is not a token, or the path holds
            blanks or controls.
    """
    path = url.raw_path_qs
    if not _TOKEN.fullmatch(method):
        raise ValueError("the method is not a token")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError("the path of the URL is not encoded")
    route = Route(origin_of(url), proxy, must_tunnel)
    host = url.host_port_subcomponent or ""
    if route.is_forwarded:
        path = f"http://{host}{path}"
    return Target(route, method, f"{method} {path} HTTP/1.1", host)


def request_headers(
    target: Target, headers: Iterable[tuple[str, str]], body_bytes: int
) -> Pairs:
    """
    The caller's *headers* with the transport's own before them.

    A ``Host`` of the caller's replaces the URL's.

    Raises:
        ValueError: a name is not a token, or a value holds CR, LF or NUL.
    """
    pairs = _pairs(target, headers, body_bytes)
    values = "".join([value for _, value in pairs])
    if "\r" in values or "\n" in values or "\0" in values:
        raise ValueError(_BREAKS_OUT)
    return pairs


def _pairs(
    target: Target, headers: Iterable[tuple[str, str]], body_bytes: int
) -> Pairs:
    """``request_headers``, but for what the values hold."""
    pairs = [("Host", target.host), ("Accept-Encoding", "identity")]
    proxy = target.route.proxy
    if proxy is not None and proxy.authorization and target.route.is_forwarded:
        pairs.append(("Proxy-Authorization", proxy.authorization))
    if body_bytes or target.method not in _BODILESS:
        pairs.append(("Content-Length", str(body_bytes)))
    for pair in headers:
        if low := _known(pair[0]):
            if low == "host" and pairs[0][0] == "Host":
                del pairs[0]
            pairs.append(pair)
    return pairs


@lru_cache(maxsize=512)
def _known(name: str) -> str:
    """
    The *name* of a header in lower case, "" if it is the transport's own; the same few
    come with every request.

    Raises:
        ValueError: it is not a token.
    """
    low = name.lower()
    if low in OWN_HEADERS:
        return ""
    if not _TOKEN.fullmatch(name):
        raise ValueError("the name of a header is not a token")
    return low


def request_head(
    target: Target, headers: Iterable[tuple[str, str]], body_bytes: int
) -> bytes:
    """
    Everything before the body.

    Text that was decoded with ``surrogateescape`` goes out as the bytes it was.

    Raises:
        ValueError: as ``request_headers``.
    """
    pairs = _pairs(target, headers, body_bytes)
    head = "\r\n".join([target.line, *map(": ".join, pairs), "\r\n"])
    if not head.count("\r") == head.count("\n") == len(pairs) + 2 or "\0" in head:
        raise ValueError(_BREAKS_OUT)
    return head.encode("utf-8", "surrogateescape")
