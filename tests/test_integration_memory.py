"""
What a gateway holds for a stream that is open, and for a request that waits.

Counted are the bytes that Python and uvloop allocate, the same on every machine. Client
and upstream are bare sockets, which take a hundred each.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from gateway.daemon.app import components_of
from tests.kit import inprocess, settings

COUNT = 50
PREAMBLE = [
    {
        "type": "response.created",
        "response": {"id": "resp_1", "model": "responses-x", "status": "in_progress"},
    },
    {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hello",
    },
]


def _chunk(event: dict[str, object]) -> bytes:
    text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)


BEGUN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(_chunk, PREAMBLE))
)


class SilentUpstream:
    """Begins an answer on each connection, and says no more."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=COUNT)
        self._sockets: list[socket.socket] = []
        self.base_url = "http://127.0.0.1:%d/v1" % self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            while not sock.recv(65536).endswith(b"}"):
                pass
            sock.sendall(BEGUN)
            self._sockets.append(sock)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._sockets):
            one.close()


def _request(user: str) -> bytes:
    body = json.dumps({"model": "responses-x", "stream": True, "input": "x" * 1024})
    return (
        "POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {settings.key_of(user)}\r\nUser-Agent: a client/1.0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Asked:
    """The gateway, and requests to it that stay."""

    def __init__(self, gateway: inprocess.InProcess) -> None:
        host, _, port = gateway.base_url.removeprefix("http://").partition(":")
        self._place = (host, int(port))
        self._components = components_of(gateway.app)
        self._sockets: list[socket.socket] = []

    async def ask(self, user: str, count: int) -> None:
        """Send *count* more requests of *user*."""
        for _ in range(count):
            sock = socket.create_connection(self._place)
            sock.sendall(_request(user))
            self._sockets.append(sock)
            await asyncio.sleep(0)

    async def answered(self) -> None:
        """Return once each request has the beginning of its answer."""
        for sock in self._sockets:
            sock.setblocking(False)
            while not await asyncio.get_running_loop().sock_recv(sock, 65536):
                pass

    async def waiting(self, user: str, count: int) -> None:
        """Return once *count* requests of *user* wait."""
        await self._until(
            lambda: any(
                one.name == user and one.waiting == count
                for one in self._components.registry.counts("user")
            )
        )

    async def leave(self) -> None:
        """Close every connection; return once nothing is left of the requests."""
        for sock in self._sockets:
            sock.close()
        await self._until(lambda: not self._components.unfinished)

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not reached():
                await asyncio.sleep(0.02)


async def held_bytes(folder: Path, user: str) -> float:
    """What each request of *user* takes."""
    upstream = SilentUpstream()
    account = {
        "name": "responses",
        "protocol": "responses",
        "base_url": upstream.base_url,
        "api_key": "env:TEST_KEY_RESPONSES",
    }
    users = [
        settings.user("alice", max_concurrent=0),
        settings.user("bob", max_concurrent=1, max_queued=COUNT + 10),
    ]
    config = {"users": users, "upstream": {"client_gone_drain_s": 0.0}}
    async with inprocess.running(folder, [account], **config) as gateway:
        asked = Asked(gateway)
        try:
            await asked.ask(user, 5)
            await (asked.answered() if user == "alice" else asked.waiting(user, 4))
            gc.collect()  # and with it the free lists, whose objects are not counted
            tracemalloc.start(1)
            before, _ = tracemalloc.get_traced_memory()
            await asked.ask(user, COUNT)
            if user == "alice":
                await asked.answered()
            else:
                await asked.waiting(user, 4 + COUNT)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            await asked.leave()
            upstream.close()
    return (held - before) / COUNT


@pytest.mark.parametrize(
    ("user", "most_bytes"),
    [
        pytest.param("alice", 25_500, id="an-open-stream"),
        pytest.param("bob", 16_500, id="a-waiting-request"),
    ],
)
def test_what_a_request_holds_has_a_bound(
    tmp_path: Path, user: str, most_bytes: int
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(held_bytes(tmp_path, user))

    assert 5_000 < held <= most_bytes
