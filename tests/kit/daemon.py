"""The real daemon in a process of its own, with a config and a folder of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit import settings
from tests.kit.logs import Log

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 20.0


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


class Daemon:
    """
    ``python -m gateway serve`` in *folder*.

    Attributes:
        log: what it wrote to stdout; ``stderr`` must stay empty.
        base_url: where it listens, without ``/v1``.
        code: the folder whose ``gateway`` is run.
        program: how Python is called to run it.
    """

    code = ROOT
    program: Sequence[str] = ("-m", "gateway")

    def __init__(
        self, folder: Path, accounts: Sequence[settings.Table], **config: Any
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log = Log()
        self.stderr = ""
        self._accounts = accounts
        self._readers: list[asyncio.Task[None]] = []
        self.listen = [f"127.0.0.1:{self.port}"]
        self.configure(**config)

    @property
    def config_file(self) -> Path:
        return self.folder / "config.toml"

    def configure(self, **config: Any) -> None:
        """Write the config; a running daemon reads it on SIGHUP."""
        config.setdefault("accounts", self._accounts)
        config.setdefault("listen", self.listen)
        self.config_file.write_text(settings.config_text(**config))

    @property
    def pid(self) -> int:
        """The parent's, which signals go to."""
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """The processes that serve or finish, the one that was started last is last."""
        started = [line["pid"] for line in self.log.events("worker.started")]
        ended = {line["pid"] for line in self.log.events("worker.ended")}
        return [pid for pid in started if pid not in ended]

    @property
    def worker_pid(self) -> int:
        """The one that serves."""
        return int(self.workers[-1])

    async def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and return once it takes work."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.program,
            "serve",
            "--config",
            str(self.config_file),
            cwd=self.code,
            env={**os.environ, **settings.environment(self._accounts)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._readers = [
            asyncio.create_task(self._read_log()),
            asyncio.create_task(self._read_stderr()),
        ]
        await self.log.wait_for(
            lambda: self.log.events("worker.started") or self._over(),
            "the daemon did not start",
            timeout_s,
        )
        assert not self._over(), (self.log.text, self.stderr)

    def _over(self) -> bool:
        return self.process.returncode is not None

    async def _read_log(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(1 << 16):
            self.log.write(data.decode())

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(1 << 16):
            self.stderr += data.decode()

    async def command(self, *words: str) -> tuple[int, str]:
        """``gateway WORDS --config …`` beside it: the exit status and stdout."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            *words,
            "--config",
            str(self.config_file),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, _ = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode or 0, stdout.decode()

    async def waiting(self, user: str, number: int) -> None:
        """Return once *number* requests of *user* wait for a slot."""
        line = f'gateway_queue_waiting{{name="{user}",scope="user"}} {number:.1f}'
        url = f"{self.base_url}/metrics"
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            while True:
                async with session.get(url) as response:
                    if line in (await response.text()).splitlines():
                        return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL to all of it: as the loss of the machine leaves it."""
        self.process.kill()  # first: it would start another worker
        for pid in self.workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.exited()

    def terminate(self) -> None:
        """SIGTERM: finish what is open and go."""
        self.process.send_signal(signal.SIGTERM)

    def reload(self) -> None:
        """SIGHUP: read the config again."""
        self.process.send_signal(signal.SIGHUP)

    async def exited(self, timeout_s: float = 20.0) -> int:
        """Its exit status, once it is over and everything that it wrote is read."""
        async with asyncio.timeout(timeout_s):
            status = await self.process.wait()
            await asyncio.gather(*self._readers)
        return status

    async def stop(self) -> int:
        """Stop it for good: politely, then not; its exit status."""
        if not self._over():
            self.terminate()
        try:
            return await self.exited(10.0)
        except TimeoutError:
            await self.kill()
            return self.process.returncode or 0


@asynccontextmanager
async def running(
    folder: Path, accounts: Sequence[settings.Table], **config: Any
) -> AsyncIterator[Daemon]:
    """A daemon for the duration of the block; it must leave a clean stderr."""
    daemon = Daemon(folder, accounts, **config)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()
    assert "" == daemon.stderr
