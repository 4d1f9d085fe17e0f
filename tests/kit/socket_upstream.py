"""
A server of Responses over websockets, and over HTTP at the same address, that does
what a test scripts.

Rule 1: each ``response.create`` is one ``Ask``; it is given to the play that is next,
        else to the one that is always played. Without any it answers well.
Rule 2: an upgrade is refused with the status that is next, else accepted.
Rule 3: what is wanted of it that a library would not send is written as raw bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.kit import answers
from tests.kit.answer import Answer
from tests.kit.asking import read_event


@dataclass
class Refusal:
    """An answer to an upgrade that opens no websocket."""

    status: int
    body: bytes = b'{"error":{"message":"no"}}'
    headers: dict[str, str] = field(default_factory=dict)


class Ask:
    """
    One request for an answer on a socket.

    Attributes:
        json: the message.
        number: of the socket, from 1.
    """

    def __init__(self, ws: web.WebSocketResponse, message: Any, number: int) -> None:
        self.ws = ws
        self.json = message
        self.number = number

    async def send(self, *messages: Any) -> None:
        """Send *messages*, each as one text."""
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            await self.ws.send_str(text)

    def write(self, data: bytes) -> None:
        """Bytes as they are, whatever the protocol says."""
        transport = self.ws._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.write(data)

    def cut(self) -> None:
        """Close the connection without a close frame."""
        transport = self.ws._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()


SocketPlay = Callable[[Ask], Awaitable[None]]


def messages_of(answer: Answer, request: dict[str, Any]) -> list[str]:
    """The messages of a whole *answer*: the data of its events."""
    stream = answers.stream("responses", answer, {**request, "stream": True})
    data = b"".join(stream.whole())
    return [read_event(one).data for one in data.split(b"\n\n") if one]


def ok(answer: Answer | None = None, *, interval_s: float = 0.0) -> SocketPlay:
    """A whole answer."""

    async def play(ask: Ask) -> None:
        for message in messages_of(answer or Answer(), ask.json):
            await asyncio.sleep(interval_s)
            await ask.send(message)

    return play


def begun(count: int, then: SocketPlay, answer: Answer | None = None) -> SocketPlay:
    """The first *count* messages of an answer, and *then* something else."""

    async def play(ask: Ask) -> None:
        await ask.send(*messages_of(answer or Answer(), ask.json)[:count])
        await then(ask)

    return play


def gated(gate: asyncio.Event, then: SocketPlay) -> SocketPlay:
    """Nothing before *gate* is open, and *then* something."""

    async def play(ask: Ask) -> None:
        await gate.wait()
        await then(ask)

    return play


def closes(code: int) -> SocketPlay:
    """Close with *code*; 1006: without a close frame."""

    async def play(ask: Ask) -> None:
        if code == 1006:
            ask.cut()
        else:
            await ask.ws.close(code=code, message=b"so it is")

    return play


def says(*messages: Any) -> SocketPlay:
    async def play(ask: Ask) -> None:
        await ask.send(*messages)

    return play


def error(status: int | None, code: str, **more: Any) -> SocketPlay:
    """An error message."""
    data = {"type": "error", "error": {"code": code, "message": code, "type": code}}
    return says(data | ({"status": status} if status else {}) | more)


async def silent(ask: Ask) -> None:
    """Nothing."""


class SocketUpstream:
    """
    The server: ``async with SocketUpstream() as upstream``.

    Attributes:
        asked: everything asked over websockets, in order.
        posted: the bodies that came over HTTP.
        handshakes: the headers of every upgrade.
        live: open websockets.
        compress: agree to compress messages.
    """

    def __init__(self, default: SocketPlay | None = None) -> None:
        self.asked: list[Ask] = []
        self.posted: list[Any] = []
        self.handshakes: list[dict[str, str]] = []
        self.live: set[web.WebSocketResponse] = set()
        self.refusals: deque[Refusal] = deque()
        self.headers: dict[str, str] = {}
        self.compress = False
        self.always = default or ok()
        self._next: deque[SocketPlay] = deque()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> SocketUpstream:
        app = web.Application(client_max_size=0)
        app.router.add_get("/{account}/responses", self._upgrade)
        app.router.add_post("/{account}/{path:.*}", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner
        for ws in list(self.live):
            transport = ws._req.transport if ws._req else None
            if transport is not None:
                transport.abort()
        await self._runner.cleanup()

    def base_url(self, account: str = "a") -> str:
        return f"http://127.0.0.1:{self.port}/{account}"

    def next(self, *plays: SocketPlay) -> None:
        """Play these for the next requests, one each."""
        self._next.extend(plays)

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append({k.lower(): v for k, v in request.headers.items()})
        if self.refusals:
            refusal = self.refusals.popleft()
            if refusal.status == 0:
                assert request.transport
                request.transport.abort()
            return web.Response(
                status=refusal.status or 500, body=refusal.body, headers=refusal.headers
            )
        ws = web.WebSocketResponse(max_msg_size=0, compress=self.compress)
        ws.headers.update(self.headers)
        await ws.prepare(request)
        number = len(self.handshakes)
        self.live.add(ws)
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    ask = Ask(ws, json.loads(message.data), number)
                    self.asked.append(ask)
                    play = self._next.popleft() if self._next else self.always
                    await play(ask)
        except ConnectionError:
            pass
        finally:
            self.live.discard(ws)
        return ws

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.posted.append(body)
        if not body.get("stream"):
            return web.json_response(answers.body("responses", Answer(), body))
        stream = answers.stream("responses", Answer(), body)
        return web.Response(
            body=b"".join(stream.whole()), content_type="text/event-stream"
        )
