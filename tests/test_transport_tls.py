"""TLS of our own: what a peer's records, alerts and ends become."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer, tls_context
from gateway.transport.http_transport import HttpTransport
from gateway.transport.tls import RECORD_BYTES, TlsStream
from tests.transport_peer import (
    CHUNKED,
    chunk,
    client_tls,
    no_crash_of_ours,
    post,
    server_tls,
)

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
Script = Callable[[ssl.SSLSocket, socket.socket], None]


@asynccontextmanager
async def peer(script: Script) -> AsyncIterator[URL]:
    """
    A TLS server in a thread that plays *script* after one request.

    The script gets the socket twice: with TLS and without, for what TLS would not do.
    """

    def serve() -> None:
        plain, _ = listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with plain.dup() as below:
            try:
                with server_tls("127.0.0.1").wrap_socket(
                    plain, server_side=True
                ) as sock:
                    sock.recv(65536)
                    script(sock, below)
            except OSError as error:
                errors.append(error)

    errors: list[OSError] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield URL(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        await asyncio.to_thread(thread.join)
    assert errors == []


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(ConnectionPool(Dialer(client_tls())))
    with no_crash_of_ours():
        yield transport
        await transport.stop()
    assert not transport.pool.live


async def outcome(transport: HttpTransport, url: URL) -> tuple[bytes, str]:
    """The body as far as it came, and the code of the failure after it."""
    response = await post(transport, url)
    body, code = b"", ""
    try:
        while piece := await response.read():
            body += piece
    except UpstreamError as error:
        code = error.code
    response.close()
    return body, code


def says_goodbye(sock: ssl.SSLSocket, below: socket.socket) -> None:
    with suppress(OSError):  # the gateway closes without a goodbye of its own
        sock.unwrap()


def just_closes(sock: ssl.SSLSocket, below: socket.socket) -> None:
    below.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("end", [says_goodbye, just_closes])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(UNTIL_CLOSE + b"abc", (b"abc", ""), id="until-close"),
        pytest.param(CHUNKED + chunk(b"abc"), (b"abc", "upstream_cut"), id="chunked"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            (b"abc", "upstream_cut"),
            id="sized",
        ),
    ],
)
async def test_an_end_with_and_without_a_goodbye(
    transport: HttpTransport, end: Script, answer: bytes, expected: tuple[bytes, str]
) -> None:
    def script(sock: ssl.SSLSocket, below: socket.socket) -> None:
        sock.sendall(answer)
        end(sock, below)

    async with peer(script) as url:
        assert await outcome(transport, url) == expected


async def test_what_came_before_a_broken_record_is_delivered(
    transport: HttpTransport,
) -> None:
    def script(sock: ssl.SSLSocket, below: socket.socket) -> None:
        sock.sendall(CHUNKED + chunk(b"abc"))
        below.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        below.recv(1000)

    async with peer(script) as url:
        assert await outcome(transport, url) == (b"abc", "upstream_reset")


class Above(asyncio.Protocol):
    """A protocol that keeps what it gets."""

    def __init__(self) -> None:
        self.is_connected = False
        self.received: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_connected = True

    def data_received(self, data: bytes) -> None:
        self.received.append(data)


class Below(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


class Memory:
    """A TLS stream and its peer without a socket between them."""

    def __init__(self, early: bytes = b"") -> None:
        """*early*: the peer writes it behind its last bytes of the handshake."""
        self.above, self.below = Above(), Below()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_tls("127.0.0.1", newest=not early)
        self.peer = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.stream = TlsStream(client_tls(), "127.0.0.1", self.above)
        self.stream.connection_made(self.below)
        for _ in range(3):
            self.carry()
            with suppress(ssl.SSLWantReadError):
                self.peer.do_handshake()
                early = early[self.peer.write(early) :] if early else b""
            if data := self.outgoing.read():
                self.stream.data_received(data)
        assert self.above.is_connected

    def carry(self) -> None:
        """Bring to the peer what the stream has written."""
        self.incoming.write(self.below.written)
        self.below.written = b""

    def encrypted(self, data: bytes) -> bytes:
        """What the peer writes for *data*."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.peer.write(rest) :]
        return self.outgoing.read()


@pytest.mark.parametrize("cut", [1, 5, 6, 20])
def test_a_record_may_come_in_two_packets(cut: int) -> None:
    memory = Memory()
    record = memory.encrypted(b"hello")
    memory.stream.data_received(record[:cut])
    assert memory.above.received == []
    memory.stream.data_received(record[cut:])

    assert memory.above.received == [b"hello"]


def test_bytes_behind_the_handshake_are_delivered_at_once() -> None:
    """They may come in the same packet (TLS 1.2)."""
    assert Memory(early=b"220 ready").above.received == [b"220 ready"]


def test_what_one_read_brings_is_one_piece() -> None:
    """However many records it takes, the last one cut."""
    memory = Memory()
    body = bytes(range(256)) * 4 * 256
    records = memory.encrypted(body)
    memory.stream.data_received(records[:-1])
    memory.stream.data_received(records[-1:])

    assert len(body) == 16 * RECORD_BYTES
    assert memory.above.received == [body[:-RECORD_BYTES], body[-RECORD_BYTES:]]


def test_what_is_longer_than_a_record_is_written_whole() -> None:
    memory = Memory()
    body = bytes(range(256)) * 1000
    memory.stream.write(body)
    memory.carry()
    got = b""
    while len(got) < len(body):
        got += memory.peer.read(65536)

    assert got == body


async def test_a_peer_is_sent_the_reason_why_its_certificate_is_refused() -> None:
    """An operator of an upstream or a proxy looks for it in the peer's own log."""
    reasons: list[str] = []

    def serve() -> None:
        plain, _ = listener.accept()
        try:
            server_tls("127.0.0.1").wrap_socket(plain, server_side=True).recv(1)
        except ssl.SSLError as error:
            reasons.append(error.reason)

    transport = HttpTransport(ConnectionPool(Dialer(tls_context())))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(UpstreamError) as caught:
            await post(transport, URL(f"https://127.0.0.1:{listener.getsockname()[1]}"))
        await transport.stop()
        await asyncio.to_thread(thread.join)

    assert "CERTIFICATE_VERIFY_FAILED" in caught.value.detail
    assert reasons == ["TLSV1_ALERT_UNKNOWN_CA"]


def test_a_peer_cannot_ask_for_another_handshake() -> None:
    """It would have to be served in the midst of a write."""
    assert tls_context().options & ssl.OP_NO_RENEGOTIATION
