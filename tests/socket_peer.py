"""
The server's side of a websocket for the tests of the transport, frame by frame.

It runs on a ``Peer``, so it is reached by every way, and can send what no server would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.extensions import ServerExtensionFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from yarl import URL

from gateway.transport.dialing import Dialer
from gateway.transport.interface import UpstreamResponse
from gateway.transport.request import Origin, Proxy
from gateway.transport.websocket.socket_pool import SocketPool
from gateway.transport.websocket.socket_transport import (
    SocketRequest,
    SocketTransport,
)
from tests.kit.answer import Answer
from tests.kit.socket_upstream import messages_of
from tests.transport_peer import Client, Peer, client_tls

WAYS = (
    "direct http",
    "direct https",
    "tunnel http",
    "tunnel https",
    "tunnel-tls-proxy http",
    "tunnel-tls-proxy https",
)
MESSAGES = messages_of(Answer(id="1"), {"model": "m"})


class ServerSocket:
    """
    Attributes:
        request: the upgrade.
        received: text messages that were read.
        closed: the code of the client's close frame, 0 before.
    """

    def __init__(self, peer: Peer, protocol: ServerProtocol, request: Request) -> None:
        self.peer = peer
        self.request = request
        self.received: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closed = 0
        self._protocol = protocol
        self._pieces = b""

    async def frame(self) -> Frame | None:
        """The next frame of the client; None at the end."""
        while not (events := self._protocol.events_received()):
            data = await self.peer.reader.read(65536)
            if not data:
                return None
            self._protocol.receive_data(data)
        first, *rest = events
        self._protocol.events[:0] = rest
        assert isinstance(first, Frame)
        return first

    async def ask(self) -> Any:
        """The next message; notes the pongs before it."""
        while frame := await self.frame():
            if frame.opcode is Opcode.PONG:
                self.pongs.append(bytes(frame.data))
            elif frame.opcode is Opcode.CLOSE:
                assert self._protocol.close_rcvd
                self.closed = self._protocol.close_rcvd.code
                return None
            else:
                self._pieces += bytes(frame.data)
                if frame.fin:
                    whole, self._pieces = self._pieces, b""
                    self.received.append(whole)
                    return json.loads(whole)
        return None

    async def text(self, *messages: str) -> None:
        """Send *messages* in one write."""
        await self.peer.send(b"".join(map(text, messages)))

    async def deflated(self, *frames: Frame) -> None:
        """Send *frames* as the extensions have them, in one write."""
        extensions = self._protocol.extensions
        data = [one.serialize(mask=False, extensions=extensions) for one in frames]
        await self.peer.send(b"".join(data))

    async def frames(self, *frames: Frame) -> None:
        data = [one.serialize(mask=False) for one in frames]
        await self.peer.send(b"".join(data))


def text(message: str) -> bytes:
    """*message* as a frame."""
    return Frame(Opcode.TEXT, message.encode()).serialize(mask=False)


def whole(answer: Answer | None = None) -> bytes:
    """The frames of a whole answer."""
    messages = MESSAGES if answer is None else messages_of(answer, {"model": "m"})
    return b"".join(map(text, messages))


async def accept(
    peer: Peer, extensions: Sequence[ServerExtensionFactory] | None = None
) -> ServerSocket:
    """Read the upgrade and accept it, with those of *extensions* that it offers."""
    protocol = ServerProtocol(max_size=None, extensions=extensions)
    protocol.receive_data(await peer.head())
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    await peer.send(b"".join(protocol.data_to_send()))
    return ServerSocket(peer, protocol, request)


class SocketClient:
    """A SocketTransport, by one of ``WAYS``."""

    def __init__(self, kind: str, **limits: float) -> None:
        self.client = Client(kind)
        self.upstream = self.client.upstream
        pool = SocketPool(**limits)  # type: ignore[arg-type]
        self.transport = SocketTransport(
            Dialer(client_tls()), self.client.own, self._maybe_proxy, pool
        )

    @property
    def pool(self) -> SocketPool:
        return self.transport.pool

    def _maybe_proxy(self, url: URL) -> Proxy | None:
        if self.client.is_direct:
            return None
        scheme = "https" if "tls-proxy" in self.client.way else "http"
        return Proxy(Origin(scheme, url.raw_host or "", url.port or 0))

    async def open(
        self, url: URL, body: bytes = b'{"model":"m","stream":true}', **more: Any
    ) -> UpstreamResponse:
        fields = {
            "connect_timeout_s": 5.0,
            "preamble_idle_s": 5.0,
            "account": "a",
            "user": "u",
            "headers": (("session-id", "s"),),
        }
        return await self.transport.open(
            SocketRequest(url=url, body=body, **{**fields, **more})
        )


@asynccontextmanager
async def socket_client(kind: str, **limits: float) -> AsyncIterator[SocketClient]:
    """A client that leaves nothing behind."""
    own = SocketClient(kind, **limits)
    async with own.client:
        yield own
        await own.transport.stop()
    assert not own.pool.live and not +own.pool._opening
    assert own.pool._timer is None
    await asyncio.sleep(0)
