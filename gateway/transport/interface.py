"""
The seam between the gateway and whatever speaks HTTP to an upstream.

Rule 1: every failure of an upstream leaves this package as an ``UpstreamError``. A
        request that HTTP cannot carry (a line feed in a header) is a ``ValueError``.
Rule 2: buffers are bounded: between two calls of ``read``, and while the awaitable of
        a feed is pending, the upstream's socket is not read.
Rule 3: the caller of ``open`` closes the response on every path.

    Transport.open ──▶ UpstreamResponse ──▶ read* ──▶ pump | body ──▶ close
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Protocol

from multidict import CIMultiDictProxy
from yarl import URL


class StopSignal(Enum):
    """The type of ``STOP``."""

    STOP = "stop"


STOP = StopSignal.STOP
"""What a feed returns when it wants no more pieces."""

Feed = Callable[[bytes], Awaitable[None] | StopSignal | None]
"""Takes one piece of a body; see ``UpstreamResponse.pump``. The event loop's own
callbacks call it, so it must not block and has no current task."""


class UpstreamResponse(Protocol):
    """
    One upstream answer: its head, and a body that is read once, front to back.

    ``read``, ``body`` and ``pump`` may follow one another (a pump begins with what
    the reads left over) but never run at the same time. They share their failures:

    Raises:
        UpstreamError: "upstream_cut" when the body ends before its framing says so,
            "upstream_reset" when the connection breaks, "upstream_idle" after
            *idle_timeout_s* of silence, "upstream_malformed" for bytes that are not
            HTTP or cannot be decoded. Pieces that arrived before the failure are
            handed out before it is raised.
    """

    status: int
    headers: CIMultiDictProxy[str]
    idle_timeout_s: float
    """Longest silence between two pieces, 0 = no limit; the relay changes it on the
    way, and the next silence is measured by the new value."""

    async def read(self) -> bytes:
        """The next piece of the body as it arrived; ``b""`` at its clean end."""
        ...

    async def body(self, limit_bytes: int) -> bytes:
        """
        The (rest of the) body as a whole.

        Raises:
            UpstreamError: "upstream_too_large" above *limit_bytes*.
        """
        ...

    async def pump(self, feed: Feed) -> None:
        """
        Call *feed* with every piece as it arrives, until the body's clean end.

        What *feed* returns decides: None goes on; an awaitable is back-pressure, the
        upstream is not read until it is done; ``STOP`` ends the pump. What *feed*
        or its awaitable raises is raised here.
        """
        ...

    def close(self, linger_s: float = 0.0) -> None:
        """
        Be done with the answer; calling it again does nothing.

        The connection is kept for another request if the body was read to its end
        and both sides agree, else it is aborted at once. With *linger_s* an
        unfinished body has that many seconds to end by itself, unread: for an answer
        that was whole before its framing was (``STOP`` at a terminal event).
        """
        ...


class Transport(Protocol):
    """Opens requests; one for the whole process."""

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
        """
        Send a request and return as soon as the head of its answer is there.

        The headers go out as given, beside ``Host``, ``Content-Length`` and
        ``Accept-Encoding: identity``, which are the transport's. How long the head
        may take is the caller's affair (``asyncio.timeout``): *connect_timeout_s*
        covers the connection, *idle_timeout_s* the silences inside the body.
        Redirects are not followed and cookies not kept.

        Raises:
            UpstreamError: "upstream_connect" (name, refusal, TLS, time-out),
                "upstream_reset" (broken before the head was whole),
                "upstream_malformed" (not HTTP, or a head that is too large).
            ValueError: the method, the URL or a header cannot be put into HTTP.
        """
        ...

    async def stop(self) -> None:
        """Close every connection, idle or not."""
        ...
