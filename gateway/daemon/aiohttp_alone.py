"""
aiohttp's server, without the certificates of its client.

aiohttp makes two TLS contexts of its client when it is imported, and each reads all of
the system's authorities: a sixth of a start. The gateway has a client of its own, so
those of aiohttp get none. They would refuse every server.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

_READS = "set_default_verify_paths"


def load() -> None:
    """Import it, before anything else does."""
    with _without_authorities():
        import aiohttp.web

        assert aiohttp.web


@contextmanager
def _without_authorities() -> Iterator[None]:
    """For the duration of the block a new context reads no authorities."""
    setattr(ssl.SSLContext, _READS, lambda context: None)
    try:
        yield
    finally:
        delattr(ssl.SSLContext, _READS)  # the inherited one is there again
