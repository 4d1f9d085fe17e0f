"""
Whatever becomes of stdout and stderr, requests are served and the exit is true.

The daemon runs as it does in production, in a process of its own; the test holds the
other end of its log.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit import answers, settings
from tests.kit.asking import Client
from tests.kit.daemon import ROOT, Daemon
from tests.kit.scripted import ScriptedUpstream

LOST = "gateway_log_lines_lost_total"


@dataclass
class Running:
    """A daemon whose stdout is the test's own affair."""

    process: asyncio.subprocess.Process
    client: Client

    async def healthy(self) -> bool:
        """Whether it answers at all."""
        try:
            return 200 == (await self.client.send("/healthz", method="GET")).status
        except aiohttp.ClientError:
            return False

    async def lost(self) -> float:
        """How many lines it says it has lost."""
        reply = await self.client.send("/metrics", method="GET")
        for line in reply.body.decode().splitlines():
            if line.startswith(LOST + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError("the metric is not there")

    async def serves_everybody(self, rounds: int = 1) -> None:
        """Every protocol, stream and whole, gets its answer."""
        for _ in range(rounds):
            for protocol in answers.PROTOCOLS:
                for stream in (True, False):
                    model = f"{protocol}-x"
                    reply = await self.client.ask(protocol, model, stream=stream)
                    assert (200, False) == (reply.status, reply.broken)

    async def stopped(self) -> tuple[int, str]:
        """Its exit status after SIGTERM, and what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            _, stderr = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, (stderr or b"").decode()


@asynccontextmanager
async def running(
    folder: Path,
    upstream: ScriptedUpstream,
    stdout: int | None,
    *,
    closes: str = "",
) -> AsyncIterator[Running]:
    """
    Args:
        closes: what a shell closes before the start: ">&-" is stdout, "2>&-" stderr.
    """
    accounts = settings.accounts(upstream)
    daemon = Daemon(folder, accounts)
    serve = [sys.executable, "-m", "gateway", "serve", "--config"]
    shell = ["sh", "-c", f'exec "$@" {closes}', "sh"] if closes else []
    process = await asyncio.create_subprocess_exec(
        *[*shell, *serve, str(daemon.config_file)],
        cwd=ROOT,
        env={**os.environ, **settings.environment(accounts)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with aiohttp.ClientSession() as session:
            client = Client(daemon.base_url, settings.key_of("alice"), session)
            one = Running(process, client)
            async with asyncio.timeout(30):
                while not await one.healthy():
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            yield one
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def small_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    return reader, writer


async def test_a_log_whose_reader_has_gone_costs_lines_alone(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    async with running(tmp_path, upstream, writer) as gateway:
        os.close(writer)
        await gateway.serves_everybody()
        os.close(reader)
        await gateway.serves_everybody()
        async with asyncio.timeout(20):
            while await gateway.lost() < 6:
                await asyncio.sleep(0.05)

        assert await gateway.healthy()
        assert (0, "") == await gateway.stopped()


@pytest.mark.parametrize(
    ("place", "closes"),
    [
        pytest.param("/dev/full", "", id="disk-full"),
        pytest.param(None, ">&-", id="stdout-closed"),
        pytest.param(None, ">&- 2>&-", id="stdout-and-stderr-closed"),
        pytest.param(None, "<&- >&- 2>&-", id="all-closed"),
    ],
)
async def test_a_log_that_cannot_be_written_costs_lines_alone(
    upstream: ScriptedUpstream, tmp_path: Path, place: str | None, closes: str
) -> None:
    stdout = os.open(place, os.O_WRONLY) if place else None
    try:
        async with running(tmp_path, upstream, stdout, closes=closes) as gateway:
            await gateway.serves_everybody()
            async with asyncio.timeout(20):
                while await gateway.lost() < 6:
                    await asyncio.sleep(0.05)
            assert (0, "") == await gateway.stopped()
    finally:
        if stdout is not None:
            os.close(stdout)


async def test_without_stderr_the_log_is_whole(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w+b") as log:
        async with running(tmp_path, upstream, log.fileno(), closes="2>&-") as gateway:
            await gateway.serves_everybody()
            assert 0 == await gateway.lost()
            assert (0, "") == await gateway.stopped()
        log.seek(0)
        lines = [json.loads(line) for line in log]

    events = [line["event"] for line in lines]
    assert 6 == events.count("request.finished")
    assert ("server.started", "server.stopped") == (events[0], events[-1])


async def test_a_reader_that_stands_still_holds_up_no_request(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """What waits for it is there once it reads on."""
    reader, writer = small_pipe()
    async with running(tmp_path, upstream, writer) as gateway:
        os.close(writer)
        await gateway.serves_everybody(rounds=3)
        assert await gateway.healthy()
        lost = await gateway.lost()
        parts: list[bytes] = []
        reading = asyncio.create_task(asyncio.to_thread(drain, reader, parts))
        assert (0, "") == await gateway.stopped()
        await reading

    events = [json.loads(line)["event"] for line in b"".join(parts).splitlines()]
    assert 0 == lost
    assert 18 == events.count("request.finished")
    assert "server.stopped" == events[-1]


async def test_a_reader_that_never_reads_does_not_hold_up_the_stop(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    reader, writer = small_pipe()
    async with running(tmp_path, upstream, writer) as gateway:
        os.close(writer)
        await gateway.serves_everybody(rounds=3)

        assert (0, "") == await gateway.stopped()
    os.close(reader)


def drain(fd: int, parts: list[bytes]) -> None:
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    os.close(fd)


STRAY = """
import asyncio, logging, threading, warnings
from gateway.telemetry import log
from gateway.telemetry import log_routes

log.set_up()
log_routes.take_over()
warnings.warn("this is odd")
logging.getLogger("a.library").error("not %d", "a number")

class Bad:
    def __str__(self):
        raise ValueError("no text")
    def __del__(self):
        raise ValueError("in a finaliser")

logging.getLogger("a.library").error(Bad())

async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: 1 / 0)
    loop.call_exception_handler({"message": "from a callback", "exception": Bad})
    loop.call_exception_handler({"message": Bad()})
    await asyncio.sleep(0.01)
    log.get().info("loop.survived")

asyncio.run(main())

def work():
    raise ValueError("in a thread")

thread = threading.Thread(target=work)
thread.start()
thread.join()
log.get().info("odd", value=Bad())
raise ValueError("not caught")
"""


@pytest.mark.parametrize("closes", ["", "2>&-"], ids=["open", "stderr-closed"])
async def test_what_was_not_meant_for_the_log_is_a_line_too(closes: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$@" {closes}', "sh"),
        *(sys.executable, "-c", STRAY),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate()
    lines: list[dict[str, Any]] = [json.loads(one) for one in stdout.splitlines()]

    assert b"" == stderr
    assert 1 == process.returncode
    events = [line["event"] for line in lines]
    assert {
        "library.logged",
        "loop.survived",
        "thread.crashed",
        "exception.ignored",
        "process.crashed",
    } <= set(events)
    assert "process.crashed" == events[-1]
    assert lines[-1]["exception"].endswith("ValueError: not caught")
    said = " ".join(line.get("message", "") for line in lines)
    assert "this is odd" in said
    assert "Exception in callback" in said
