"""
One answer over a websocket, as an ``UpstreamResponse``; see ``SocketAnswer``.

Rule 1: a socket that is lost before the first output is replaced, and the request sent
        again, whole; MAX_LOST times, and not once its reader was cancelled. Behind the
        output a loss is the upstream's cut.
Rule 2: a socket is used again only if its answer was whole.
Rule 3: a reader that is slow lets up to BUFFER_BYTES arrive before the socket is left
        unread: pings come in between, and want to be answered.

    begin ──▶ preamble ──output──▶ passes ──terminal──▶ ended ──close──▶ pool
                └──lost──▶ another socket
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.errors import UpstreamError
from gateway.protocols.responses.socket_answer import SocketAnswer
from gateway.protocols.responses.socket_create import Chain, SocketCreate
from gateway.protocols.responses.socket_message import (
    NO_SUCH_RESPONSE,
    SOCKET_IS_OLD,
    error_message,
)
from gateway.transport.body_reader import BodyReader
from gateway.transport.fast_lane import FastLane
from gateway.transport.interface import Ended, Feed, LaneSide
from gateway.transport.websocket.frame_lane import lane_of_frames
from gateway.transport.websocket.socket_headers import is_lasting
from gateway.transport.websocket.socket_pool import PooledSocket
from gateway.transport.websocket.upgrade import UpgradeAnswer
from gateway.transport.websocket.web_socket import SocketLoss

BUFFER_BYTES = 262144
"""How much of an answer is buffered before its socket is not read any more."""

MAX_LOST = 2
"""How many sockets one answer may lose before its first output."""

BRIEFLY_S = 60.0
"""How long an account is asked over HTTP whose sockets did not last."""

TOO_BIG = 1009
_HARMLESS = ("upstream_cut", "upstream_reset")


class UpgradeRefused(Exception):
    """The upstream has opened no websocket."""

    def __init__(self, answer: UpgradeAnswer) -> None:
        super().__init__(answer.status, answer.detail)
        self.answer = answer


class AskOverHttp(Exception):
    """
    The request cannot be served over a websocket, for *reason*.

    Attributes:
        for_s: how long that holds for the account; 0: for this request alone.
    """

    def __init__(self, reason: str, *, for_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.for_s = for_s


class SocketSource(Protocol):
    """What gives an answer its socket, and takes it back."""

    async def take(self, create: SocketCreate, *, new: bool) -> PooledSocket:
        """
        A socket for *create*, idle or new.

        Raises:
            UpstreamError: "upstream_connect".
            UpgradeRefused, AskOverHttp: there is none.
        """
        ...

    def put_back(self, pooled: PooledSocket, chain: Chain | None) -> None:
        """The answer is over; the socket may serve another."""
        ...

    def forgets(self) -> None:
        """The upstream did not know its own last answer."""
        ...


class SocketResponse(BodyReader):
    """
    An ``UpstreamResponse``, once ``begin`` has returned.

    Args:
        preamble_idle_s: the longest silence between the head and the first output of a
            stream; the relay cannot set it, since it does not see the preamble.
    """

    buffer_bytes = BUFFER_BYTES

    def __init__(
        self,
        source: SocketSource,
        create: SocketCreate,
        pooled: PooledSocket,
        preamble_idle_s: float,
    ) -> None:
        super().__init__(pooled.socket.connection, 0.0)
        self.status = 0
        self.headers: CIMultiDictProxy[str]
        self._answer = SocketAnswer(
            stream=create.stream, shows_thinking=create.may_be_interrupted
        )
        self._source = source
        self._create: SocketCreate | None = create
        self._pooled: PooledSocket | None = pooled
        self._seed: Chain | None = None
        self._preamble_idle_s = preamble_idle_s if create.stream else 0.0
        self._may_replace = True
        self._is_too_large = False
        self._lost = 0
        self._is_closed = False

    @property
    def has_ended(self) -> bool:
        return self._answer.has_ended

    # --- for the relay ----------------------------------------------------------------

    async def begin(self) -> None:
        """
        Ask, and wait for the head.

        Raises:
            UpstreamError: as ``Transport.open``.
            UpgradeRefused, AskOverHttp: see ``SocketSource``.
        """
        assert self._pooled
        self._ask(self._pooled)
        while not self.status:
            try:
                self._is_over()
            except UpstreamError as failure:
                if failure.code in _HARMLESS and not self._is_replaceable(failure):
                    for_s = 0.0 if self._is_too_large else BRIEFLY_S
                    raise AskOverHttp(failure.detail, for_s=for_s) from None
                await self._renew()
            else:
                await self._wait()
        self.headers = CIMultiDictProxy(self._answer.headers)

    async def read(self) -> bytes:
        while True:
            try:
                return await super().read()
            except UpstreamError:
                await self._renew_behind_head()

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        while True:
            try:
                return await super().pump(feed, lane)
            except UpstreamError as error:
                if error is not self._failure:
                    raise  # the feed's own
                await self._renew_behind_head()

    def _new_lane(self, side: LaneSide) -> FastLane | None:
        if not self._answer.is_plain:
            return None
        return lane_of_frames(self._connection, self, side)

    @property
    def is_between(self) -> bool:
        """See ``LaneAnswer``."""
        if self._feed is None or self._failure is not None or not self._pooled:
            return False
        return self._answer.is_plain and self._pooled.socket.is_between_frames

    def passed(self, at: float) -> None:
        """See ``LaneAnswer``."""
        self._idle_timeout.last_received_at = at
        if self._pooled:
            self._pooled.socket.passed()

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        """See ``UpstreamResponse.close``; a terminal is the end, so nothing lingers."""
        if self._is_closed:
            return
        self._is_closed = True
        self._buffer.clear()
        self._idle_timeout.release()
        self._create = None
        pooled, self._pooled = self._pooled, None
        if pooled is None:
            return
        if self._answer.has_ended and self._answer.keeps_socket:
            self._source.put_back(pooled, self._answer.learned(self._seed))
        else:
            pooled.socket.abort()
        if self._answer.has_ended and ended is not None:
            ended()

    # --- the socket -------------------------------------------------------------------

    def _ask(self, pooled: PooledSocket) -> None:
        """Send the request on *pooled*, as short as its socket allows."""
        create, chain, socket = self._create, pooled.chain, pooled.socket
        assert create
        self._connection = socket.connection
        known = chain if chain is not None and create.follows(chain) else None
        facts: dict[str, Any] = {"websocket": "used" if pooled.has_served else "new"}
        if known:
            facts["known_items"] = known.input_items + len(known.outputs)
        if self._lost:
            facts["lost"] = self._lost
        self.facts = facts
        self._answer.restart(_headers(pooled), names_parent=known is not None)
        pooled.chain = None
        if self.status:
            self._idle_timeout.start()
        socket.send(create.after(known) if known else create.whole(), self)

    async def _renew(self) -> None:
        """
        Ask once more after a failure that is not the account's fault.

        Raises:
            UpstreamError: the failure, where that is not possible.
        """
        failure, pooled = self._failure, self._pooled
        assert failure
        if not self._is_replaceable(failure):
            raise failure
        self._lost += 1
        self._failure = None
        try:
            if pooled is None or not pooled.socket.is_usable:
                pooled = await self._replace(pooled)
            self._ask(pooled)
        except BaseException:
            self._failure, self._may_replace = failure, False
            raise

    async def _replace(self, pooled: PooledSocket | None) -> PooledSocket:
        """Take another socket; the second time a new one."""
        assert self._create
        if pooled is not None:
            pooled.socket.abort()
        self._pooled = None
        self._pooled = await self._source.take(self._create, new=self._lost > 1)
        return self._pooled

    async def _renew_behind_head(self) -> None:
        """As ``_renew``; a refusal is an error in the answer, or the failure stays."""
        failure = self._failure
        assert failure
        try:
            await self._renew()
        except AskOverHttp:
            raise failure from None
        except UpgradeRefused as refused:
            status, headers, body, _ = refused.answer
            self._failure = None
            message = error_message(status, dict(headers), body)
            self._deliver(self._answer.end_with_error(message))

    def _is_replaceable(self, failure: UpstreamError) -> bool:
        if self._answer.passes or not self._may_replace or self._create is None:
            return False
        return failure.code in _HARMLESS and self._lost < MAX_LOST

    async def _wait(self) -> None:
        try:
            await super()._wait()
        except asyncio.CancelledError:
            self._may_replace = False  # its reader has left
            raise

    def _pause(self) -> None:
        if len(self._buffer) >= self.buffer_bytes:
            super()._pause()

    # --- for the socket ---------------------------------------------------------------

    def receive_messages(self, messages: list[bytes]) -> None:
        """See ``SocketListener``."""
        self._idle_timeout.last_received_at = self._loop.time()
        answer = self._answer
        passed, piece = answer.passes, answer.take(messages)
        if answer.status and not self.status:
            self.status = answer.status
            self._idle_timeout.start()
            self._idle_timeout.limit_s = self._preamble_idle_s
            self._wake()
        if answer.passes and not passed and self._create is not None:
            self._seed = self._create.seed()
            self._create = None  # a long stream need not keep the body
        if piece:
            self._deliver(piece)
        if answer.refused:
            self._refused(answer.refused)
        if answer.has_ended:
            self._idle_timeout.stop()
            self._wake()

    def socket_lost(self, loss: SocketLoss) -> None:
        """See ``SocketListener``."""
        self._answer.keeps_socket = False
        if loss.close_code == TOO_BIG and not self.status:
            self._may_replace, self._is_too_large = False, True
        self._fail(loss.error)

    def on_idle_timeout(self) -> None:
        """See ``IdleTimeoutOwner``."""
        assert self._pooled
        self._pooled.socket.abort()
        detail = f"nothing came for {self.idle_timeout_s} s"
        self._fail(UpstreamError("upstream_idle", detail=detail))

    def _refused(self, code: str) -> None:
        """The server wants the request once more: on another socket, or whole."""
        assert self._pooled
        if code == SOCKET_IS_OLD:
            self._pooled.socket.close()
        elif code == NO_SUCH_RESPONSE:
            self._source.forgets()
        self._fail(UpstreamError("upstream_cut", detail=code))

    def _fail(self, error: UpstreamError) -> None:
        if self._failure is None and not self._answer.has_ended:
            self._failure = error
            self._idle_timeout.stop()
            self._wake()


def _headers(pooled: PooledSocket) -> CIMultiDict[str]:
    """The headers of an answer on *pooled*; of a later one only what still holds."""
    pairs = pooled.socket.headers.items()
    fresh = not pooled.has_served
    return CIMultiDict([pair for pair in pairs if fresh or is_lasting(pair[0])])
