"""
An upstream over real sockets that does exactly what a test scripts.

Rule 1: an account is the first part of the path: ``base_url("a")`` and
        ``base_url("b")`` are two accounts of one server.
Rule 2: what is played is looked up in the order *next* (once each), then *always*;
        first for this account and model, then the account, the model, everybody.
        Without a play it answers well. Other paths than the three are a 404, unless
        a play is queued.
Rule 3: it writes HTTP by hand, so that every wrong thing can be said too.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from tests.kit.received import Received, missing, parse_request

KILL = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST


class Exchange:
    """What a play does with one request: write to it, end it, or break it."""

    def __init__(self, wire: _Wire, request: Received) -> None:
        self.request = request
        self._wire = wire
        self._chunked = False

    async def head(
        self,
        status: int = 200,
        headers: dict[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """Status and headers; without *length* the body goes in chunks."""
        fields = {"content-type": "text/event-stream", **(headers or {})}
        if length is None:
            self._chunked = True
            fields["transfer-encoding"] = "chunked"
        else:
            fields["content-length"] = str(length)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self._wire.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode())

    async def send(self, data: bytes) -> None:
        """Some bytes of the body, in one write."""
        self.request.sent_bytes += len(data)
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        await self._wire.write(framed)

    async def end(self) -> None:
        """The body is complete; the connection stays."""
        if self._chunked:
            await self._wire.write(b"0\r\n\r\n")

    async def reply(
        self, status: int, data: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """A whole answer at once."""
        fields = {"content-type": "application/json", **(headers or {})}
        await self.head(status, fields, length=len(data))
        await self.send(data)

    def close(self) -> None:
        """FIN, wherever the body is."""
        self._wire.close()

    def reset(self) -> None:
        """RST, wherever the body is."""
        self._wire.reset()


Play = Callable[[Exchange], Awaitable[None]]


async def nothing_here(exchange: Exchange) -> None:
    """What is asked at any other path."""
    await exchange.reply(404, b'{"error":{"message":"nothing here"}}')


class ScriptedUpstream:
    """
    The server: ``async with ScriptedUpstream(default=play) as upstream``.

    Attributes:
        requests: everything received, in order.
        live: requests being played now, by account.
        most: the largest value that ``live`` ever had, by account.
    """

    def __init__(self, default: Play, port: int = 0) -> None:
        self.requests: list[Received] = []
        self.live: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.port = port
        self._default = default
        self._next: dict[tuple[str, str], deque[Play]] = {}
        self._always: dict[tuple[str, str], Play] = {}
        self._wires: set[_Wire] = set()
        self._server: asyncio.Server | None = None
        self._news = asyncio.Condition()

    async def __aenter__(self) -> ScriptedUpstream:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Wire(self), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and reset those that exist."""
        assert self._server is not None
        self._server.close()
        for wire in list(self._wires):
            wire.reset()
        await self._server.wait_closed()

    def base_url(self, account: str = "a") -> str:
        return f"http://127.0.0.1:{self.port}/{account}"

    def next(self, *plays: Play, account: str = "", model: str = "") -> None:
        """Play these for the next requests, one each."""
        self._next.setdefault((account, model), deque()).extend(plays)

    def always(self, play: Play, *, account: str = "", model: str = "") -> None:
        """Play this whenever nothing is queued."""
        self._always[account, model] = play

    def received(self, account: str = "", model: str = "") -> list[Received]:
        """The requests for an answer so far, of this account and this model."""
        return [
            request
            for request in self.requests
            if request.protocol
            and account in ("", request.account)
            and model in ("", request.model)
        ]

    async def wait_for(
        self, count: int, account: str = "", model: str = ""
    ) -> list[Received]:
        """Return once *count* requests have arrived."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(
                lambda: len(self.received(account, model)) >= count
            )
        return self.received(account, model)

    def most_served(self, account: str) -> int:
        """
        The largest number of requests that this account ever served at one time.

        Those that the client cut are left out: that it left is noticed here some
        time after it left.
        """
        whole = [r for r in self.received(account) if not r.cut_by_client]
        moves = [(r.at, 1) for r in whole] + [
            (r.closed_at, -1) for r in whole if r.closed_at is not None
        ]
        return max(itertools.accumulate(step for _, step in sorted(moves)), default=0)

    async def idle(self) -> None:
        """Return once no request is being played."""
        async with asyncio.timeout(20):
            for request in list(self.requests):
                await request.over.wait()

    def choose(self, request: Received) -> Play:
        """The play for *request*: rule 2."""
        account, model = request.account, request.model
        keys = [(account, model), (account, ""), ("", model), ("", "")]
        for key in keys:
            if self._next.get(key):
                return self._next[key].popleft()
        for key in keys:
            if key in self._always and request.protocol:
                return self._always[key]
        return self._default if request.protocol else nothing_here

    async def play(self, wire: _Wire, request: Received) -> None:
        """Run one request from its arrival to its end."""
        self.requests.append(request)
        self.live[request.account] += 1
        now = self.live[request.account]
        self.most[request.account] = max(now, self.most[request.account])
        try:
            async with self._news:
                self._news.notify_all()
            await self.choose(request)(Exchange(wire, request))
        except ConnectionResetError:
            request.cut_by_client = True
        finally:
            self.live[request.account] -= 1
            request.closed_at = time.monotonic()
            request.over.set()


class _Wire(asyncio.Protocol):
    """One connection: requests in, one after the other, bytes out."""

    def __init__(self, server: ScriptedUpstream) -> None:
        self._server = server
        self._buffer = bytearray()
        self._missing = 0  # nothing to look at before this many bytes more
        self._may_write = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._may_write.set()
        self._server._wires.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._wires.discard(self)
        self._may_write.set()
        if self._task and not self._task.done():
            self._task.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._missing -= len(data)
        if self._missing <= 0 and (self._task is None or self._task.done()):
            self._begin()

    def _begin(self) -> None:
        self._missing = missing(self._buffer)
        if self._missing:
            return
        request, rest = parse_request(bytes(self._buffer))
        self._buffer = bytearray(rest)
        if request:
            self._task = asyncio.get_running_loop().create_task(self._run(request))

    async def _run(self, request: Received) -> None:
        try:
            await self._server.play(self, request)
        except asyncio.CancelledError:
            request.cut_by_client = True
            raise
        self._task = None
        self._begin()

    async def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(data)
        await self._may_write.wait()

    def close(self) -> None:
        self._transport.close()

    def reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, KILL)
        self._transport.abort()
