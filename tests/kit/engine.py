"""A real engine (``redis-server``) for tests, on a unix socket and a port."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.daemon.engine_use import EngineChoice, socket_path

START_S = 10.0


def engine_binary() -> str:
    """The engine's program; the test is skipped, with a word, where there is none."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        pytest.skip("no valkey-server or redis-server (apt install redis-server)")
    return found


class Engine:
    """
    A running engine; *more* are further arguments of the program.

    Attributes:
        url: of its unix socket, without a password.
        choice: for workers of a gateway that would have started it: they know that it
            is new, and wait for no other process.
        port: the same engine over TCP.
    """

    def __init__(self, folder: str, port: int, more: tuple[str, ...]) -> None:
        self.choice = EngineChoice(folder, True)
        self.socket = socket_path(folder)
        self.url = f"unix://{self.socket}"
        self.port = port
        self._folder, self._more = folder, more
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def start(self) -> None:
        """Start it, empty, and wait until it listens."""
        with suppress(FileNotFoundError):
            os.unlink(self.socket)
        arguments = ["--port", str(self.port), "--unixsocket", self.socket]
        arguments += ["--save", "", "--appendonly", "no", "--dir", self._folder]
        arguments += ["--bind", "127.0.0.1", "--maxmemory-policy", "noeviction"]
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                # Once more where it ended: a connection of others may have its port.
                self._process = subprocess.Popen(
                    [engine_binary(), *arguments, *self._more],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(self.socket)
                return
            time.sleep(0.005)
        raise AssertionError("the engine does not listen")

    def kill(self) -> None:
        """End it at once, as a crash would; nothing of what it held is kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._stopped = False

    def pause(self) -> None:
        """Let it stand still: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._stopped = True

    def resume(self) -> None:
        """End a ``pause``."""
        if self._stopped and self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._stopped = False


@contextmanager
def running_engine(*more: str) -> Iterator[Engine]:
    """An engine for the block; *more* are further arguments of the program."""
    with TemporaryDirectory(prefix="gw-engine") as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        engine = Engine(folder, port, more)
        engine.start()
        try:
            yield engine
        finally:
            engine.kill()


class CutProxy:
    """
    A TCP proxy to the engine that can drop what passes.

    Attributes:
        silent: what comes from either side is swallowed; the connections stay.
    """

    def __init__(self, target: Path | str) -> None:
        self._target = str(target)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving = 0
        self.silent = False
        self.port = 0

    async def __aenter__(self) -> CutProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        while self._serving:
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Of the engine, by way of the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._serving += 1
        self._writers.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._target)
            self._writers.add(up_writer)
            await asyncio.gather(
                self._pump(reader, up_writer), self._pump(up_reader, writer)
            )
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._serving -= 1

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
