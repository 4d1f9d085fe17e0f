"""Where an answer ends: nothing behind it counts, and nothing before it is lost."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import uvloop
from yarl import URL

from gateway.transport import connection as connection_file
from gateway.transport.connection import _left_in
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer
from gateway.transport.http_transport import HttpTransport
from tests.transport_peer import (
    CHUNKED,
    LAST_CHUNK,
    Peer,
    chunk,
    client_tls,
    post,
    replays,
    sized,
    until,
    upstream,
)


def direct() -> HttpTransport:
    return HttpTransport(client_tls(), ConnectionPool(Dialer(client_tls())))


BEHIND = {
    "event": b"data: [DONE]\n\n",
    "event-after-blank-line": b"\r\ndata: [DONE]\n\n",
    "chunk": chunk(b"data: [DONE]\n\n") + LAST_CHUNK,
    "answer": sized(b"data: [DONE]\n\n"),
    "answer-until-close": b"HTTP/1.0 200 OK\r\n\r\ndata: [DONE]\n\n",
    "half-a-head": b"HTTP/1.1 200 OK\r\n",
}
CLOSES = "Connection: close\r\n"
ENDED = {
    "sized": (sized(b"abc"), b"abc"),
    "sized-close": (sized(b"abc", CLOSES), b"abc"),
    "empty": (sized(b""), b""),
    "chunked": (CHUNKED + chunk(b"abc") + LAST_CHUNK, b"abc"),
    "chunked-close": (
        CHUNKED.replace(b"\r\n\r\n", b"\r\n" + CLOSES.encode() + b"\r\n")
        + chunk(b"abc")
        + LAST_CHUNK,
        b"abc",
    ),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
}


class TestBehindTheEnd:
    @pytest.mark.parametrize("pumped", [True, False], ids=["pump", "body"])
    @pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
    @pytest.mark.parametrize(("answer", "expected"), ENDED.values(), ids=ENDED)
    async def test_it_is_no_part_of_the_answer(
        self, answer: bytes, expected: bytes, behind: bytes, pumped: bool
    ) -> None:
        """In the same read, or in one that begins inside the answer's last bytes."""
        transport = direct()
        whole = answer + behind
        for first in (whole, answer[:-1], answer):
            rest = whole[len(first) :]

            async def script(peer: Peer) -> None:
                await peer.answer(first)
                if rest:
                    await asyncio.sleep(0.01)
                    await peer.send(rest)
                await peer.gone()

            async with upstream(script, replays(sized(b"next"))) as server:
                reply = await post(transport, server.url)
                got: list[bytes] = []
                if pumped:
                    await reply.pump(got.append)
                else:
                    got.append(await reply.body(1000))
                reply.close()
                await until(lambda: not transport.pool.live)
                second = await post(transport, server.url)
                got_second = await second.body(1000)
                second.close()

                assert (expected, b"next") == (b"".join(got), got_second)
        await transport.stop()

    async def test_a_connection_that_speaks_unasked_is_dropped(self) -> None:
        transport = direct()

        async def script(peer: Peer) -> None:
            await peer.answer(sized(b"abc"))
            await let_go.wait()
            await peer.send(BEHIND["answer"])
            await peer.gone()

        let_go = asyncio.Event()
        async with upstream(script, replays(sized(b"next"))) as server:
            reply = await post(transport, server.url)
            await reply.body(1000)
            reply.close()
            let_go.set()
            await until(lambda: not transport.pool.live)
            second = await post(transport, server.url)

            assert b"next" == await second.body(1000)
            second.close()
        await transport.stop()


@contextmanager
def refusing(read_bytes: int, tls: ssl.SSLContext | None = None) -> Iterator[URL]:
    """
    A server that answers 413 after some of the request and closes over the rest of it,
    which resets the connection. In a thread: it does not wait for our loop.
    """

    def refuse(plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), (
            tls.wrap_socket(plain, server_side=True) if tls else plain
        ) as sock:
            head, left = b"", read_bytes
            while b"\r\n\r\n" not in head:
                head += sock.recv(1000)
            while left > 0:
                left -= len(sock.recv(65536))
            sock.sendall(sized(b"too large", status="413 Too Large"))

    def serve() -> None:
        with suppress(OSError):
            while True:
                refuse(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        scheme = "https" if tls else "http"
        yield URL(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


class TestEarlyRefusal:
    @pytest.mark.parametrize("read_bytes", [0, 3_000_000])
    def test_it_outranks_the_write_that_fails(self, read_bytes: int) -> None:
        """On the loop of the daemon; the reset meets the writing at any moment."""

        async def run() -> None:
            transport = direct()
            with refusing(read_bytes) as url:
                for _ in range(20):
                    reply = await post(transport, url, bytes(8_000_000))
                    assert (413, b"too large") == (reply.status, await reply.body(100))
                    reply.close()
            await transport.stop()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    async def test_what_a_failed_write_left_in_the_socket_is_read(self) -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            right.sendall(b"HTTP/1.1 413")

            assert [b"HTTP/1.1 413"] == list(_left_in(left.fileno()))
            assert [] == list(_left_in(left.fileno()))
            right.sendall(bytes(1000))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(connection_file, "LEFT_BYTES", 100)
                assert [bytes(100)] == list(_left_in(left.fileno()))

    async def test_the_rest_of_a_refused_request_is_not_sent(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(sized(b"too large", status="413 Too Large"))
            await closed.wait()
            received = 0
            while data := await peer.reader.read(65536):
                received += len(data)
            assert received < 50_000_000

        closed = asyncio.Event()
        transport = direct()
        async with upstream(script) as server:
            reply = await post(transport, server.url, bytes(100_000_000))
            assert b"too large" == await reply.body(100)
            reply.close()
            closed.set()
            with suppress(ConnectionError):
                await server.played()
        await transport.stop()
