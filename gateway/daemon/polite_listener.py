"""
Accepting beside other workers, from listeners that all of them have.

A worker that has more connections than the least laden steps back for a moment; what
is still there then it takes, since the others are busy. So connections are spread
evenly, none is lost when a worker ends, and a worker that stands still accepts none.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from gateway.daemon.http_server import HttpServer
from gateway.daemon.load_page import LoadPage

STEP_BACK_S = 0.002
SHORTAGE_S = 0.1  # until the next try when the system refuses a connection


class PoliteListener:
    """
    Args:
        sockets: which are not closed here.
        server: serves the connections.
        page: the loads of all workers.
        on_refused: called with the system's refusal of a connection.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        server: HttpServer,
        page: LoadPage,
        on_refused: Callable[[OSError], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._server = server
        self._page = page
        self._on_refused = on_refused
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._beginning: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Accept from now on."""
        self._server.on_counted = self._count
        self._count()
        for sock in self._sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def stop(self) -> None:
        """Accept no more; what waits in the listeners is the others'."""
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
        for timer in self._timers.values():
            timer.cancel()
        self._server.on_counted = lambda: None
        self._page.leave()

    def _count(self) -> None:
        self._page.write(self._server.connected + len(self._beginning))

    def _readable(self, sock: socket.socket) -> None:
        if self._page.is_least:
            self._accept(sock)
        else:
            self._step_back(sock, STEP_BACK_S)

    def _step_back(self, sock: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(sock.fileno())
        self._timers[sock] = self._loop.call_later(seconds, self._return, sock)

    def _return(self, sock: socket.socket) -> None:
        del self._timers[sock]
        if self._accept(sock):
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def _accept(self, sock: socket.socket) -> bool:
        """Take a connection, if there is one; False while the system refuses it."""
        try:
            taken, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return True
        except OSError as error:  # no descriptor is left
            self._on_refused(error)
            self._step_back(sock, SHORTAGE_S)
            return False
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._server, taken), name="accepted"
        )
        self._beginning.add(task)
        task.add_done_callback(self._begun)
        self._count()
        return True

    def _begun(self, task: asyncio.Task[object]) -> None:
        self._beginning.discard(task)
        if not task.cancelled() and task.exception() is None:
            self._count()
