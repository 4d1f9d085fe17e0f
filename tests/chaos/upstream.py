"""
The one upstream of all nodes: it counts what really runs.

A request runs from the moment that it is whole here until its answer is, or until the
gateway has closed its connection. That is asked of the kernel whenever a request comes:
a connection that was closed before is no overlap, however late its end is read here.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import Any

from tests.chaos.journal import Journal, Served
from tests.kit import plays
from tests.kit.received import Received
from tests.kit.scripted import Exchange, Play, ScriptedUpstream, _Wire

RUN_S = (0.3, 1.5)
PIECES = 4


class CountingUpstream(ScriptedUpstream):
    """
    Attributes:
        out: the accounts that answer badly now, with the play.
    """

    def __init__(self, journal: Journal, seed: int) -> None:
        super().__init__(default=plays.ok())
        self._journal = journal
        self._chance = random.Random(seed)
        self._here: dict[_Wire, Served] = {}
        self.out: dict[str, Play] = {}

    def choose(self, request: Received) -> Play:
        if not request.protocol:
            return super().choose(request)
        if bad := self.out.get(request.account):
            return bad
        interval_s = self._chance.uniform(*RUN_S) / PIECES
        return plays.ok(interval_s=interval_s)

    async def play(self, wire: Any, request: Received) -> None:
        self._settle()
        user, node, ident = request.model.split("_")[1:4]
        one = Served(ident, request.account, user, int(node), time.monotonic())
        self._journal.served.append(one)
        self._here[wire] = one
        try:
            await self.choose(request)(_Noting(wire, request, one))
        except ConnectionResetError:
            one.cut = True
        except asyncio.CancelledError:
            one.cut = True
            raise
        finally:
            one.ended = min(one.ended, time.monotonic())
            if self._here.get(wire) is one:
                del self._here[wire]
            request.over.set()

    def _settle(self) -> None:
        """End what the gateway has closed already."""
        now = time.monotonic()
        for wire, one in list(self._here.items()):
            if _closed(wire):
                one.ended, one.cut = min(one.ended, now), True
                del self._here[wire]


def _closed(wire: _Wire) -> bool:
    transport = wire._transport
    if transport.is_closing():
        return True
    sock = transport.get_extra_info("socket")
    try:
        with socket.socket(fileno=socket.dup(sock.fileno())) as copy:
            return copy.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Noting(Exchange):
    """An exchange whose request is over when its last byte is written."""

    def __init__(self, wire: _Wire, request: Received, one: Served) -> None:
        super().__init__(wire, request)
        self._one = one

    async def send(self, data: bytes) -> None:
        if b"[DONE]" in data or b"response.completed" in data:
            self._one.ended = time.monotonic()
        await super().send(data)

    async def reply(
        self, status: int, data: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self._one.ended = time.monotonic()
        await super().reply(status, data, headers)
