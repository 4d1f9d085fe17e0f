"""Sockets that this process cannot create: its own failure, logged once."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from yarl import URL

from gateway.errors import CODES, GatewayError, Overloaded, UpstreamError
from gateway.telemetry import log as gateway_log
from gateway.telemetry.redaction import Redaction
from gateway.transport import shortage
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer, literal_address
from gateway.transport.http_transport import HttpTransport
from gateway.transport.request import Origin
from gateway.transport.shortage import OWN_ERRORS, Shortage
from tests.kit.inprocess import logging_to
from tests.kit.logs import Log
from tests.transport_peer import client_tls, replays, sized, upstream

CREATION = sorted(OWN_ERRORS - {errno.EADDRNOTAVAIL})


class Sockets:
    """``socket.socket`` that fails with *error* from the *after*-th one on."""

    def __init__(self) -> None:
        self.error = 0
        self.after = 0
        self._real = socket.socket

    def __call__(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        if self.error and self.after <= 0:
            raise OSError(self.error, os.strerror(self.error))
        self.after -= 1
        return self._real(family, kind, protocol)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    class Module:
        SOCK_DGRAM = socket.SOCK_DGRAM
        socket = Sockets()

    monkeypatch.setattr(shortage, "socket", Module)
    return Module.socket


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    # Secrets of other tests may be words of the system's messages.
    monkeypatch.setattr(gateway_log, "_redaction", Redaction())
    with logging_to(Log()) as log:
        yield log


@pytest.fixture
def transport() -> HttpTransport:
    return HttpTransport(ConnectionPool(Dialer(client_tls())))


async def failure(transport: Any, url: URL) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        reply = await transport.open(
            "POST", url, [], b"{}", connect_timeout_s=5, idle_timeout_s=5
        )
        reply.close()
    return caught.value


@pytest.mark.parametrize("number", CREATION, ids=[errno.errorcode[n] for n in CREATION])
async def test_a_socket_that_cannot_be_created_blames_no_upstream(
    transport: Any, sockets: Sockets, log: Log, number: int
) -> None:
    sockets.error = number
    async with upstream(replays(sized(b"well"))) as server:
        error = await failure(transport, server.url)
        assert (503, "gateway_overloaded", "gateway") == (
            error.status,
            error.code,
            error.origin,
        )
        assert 1 == error.retry_after_s
        sockets.error = 0
        reply = await transport.open(
            "POST", server.url, [], b"{}", connect_timeout_s=5, idle_timeout_s=5
        )
        assert b"well" == await reply.body(1000)
        reply.close()
    await transport.stop()


async def test_the_second_of_two_addresses_could_not_be_tried(
    transport: Any, sockets: Sockets, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first refuses; what hid the shortage behind it is no excuse."""

    def addresses(host: str, port: int, **_: object) -> list[object]:
        return [
            *literal_address(Origin("http", "127.0.0.1", port)),
            *literal_address(Origin("http", "127.0.0.2", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    sockets.error, sockets.after = errno.EMFILE, 1
    async with upstream(replays()) as server:
        pass
    error = await failure(transport, server.url.with_host("both.test"))

    assert "gateway_overloaded" == error.code
    await transport.stop()


async def test_the_resolver_runs_out_too(
    transport: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def addresses(host: str, port: int, **_: object) -> list[object]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    error = await failure(transport, URL("http://up.test/"))

    assert "gateway_overloaded" == error.code
    await transport.stop()


async def test_a_missing_descriptor_that_the_c_library_hides_is_found(
    transport: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def addresses(host: str, port: int, **_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    def no_more(*args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_more)
        error = await failure(transport, URL("http://up.test/"))
    assert "gateway_overloaded" == error.code
    error = await failure(transport, URL("http://up.test/"))

    assert "upstream_connect" == error.code
    await transport.stop()


@pytest.mark.parametrize("route", [True, False])
async def test_no_local_port_is_a_shortage_and_no_route_is_none(
    sockets: Sockets, log: Log, monkeypatch: pytest.MonkeyPatch, route: bool
) -> None:
    """Both are EADDRNOTAVAIL."""

    class NoPort(socket.socket):
        def connect(self, address: Any) -> None:
            if route and self.type == socket.SOCK_DGRAM:
                return
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    sockets._real = NoPort
    transport = HttpTransport(ConnectionPool(Dialer(client_tls())))
    error = await failure(transport, URL("http://127.0.0.1:9/"))

    assert ("gateway_overloaded" if route else "upstream_connect") == error.code
    await transport.stop()


async def test_an_address_that_refuses_is_the_upstreams_failure(
    transport: Any, log: Log
) -> None:
    async with upstream(replays()) as server:
        pass
    error = await failure(transport, server.url)

    assert isinstance(error, UpstreamError)
    assert [] == log.events("resources.exhausted")
    await transport.stop()


async def test_a_shortage_is_logged_once_with_its_end(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortage, "QUIET_S", 0.05)
    own = Shortage()
    error = OSError(errno.EMFILE, "Too many open files")
    for episode in (1, 2):
        for _ in range(20):
            assert isinstance(own.refusal(error), Overloaded)
        await log.wait_for(
            lambda: len(log.events("resources.recovered")) == episode, "not over"
        )
        assert episode == len(log.events("resources.exhausted"))

    assert "Too many open files" == log.events("resources.exhausted")[0]["detail"]


async def test_a_compiled_module_that_cannot_be_opened_is_a_shortage(log: Log) -> None:
    pool = Shortage()
    pool.note(ImportError("_core.so: cannot open shared object file"))
    pool.stop()

    (line,) = log.events("resources.exhausted")
    assert "_core.so: cannot open shared object file" == line["detail"]


async def test_a_shortage_that_lasts_sends_clients_away_for_longer(log: Log) -> None:
    loop = asyncio.get_running_loop()
    own = Shortage()
    error = OSError(errno.EMFILE, "Too many open files")
    assert 1 == own.refusal(error).retry_after_s
    own._began_at = loop.time() - 20

    assert own.refusal(error).retry_after_s in (20, 21)
    own.stop()


def test_clients_get_a_503() -> None:
    assert (503, "server_error") == CODES["gateway_overloaded"][:2]
