"""
One connection of a client: aiohttp's, with a limit on the time and size of heads.

Rule 1: a head has 60 s for the whole, from the first byte of it, and from the beginning
        of a new connection.
Rule 2: whatever is wrong with a head is answered as every other mistake, once what was
        asked before is answered. Where not even a path came, an overdue head gets a
        bare close.
Rule 3: an answer after which bytes of the client are left unread is followed by a
        moment of reading them; else the system would reset the connection, and the
        client might never see the answer.

Rule 4: what a request does not need any more while it waits or streams is let go:
        aiohttp would keep a parser with the bytes of the head, empty queues and a timer
        for each of a thousand connections: a fifth of all that they take.

Private names of aiohttp are used in this file alone, but for one method of its runner
in ``daemon/http_server``: ``_messages``, ``_waiter``, ``_request_count``,
``_upgraded``, ``_lingering_time``, ``_loop``, ``_parser``, ``_keepalive_handle``,
``_next_keepalive_close_time``, ``_ErrInfo``, and ``_buffer`` of a body. A test knows
each of them.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE, RequestHandler, _ErrInfo

from gateway.errors import ClientError, GatewayError
from gateway.telemetry import log
from gateway.transport.idle_timeout import grace_until

HEAD_TIMEOUT_S = 60.0
MAX_LINE_BYTES = 64 * 1024  # the target of a request, or a header with its name
MAX_FIELDS = 256
MAX_HEAD_BYTES = 256 * 1024
LAST_WORDS_S = 2.0  # for a client to read the answer to a head that was refused
DRAIN_LINGER_S = 0.5  # for one whose body was not read to its end, during a drain
KEPT_HEAD_BYTES = 8192  # of a head that is not complete, to know what it asks
READ_BUFFER_BYTES = 64 * 1024  # of a body that is not read; twice that, at most

_HEAD_END = b"\r\n\r\n"
_UNKNOWN = -(1 << 62)  # bytes behind a head
_TARGET = re.compile(rb"(?:\r?\n)*[!-~]+ (?:https?://[^/ ]*)?(/[!-~]*?)[ ?]")
_REQUEST_ID = re.compile(rb"(?im)^x-request-id:[ \t]*([A-Za-z0-9._-]{8,128})[ \t]*\r?$")


class Head(NamedTuple):
    """
    What is known of a head that was refused.

    Attributes:
        path: as the client wrote it, "" if it has not come.
        request_id: the client's own, "" if it gave none.
    """

    path: str
    request_id: str


Refuse = Callable[[Head, GatewayError], web.Response]
"""Makes the answer to a head that is not served, and notes it."""


class _Messages(list[Any]):
    """Requests that wait; an empty deque takes ten times as much."""

    __slots__ = ()

    def popleft(self) -> Any:
        """As of a deque."""
        return self.pop(0)


class _NoTimer:
    """In the place of aiohttp's timer of an idle connection: see ``close_if_idle``."""

    def cancel(self) -> None:
        """Nothing runs."""


_NO_TIMER = _NoTimer()
_NO_BYTES: deque[bytes] = deque()


def forget_buffer(body: StreamReader) -> None:
    """Drop the empty buffer of a *body* that has been read to its end."""
    if body.at_eof() and body is not EMPTY_PAYLOAD:
        body._buffer = _NO_BYTES


class ClientConnection(RequestHandler):
    """
    Args:
        server: the one that it belongs to.
        refuse: answers heads that cannot be served.
    """

    __slots__ = (
        "_is_parser_new",
        "_behind_head_bytes",
        "_refuse",
        "_head",
        "_head_bytes",
        "_head_due",
        "_head_timer",
        "_body",
        "_last_words",
    )

    # aiohttp would ask for these with each request, and keep them; they are not read.
    peername = sockname = ssl_context = None

    def __init__(self, server: web.Server, refuse: Refuse, **options: Any) -> None:
        super().__init__(
            server,
            keepalive_timeout=0,  # the server looks for idle ones
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS,
            max_line_size=MAX_LINE_BYTES,
            read_bufsize=READ_BUFFER_BYTES,
            **options,
        )
        messages: Any = _Messages()
        self._messages = messages
        no_timer: Any = _NO_TIMER
        self._keepalive_handle = no_timer
        self._is_parser_new = True
        self._behind_head_bytes = 0  # that the parser has had
        self._refuse = refuse
        self._head = b""  # the beginning of one that is not complete, or was refused
        self._head_bytes = 0
        self._head_due = 0.0
        self._head_timer: asyncio.TimerHandle | None = None
        self._body: StreamReader | None = None  # that still arrives
        self._last_words: asyncio.Future[None] | None = None

    # --- heads ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._next_keepalive_close_time = self._loop.time()
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._last_words is not None:
            return  # only read so that the answer can be
        if self._parser is None:
            if not data:
                return  # a body has room again, and all of it is there
            self._parser, self._is_parser_new = self._new_parser(), True
        known, body = self._request_count, self._body
        if body is not None and body.is_eof():
            self._body = body = None
        super().data_received(data)
        if self._request_count != known:
            self._head_came(data, alone=self._request_count == known + 1)
        elif body is not None:
            self._behind_head_bytes += len(data)
            self._maybe_forget_parser(body)
        elif data and not self._upgraded:
            self._head_goes_on(data)
        self._is_parser_new = False

    def _head_came(self, data: bytes, *, alone: bool) -> None:
        """A request is there, or an error of the parser in its place."""
        self._stop_head_timer()
        message, body = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._head, self._head_bytes = b"", 0
            self._body = None if body.is_eof() else body
            self._messages[-1] = message._replace(raw_headers=()), body
            end = data.find(_HEAD_END) if alone and self._is_parser_new else -1
            self._behind_head_bytes = len(data) - end - 4 if end >= 0 else _UNKNOWN
            self._maybe_forget_parser(body)
        else:
            self._keep_head(data)

    def _maybe_forget_parser(self, body: StreamReader) -> None:
        """
        Drop the parser once it stands behind *body* and has had nothing else: a head
        that began with the parser, and these bytes.
        """
        if self._behind_head_bytes == body.total_bytes and body.is_eof():
            if not self._upgraded:
                self._parser = None

    def _new_parser(self) -> HttpRequestParser:
        """As the one that aiohttp makes for a new connection."""
        return HttpRequestParser(
            self,
            self._loop,
            READ_BUFFER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=MAX_MSG_QUEUE_SIZE,
        )

    def _head_goes_on(self, data: bytes) -> None:
        """A part of a head came."""
        self._keep_head(data)
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._queue_refusal(head_too_large(), 431)
        elif self._head_timer is None:
            self._start_head_timer()

    def _keep_head(self, data: bytes) -> None:
        self._head += data[: KEPT_HEAD_BYTES - len(self._head)]

    # --- the time of a head -----------------------------------------------------------

    def _start_head_timer(self) -> None:
        self._head_due = self._loop.time() + HEAD_TIMEOUT_S
        self._head_timer = self._loop.call_at(self._head_due, self._head_overdue)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_overdue(self) -> None:
        now, waiter = self._loop.time(), self._waiter
        if again := grace_until(now, self._head_due):
            self._head_due = again  # the process stood still; look at what came
            self._head_timer = self._loop.call_at(again, self._head_overdue)
            return
        self._head_timer = None
        if waiter is None or waiter.done():
            self.close()  # as soon as what was asked before is answered
        elif self.head.path:
            overdue = ClientError("request_timeout", "The request head did not arrive")
            self._queue_refusal(overdue, 408)
        else:
            self.force_close()

    def close_if_idle(self, since: float) -> None:
        """Close a connection that has waited for a request *since* that loop time."""
        if self._next_keepalive_close_time <= since:
            if self._waiter is not None and not self._waiter.done():
                self.force_close()

    # --- refusals ---------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """What is known of the head that is not complete, or was refused."""
        target, own = _TARGET.match(self._head), _REQUEST_ID.search(self._head)
        return Head(
            target[1].decode("ascii") if target else "",
            own[1].decode("ascii") if own else "",
        )

    def _queue_refusal(self, error: ClientError, status: int) -> None:
        """Let *error* be answered behind what was asked before."""
        self._stop_head_timer()
        self._request_count += 1
        info = _ErrInfo(status=status, exc=error, message=error.message)
        self._messages.append((info, EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, and what a handler did not catch."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        error: GatewayError
        if isinstance(exc, GatewayError):
            error = exc
        elif isinstance(exc, HttpProcessingError):
            error = malformed(exc)
        else:
            log.get().error("request.crashed", exc_info=exc)
            error = GatewayError("internal_error", detail=repr(exc))
        answer = self._refuse(self.head, error)
        answer.force_close()
        return _LastWords.of(answer, self)

    async def say_last_words(self) -> None:
        """Read on for a moment, for the client to see its answer."""
        self._last_words = self._loop.create_future()
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()
        await asyncio.wait((self._last_words,), timeout=LAST_WORDS_S)

    def close(self) -> None:
        """Take nothing new, and go when what runs is answered."""
        super().close()
        if self._last_words is not None and not self._last_words.done():
            self._last_words.set_result(None)

    def detach(self) -> int | None:
        """
        Give this connection up, for another process to serve; returns a copy of its
        descriptor. None while a request is on it, or a part of one.
        """
        transport, waiter = self.transport, self._waiter
        idle = waiter is not None and not waiter.done() and not self._messages
        if not idle or transport is None or self._head or self._upgraded:
            return None
        sock = transport.get_extra_info("socket")
        if sock is None or transport.is_closing():
            return None
        # What comes from now on is not read here, so it waits in the kernel.
        try:
            fd = os.dup(sock.fileno())
        except OSError:
            return None
        self.force_close()
        return fd

    def hurry(self) -> None:
        """The server drains: read on only shortly behind an answer."""
        self._lingering_time = DRAIN_LINGER_S


class _LastWords(web.Response):
    """An answer to a head that was refused; nothing is read as a request after it."""

    _connection: ClientConnection

    @classmethod
    def of(cls, answer: web.Response, connection: ClientConnection) -> _LastWords:
        """*answer*, to be given on *connection*."""
        last = cls(status=answer.status, headers=answer.headers, body=answer.body)
        last.force_close()
        last._connection = connection
        return last

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        await self._connection.say_last_words()


def malformed(error: HttpProcessingError) -> ClientError:
    """
    *error* of the parser as the client reads it.

    Its own text quotes what came, which may be a key, so it is not used.
    """
    if isinstance(error, LineTooLong) or "Too many headers" in error.message:
        return head_too_large()
    reason = error.message.partition(":\n")
    detail = (
        f"{type(error).__name__}: {reason[0]}" if reason[1] else type(error).__name__
    )
    return ClientError(
        "invalid_request", "The request is not valid HTTP", detail=detail
    )


def head_too_large() -> ClientError:
    """The refusal of a head beyond one of the limits."""
    return ClientError(
        "head_too_large",
        f"The request head is too large: a line may have {MAX_LINE_BYTES} bytes, and "
        f"there may be {MAX_FIELDS} headers of {MAX_HEAD_BYTES} bytes together",
    )
