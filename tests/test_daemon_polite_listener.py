"""Who gets a connection, where several workers accept from one listener."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.daemon.load_page import ABSENT, LoadPage, make_page, mark_absent
from gateway.daemon.polite_listener import PoliteListener


class CountingServer:
    """What a worker serves connections with: it counts them."""

    def __init__(self) -> None:
        self.connected = 0
        self.on_counted: Callable[[], object] = lambda: None

    def __call__(self) -> asyncio.Protocol:
        server = self

        class Connection(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                server.connected += 1
                server.on_counted()

            def connection_lost(self, exc: BaseException | None) -> None:
                server.connected -= 1
                server.on_counted()

        return Connection()


class Workers:
    """Some workers in one process, with one listener and one page."""

    def __init__(self, count: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.page = make_page()
        self.refusals: list[OSError] = []
        self.servers = [CountingServer() for _ in range(count)]
        self.copies = [self.listener.dup() for _ in range(count)]
        self.accepting = [self._worker(n, self.copies[n]) for n in range(count)]
        self.clients: list[socket.socket] = []

    def _worker(self, slot: int, sock: Any) -> PoliteListener:
        page = LoadPage(os.dup(self.page), slot)
        server: Any = self.servers[slot]
        return PoliteListener([sock], server, page, self.refusals.append)

    @property
    def counts(self) -> list[int]:
        return [server.connected for server in self.servers]

    def loads(self) -> list[int]:
        data = os.pread(self.page, 4 * len(self.servers), 0)
        return list(memoryview(data).cast("I"))

    async def connect(self, count: int) -> None:
        """*count* connections at once; returns when all are served, and all look."""
        for _ in range(count):
            client = socket.create_connection(self.listener.getsockname())
            self.clients.append(client)
        async with asyncio.timeout(10):
            while sum(self.counts) < len(self.clients) or self._begin:
                await asyncio.sleep(0.001)

    @property
    def _begin(self) -> bool:
        """Whether one is being begun, or a worker has stepped back from one."""
        return any(one._beginning or one._timers for one in self.accepting)

    async def hang_up(self) -> None:
        """All clients leave."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        async with asyncio.timeout(10):
            while sum(self.counts):
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        for one in self.accepting:
            one.stop()
        await self.hang_up()
        for sock in (self.listener, *self.copies):
            sock.close()
        os.close(self.page)


@asynccontextmanager
async def workers(count: int, accept: int | None = None) -> AsyncIterator[Workers]:
    """*count* workers, of which the first *accept* accept."""
    some = Workers(count)
    for one in some.accepting[:accept]:
        one.start()
    try:
        yield some
    finally:
        await some.close()


@pytest.mark.parametrize("at_once", [1, 24])
async def test_connections_are_spread_evenly(at_once: int) -> None:
    async with workers(4) as some:
        for _ in range(24 // at_once):
            await some.connect(at_once)

        assert [6, 6, 6, 6] == some.counts == some.loads()


async def test_the_ends_of_connections_count() -> None:
    async with workers(2) as some:
        await some.connect(8)
        await some.hang_up()
        await some.connect(6)

        assert [3, 3] == some.counts


async def test_one_that_stands_still_costs_the_others_nothing() -> None:
    """Its number stays the least; after a moment the others take what is there."""
    async with workers(3, accept=2) as some:
        LoadPage(os.dup(some.page), 2).write(0)
        await some.connect(10)

        assert [5, 5, 0] == some.counts


async def test_one_that_has_ended_or_leaves_is_not_waited_for() -> None:
    async with workers(3) as some:
        await some.connect(6)
        some.accepting[2].stop()
        assert [2, 2, ABSENT] == some.loads()
        await some.connect(4)
        assert [4, 4, 2] == some.counts
        mark_absent(some.page, 1)
        assert [4, ABSENT, ABSENT] == some.loads()


class Refusing:
    """A listener that the system takes no connection from, so many times."""

    def __init__(self, listener: socket.socket, times: int) -> None:
        self._listener, self._times = listener, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def accept(self) -> Any:
        if self._times:
            self._times -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._listener.accept()


async def test_a_refusal_of_the_system_is_noted_and_tried_again() -> None:
    async with workers(1, accept=0) as some:
        refusing = some._worker(0, Refusing(some.listener, 2))
        refusing.start()
        await some.connect(3)
        refusing.stop()

        assert [errno.EMFILE] * 2 == [error.errno for error in some.refusals]
        assert [3] == some.counts
