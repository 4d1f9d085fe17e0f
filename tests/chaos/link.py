"""
The network between one node and the engine: a TCP proxy that can be bad.

What is held back is delivered later, as TCP does; nothing is lost in the middle of a
connection. A connection that must not go on is reset.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from tests.kit.daemon import free_port

UP, DOWN = "up", "down"
LOSS_S = (0.05, 0.4)  # what a lost packet costs until it is sent again


class Link:
    """
    Args:
        target: the unix socket of the engine.

    Attributes:
        held: the directions in which nothing passes now.
        slow_s: how long each piece takes besides.
        loss: how often a piece is late by a retransmission.
    """

    def __init__(self, target: str, seed: int) -> None:
        self._target = target
        self._chance = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        self.port = free_port()
        self.slow_s = 0.0
        self.loss = 0.0
        self.pass_on()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.cut()

    def pass_on(self) -> None:
        """Everything passes again."""
        self.slow_s = self.loss = 0.0
        for event in self._open.values():
            event.set()

    def hold(self, *directions: str) -> None:
        """Let nothing pass in these directions until ``pass_on``."""
        for direction in directions:
            self._open[direction].clear()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, up_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pump(reader, up_writer, UP), self._pump(up_reader, writer, DOWN)
            )
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open[direction].wait()
                if self._chance.random() < self.loss:
                    await asyncio.sleep(self._chance.uniform(*LOSS_S))
                elif self.slow_s:
                    await asyncio.sleep(self.slow_s)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
