"""
The seam between the relay and what speaks HTTP to an upstream.

The relay knows ``Transport`` and ``UpstreamResponse``. ``HttpTransport`` is the
implementation for accounts on the network; the trial account answers in the process.
``gateway.transport.websocket`` gives the same response over websockets.

Rule 1: every failure of an upstream leaves this package as an ``UpstreamError``. A
        request that HTTP cannot carry (a line feed in a header) is a ``ValueError``.
Rule 2: buffers are bounded: between two calls of ``read``, and while the awaitable of
        a feed is pending, the upstream's socket is not read.
Rule 3: the caller of ``open`` closes the response on every path.

    Transport.open ──▶ UpstreamResponse ──▶ read* ──▶ pump | body ──▶ close
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from multidict import CIMultiDictProxy
from yarl import URL

from gateway.record import AttemptRecord

if TYPE_CHECKING:
    from gateway.transport.fast_lane import LaneClient


class StopSignal(Enum):
    """The type of ``STOP``."""

    STOP = "stop"


STOP = StopSignal.STOP
"""What a feed returns to end the pump."""

Feed = Callable[[bytes], Awaitable[None] | StopSignal | None]
"""Takes one piece of a body; see ``UpstreamResponse.pump``. The event loop's own
callbacks call it, so it must not block and has no current task."""

Ended = Callable[[], object]
"""Called when an answer has ended, by the event loop's own callbacks, too."""


class LaneSide(NamedTuple):
    """What a lane needs of the relay; see ``gateway.transport.fast_lane``."""

    client: LaneClient
    record: AttemptRecord


class UpstreamResponse(Protocol):
    """
    One upstream answer: its head, and a body that is read once from start to end.

    ``read``, ``body`` and ``pump`` may follow one another (a pump begins with what the
    reads left) but never run at the same time. They have these failures in common:

    Raises:
        UpstreamError: "upstream_cut" when the body ends before its framing says so,
            "upstream_reset" when the connection breaks, "upstream_idle" after
            *idle_timeout_s* of silence, "upstream_malformed" for bytes that are not
            HTTP or cannot be decoded. Pieces that arrived before the failure are
            delivered before it is raised.
    """

    status: int
    headers: CIMultiDictProxy[str]
    facts: Mapping[str, Any]
    """For the timeline: how the answer came."""
    idle_timeout_s: float
    """Longest silence between two pieces, 0 = no limit. It may be set at any time and
    counts at once."""

    @property
    def has_ended(self) -> bool:
        """Whether its body is there to its clean end, be it read or not."""
        ...

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

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        """
        Call *feed* with every piece as it arrives, until the body's clean end.

        Pieces that *lane* allows may pass to the client without *feed*, as bytes and as
        counts the same. An implementation may ignore it.

        None from *feed* means go on. An awaitable is back-pressure: the upstream is not
        read until it is done. ``STOP`` ends the pump. An exception of *feed* or of its
        awaitable is raised here.
        """
        ...

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        """
        Release the answer; further calls do nothing.

        The connection is kept for another request if the body was read to its end and
        both sides allow it, else it is aborted at once. With *linger_s* an unfinished
        body has that many seconds to end, unread: for an answer whose terminal event
        came before the end of its framing. *ended* is called when the body is there to
        its clean end: at once, or within *linger_s*; else never.
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
        ``Accept-Encoding: identity``, which are the transport's. *connect_timeout_s*
        covers the connection with its proxy and TLS, *idle_timeout_s* each silence
        inside the body; the caller limits the wait for the head (``asyncio.timeout``).
        Redirects are not followed and cookies not kept.

        Raises:
            UpstreamError: "upstream_connect" (name, refusal, proxy, TLS, timeout),
                "upstream_reset" (broken before the head was whole),
                "upstream_malformed" (not HTTP, or a head that is too large).
            ValueError: the method, the URL or a header cannot be put into HTTP.
        """
        ...

    async def stop(self) -> None:
        """Close every connection, idle or not."""
        ...
