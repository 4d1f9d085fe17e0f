"""
What waits in the socket below a transport, asked past the event loop.

An upstream that refuses a request early answers and resets the connection. A write
after that fails, and the loop closes the socket over an answer that it has not read.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterator

LEFT_BYTES = 262144
"""The most that is read from a socket that has failed."""


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """The number of the socket below *transport*, -1 if there is none."""
    sock = transport.get_extra_info("socket")
    return sock.fileno() if sock else -1


def is_encrypted(transport: asyncio.BaseTransport) -> bool:
    """Whether *transport* is TLS, which reads the rest of its socket itself."""
    return transport.get_extra_info("ssl_object") is not None


def is_readable(descriptor: int) -> bool:
    """Whether bytes, an end or an error wait to be read."""
    if descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def left_in_socket(descriptor: int) -> Iterator[bytes]:
    """What has come and was not read, up to a bound."""
    left = LEFT_BYTES
    while descriptor >= 0 and left > 0:
        try:
            data = os.read(descriptor, left)
        except OSError:
            return
        if not data:
            return
        left -= len(data)
        yield data
