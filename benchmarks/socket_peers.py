"""
The two ends of ``benchmarks.websocket``: an account that answers over HTTP and over
websockets, and clients of both kinds. They share one process, and a client says when
the account goes on: the next event is written when the one before has arrived, so that
each is one read of the gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from benchmarks import peers, scripts

LANE = re.compile(rb'"prompt_cache_key": ?"(\w+)"')
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
EVENT = b'{"type":"response.'
ENDS = (
    b'{"type":"response.completed"',
    b'{"type":"response.incomplete"',
    b'{"type":"response.steer.failed"',
)


class Answers:
    """What the account plays: answers with a number of deltas, in both forms."""

    def __init__(self) -> None:
        self.deltas = 0
        self._made: dict[tuple[int, bool], list[bytes]] = {}

    def pieces(self, *, framed: bool) -> list[bytes]:
        """What is written of an answer at a time."""
        key = self.deltas, framed
        if key not in self._made:
            self._made[key] = _pieces(*key)
        return self._made[key]


def _pieces(count: int, framed: bool) -> list[bytes]:
    form = _frame if framed else _chunk
    before, deltas, after = (
        [form(*event) for event in part]
        for part in scripts.answer_events("responses", count)
    )
    first, last = b"".join([*before, *deltas[:1]]), b"".join(after)
    if not framed:
        first, last = scripts.SSE_HEAD + first, last + b"0\r\n\r\n"
    return [first, *deltas[1:], last]


def _chunk(name: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":"))
    event = f"event: {name}\ndata: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def _frame(name: str, data: dict[str, Any]) -> bytes:
    frame = Frame(Opcode.TEXT, json.dumps(data, separators=(",", ":")).encode())
    return frame.serialize(mask=False)


class Turn:
    """One answer that is under way."""

    def __init__(self, write: Callable[[bytes], None], pieces: list[bytes]) -> None:
        self._write = write
        self._pieces = pieces
        self._at = 0
        self.events = 0  # that were written

    def go_on(self) -> None:
        """Write the next piece."""
        piece = self._pieces[self._at]
        self._at += 1
        self.events += piece.count(EVENT)
        self._write(piece)


class Account:
    """The server; ``turns`` are by the lane that the request names."""

    def __init__(self) -> None:
        self.port = peers.free_port()
        self.answers = Answers()
        self.turns: dict[bytes, Turn] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _AccountSide(self), "127.0.0.1", self.port
        )

    def asked(
        self, body: bytes, write: Callable[[bytes], None], *, framed: bool
    ) -> None:
        """Begin an answer."""
        found = LANE.search(body)
        assert found
        turn = Turn(write, self.answers.pieces(framed=framed))
        self.turns[found[1]] = turn
        turn.go_on()


class _AccountSide(asyncio.Protocol):
    def __init__(self, account: Account) -> None:
        self._account = account
        self._socket: ServerProtocol | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self._socket is None and not self._held and data.startswith(b"GET "):
            self._socket = ServerProtocol(max_size=None)
        if self._socket is not None:
            self._socket.receive_data(data)
            self._take(self._socket)
            return
        self._held += data
        head, _, body = self._held.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length and len(body) >= int(length[1]):
            self._held = b""
            self._account.asked(body, self._transport.write, framed=False)

    def _take(self, socket: ServerProtocol) -> None:
        for event in socket.events_received():
            if isinstance(event, Request):
                socket.send_response(socket.accept(event))
            elif isinstance(event, Frame) and event.opcode is not Opcode.CLOSE:
                self._held += event.data if not event.opcode & 8 else b""
                if event.fin and self._held:
                    body, self._held = self._held, b""
                    self._account.asked(body, self._transport.write, framed=True)
        for data in socket.data_to_send():
            self._transport.write(data)


class Client(asyncio.Protocol):
    """
    One connection of a client to the gateway, and the answer that it waits for.

    Attributes:
        first_s: from the request to the first event of the answer's text.
        ident: of the last answer.
    """

    def __init__(self, account: Account, lane: str) -> None:
        self.first_s = 0.0
        self.paced = True
        self._account, self._lane = account, lane
        self._got = 0
        self._asked_at = 0.0
        self._done: asyncio.Future[bytes] | None = None
        self._transport: Any = None

    async def connect(self, port: int) -> None:
        """Open the connection."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", port)

    def close(self) -> None:
        """Close it without a word."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data.count(EVENT)
        if not self.first_s and b"output_text.delta" in data:
            self.first_s = time.monotonic() - self._asked_at
            if not self.paced:
                self._finish(data)
                return
        if any(end in data for end in ENDS) or b" 101 " in data[:16]:
            self._finish(data)
        elif b'"error"' in data:
            raise RuntimeError(data.decode(errors="replace"))
        elif self.paced and self._done is not None:
            turn = self._account.turns[self._lane.encode()]
            if self._got >= turn.events:
                turn.go_on()

    def _finish(self, data: bytes) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(data)

    async def exchange(self, data: bytes) -> bytes:
        """Send *data*, and wait for what ends an answer."""
        self._got, self.first_s = 0, 0.0
        self._done = asyncio.get_running_loop().create_future()
        self._asked_at = time.monotonic()
        self._transport.write(data)
        try:
            async with asyncio.timeout(60):
                return await self._done
        finally:
            self._done = None

    def body(self, items: list[Any], **more: Any) -> dict[str, Any]:
        """A request with the *items*."""
        fixed = {"model": scripts.MODEL, "store": False, "stream": True}
        return {**fixed, "prompt_cache_key": self._lane, "input": items, **more}


class PostClient(Client):
    """Asks by ``POST``."""

    async def open(self, port: int) -> None:
        """Connect."""
        await self.connect(port)

    async def ask(self, items: list[Any], **more: Any) -> bytes:
        """The end of the answer to the *items*."""
        data = json.dumps(self.body(items, **more)).encode()
        return await self.exchange(
            b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nUser-Agent: bench/1\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (peers.KEY.encode(), len(data), data)
        )


class SocketClient(Client):
    """Asks over a websocket."""

    async def open(self, port: int) -> None:
        """Connect, and shake hands."""
        await self.connect(port)
        nonce = b64encode(os.urandom(16)).decode()
        await self.exchange(
            f"GET /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench/1\r\n"
            f"Authorization: Bearer {peers.KEY}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\n\r\n".encode()
        )

    async def ask(self, items: list[Any], **more: Any) -> bytes:
        """See ``PostClient``."""
        body = self.body(items, type="response.create", **more)
        return await self.exchange(_masked(body))

    async def interrupt(self, ident: str) -> float:
        """Seconds until the answer that runs has ended for it."""
        began = time.monotonic()
        end = await self.exchange(
            _masked({"type": "response.interrupt", "response_id": ident})
        )
        assert b"response.incomplete" in end
        return time.monotonic() - began

    async def answered(self) -> float:
        """Seconds until a message that needs nothing has its answer."""
        began = time.monotonic()
        await self.exchange(_masked({"type": "response.steer"}))
        return time.monotonic() - began


def _masked(message: dict[str, Any]) -> bytes:
    return Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True)
