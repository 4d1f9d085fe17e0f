"""The paths of requests, as clients write them and as the routes know them."""

from __future__ import annotations

import re

from yarl import URL

from gateway.protocols import PROTOCOLS

_SLASHES = re.compile("/{2,}")
_PREFIXES = re.compile(r"(?:/v1)+(?=/v1(?:/|$))")

ODD_TARGET = re.compile(r"//|/(?:\?|$)|^/v1/v1|^[^/]")
"""Found in every target of a request whose path may not be in canonical form."""


def canonical_path(path: str) -> str:
    """
    *path* with one slash before it and between its parts, none at its end, and ``/v1``
    once.

    Base URLs are given with and without ``/v1`` and a slash at the end, and clients add
    theirs to them.
    """
    path = _SLASHES.sub("/", path if path.startswith("/") else "/" + path)
    path = path.rstrip("/") or "/"
    return _PREFIXES.sub("", path, count=1) if path.startswith("/v1/v1") else path


def canonical_url(url: URL) -> URL:
    """*url* with its path in canonical form; the same one where it has it."""
    if url.absolute and not url.scheme:  # CONNECT names a host and no path
        return URL("/")
    path = canonical_path(url.raw_path)
    if path == url.raw_path:
        return url
    return url.with_path(path, encoded=True, keep_query=True)


def protocol_of(path: str) -> str:
    """The protocol whose clients ask for *path*; of a path of none, the first."""
    marked = (wire.name for wire in PROTOCOLS.values() if wire.path_mark in path)
    return next(marked, next(iter(PROTOCOLS)))
