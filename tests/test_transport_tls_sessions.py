"""A further connection to a server goes on with the session of an earlier one."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest

from gateway.transport import tls_sessions
from gateway.transport.tls import TlsStream
from gateway.transport.tls_sessions import (
    MAX_AGE_S,
    MAX_SERVERS,
    MIN_PAUSE_S,
    ServerSession,
    TlsSessions,
)
from tests.test_transport_tls import Above, Below
from tests.transport_peer import client_tls, server_tls


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """
    A server and its clients, without sockets.

    Attributes:
        context: makes its tickets, and reads its own alone.
        session: what the clients share.
    """

    def __init__(self, *, newest: bool = True) -> None:
        self.newest = newest
        self.context = server_tls("127.0.0.1", newest=newest)
        self.clients = client_tls()
        self.clock = Clock()
        self.session = ServerSession(self.clock)

    def restart(self) -> None:
        """Forget the keys of the tickets."""
        self.context = server_tls.__wrapped__("127.0.0.1", newest=self.newest)

    def connect(self, *, fails: bool = False) -> ssl.SSLObject:
        """A connection with an answer, which has ended; its TLS object."""
        above, below = Above(), Below()
        stream = TlsStream(self.clients, "127.0.0.1", above, self.session)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = self.context.wrap_bio(incoming, outgoing, server_side=True)
        stream.connection_made(below)
        for _ in range(0 if fails else 3):
            incoming.write(below.written)
            below.written = b""
            with suppress(ssl.SSLWantReadError):
                peer.do_handshake()
            if data := outgoing.read():
                stream.data_received(data)
        if not fails:
            peer.write(b"answer")
            stream.data_received(outgoing.read())
            assert above.received == [b"answer"]
        stream.connection_lost(None)
        tls: ssl.SSLObject = stream.get_extra_info("ssl_object")
        return tls


@pytest.mark.parametrize("newest", [True, False], ids=["1.3", "1.2"])
def test_a_further_connection_resumes_the_session(newest: bool) -> None:
    server = Server(newest=newest)

    reused = [bool(server.connect().session_reused) for _ in range(4)]

    assert [False, True, True, True] == reused


def test_a_server_that_does_not_know_the_session_gives_another() -> None:
    server = Server()
    server.connect()
    server.restart()
    server.clock.now += MIN_PAUSE_S

    assert not server.connect().session_reused
    assert server.connect().session_reused


def test_a_server_that_never_knows_it_is_seldom_asked() -> None:
    """To copy a session out of OpenSSL costs a third of a handshake."""
    server = Server()
    server.connect()
    server.restart()

    server.connect()

    assert server.session.offer() is None
    server.clock.now += MIN_PAUSE_S
    server.connect()
    assert server.session.offer() is not None


def test_a_certificate_is_checked_again_after_an_hour() -> None:
    server = Server()
    server.connect()
    server.clock.now += MAX_AGE_S
    assert server.connect().session_reused

    server.clock.now += 1

    assert not server.connect().session_reused
    assert server.connect().session_reused


def test_a_handshake_that_fails_with_a_session_is_the_last() -> None:
    server = Server()
    server.connect()
    assert server.session.offer() is not None

    server.connect(fails=True)

    assert server.session.offer() is None
    assert not server.connect().session_reused


def test_a_handshake_that_fails_without_a_session_drops_none() -> None:
    server = Server()
    session = ServerSession(server.clock)
    server.connect()
    kept = server.session.offer()

    server.session.connection_ended(server.connect(), None, False)
    session.connection_ended(server.connect(), kept, False)

    assert server.session.offer() is kept and session.offer() is None


def test_each_server_has_its_own_and_there_are_not_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_sessions, "MAX_SERVERS", 2)
    sessions = TlsSessions()
    first = sessions.of("a", 1)

    assert first is sessions.of("a", 1) and first is not sessions.of("a", 2)
    assert sessions.of("b", 1) is not first
    assert sessions.of("a", 1) is not first
    assert MAX_SERVERS >= 100
