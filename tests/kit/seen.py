"""
What the client has already seen, for an upstream that wants to break after that.

An upstream's words and its breaking may arrive at the gateway in one read, and then
nothing has been sent to the client yet. A play that is to break *after* the client has
got its first output waits here. Our own clients say so by their request id, which the
gateway passes on; real clients do not, so theirs get a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MOMENT_S = 0.15
_waiting: dict[str, asyncio.Event] = {}


@contextmanager
def expected(request_id: str) -> Iterator[None]:
    """A client that says what it sees asks with this id."""
    _waiting[request_id] = asyncio.Event()
    try:
        yield
    finally:
        _waiting.pop(request_id, None)


def noticed(request_id: str, data: bytes) -> None:
    """The client has got *data*."""
    if b"data:" in data and request_id in _waiting:
        _waiting[request_id].set()


async def output(request_id: str) -> None:
    """Return once the client has some output."""
    event = _waiting.get(request_id)
    if event is None:
        return await asyncio.sleep(MOMENT_S)
    with suppress(TimeoutError):  # what comes after will show what went wrong
        async with asyncio.timeout(3):
            await event.wait()
