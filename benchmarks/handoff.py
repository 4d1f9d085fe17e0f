"""
How long a slot takes from one process to another, over a real engine.

    slot   two processes that are admission alone; one slot goes back and forth: from
           its release in the one to the grant in the other
    http   two gateways, an account of one slot, requests that wait at both: from the
           end of an answer at the account to the next request there, which is the other
           gateway's; then the same with one gateway and no engine

    python -m benchmarks.handoff [--count HAND_OFFS] [slot] [http]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import mmap
import multiprocessing
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import peers
from benchmarks.engine import binary, engine
from benchmarks.peers import Program
from gateway.admission.shared_registry import SharedRegistry
from gateway.admission.slot import Holder
from gateway.shared.address import parse_address
from gateway.shared.bus import Bus
from gateway.shared.membership import Membership

HELD_S = 0.002  # so that the other process waits again
CLOCK = struct.Struct("d")
CLIENTS = 3  # of each user

CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
log_format = "json"
[limits]
queue_timeout_s = 60.0
ping_interval_s = 60.0
[ledger]
url = "sqlite:///ledger.db"
[[account]]
name = "one"
protocol = "chat"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "env:BENCH_UPSTREAM_KEY"
max_concurrent = 1
"""
USER = """
[[user]]
name = "{name}"
key_sha256 = ["{key}"]
"""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
HEAD += b"transfer-encoding: chunked\r\n\r\n"
CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
CHUNK += b'"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n'
FIRST = CHUNK % (b'{"role":"assistant","content":"hello"}', b"null")
LAST = CHUNK % (b"{}", b'"stop"') + b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


# --- slot -----------------------------------------------------------------------------


async def _side(url: str, name: str, shared: mmap.mmap, count: int) -> list[float]:
    """Take the one slot *count* times; the seconds since the other gave it back."""
    registry = SharedRegistry()
    engine = Membership(parse_address(url), "handoff", name, registry.side, learn=False)
    registry.attach(engine, Bus(engine))
    registry.set_user("one", 1, 10)
    await engine.start()
    took = []
    for number in range(count):
        holder = Holder(f"{name}-{number}", "one")
        slot = await registry.user_slot("one", holder, time.monotonic() + 30)
        now = time.monotonic()
        [released_at] = CLOCK.unpack_from(shared)
        if released_at:
            took.append(now - released_at)
        await asyncio.sleep(HELD_S)
        CLOCK.pack_into(shared, 0, time.monotonic())
        slot.release()
    await asyncio.sleep(0.5)
    await engine.stop()
    return took


def _run(url: str, name: str, path: str, count: int, out: Any) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), CLOCK.size) as shared:
        out.put(uvloop.run(_side(url, name, shared, count)))


def measure(count: int) -> list[float]:
    """Seconds of each hand-off of a slot, the shortest first."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, engine(Path(name)) as running:
        path = Path(name) / "clock"
        path.write_bytes(CLOCK.pack(0.0))
        out = context.Queue()
        args = [(running.url, n, str(path), count, out) for n in ("a", "b")]
        sides = [context.Process(target=_run, args=one) for one in args]
        for side in sides:
            side.start()
        found = [took for _ in sides for took in out.get(timeout=300)]
        for side in sides:
            side.join()
    return sorted(found)


# --- http -----------------------------------------------------------------------------


class Account(asyncio.Protocol):
    """
    A connection to the account, which answers after ``HELD_S``.

    Args:
        gaps: gets the seconds from the end of an answer to the next request.
        last: when the last answer ended.
    """

    def __init__(self, gaps: list[float], last: list[float]) -> None:
        self._gaps, self._last = gaps, last
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        size = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if not found or len(body) < int(size):
            return
        if self._last[0]:
            self._gaps.append(time.monotonic() - self._last[0])
        self._buffer = b""
        self._transport.write(HEAD + _chunked(FIRST))
        asyncio.get_running_loop().call_later(HELD_S, self._finish)

    def _finish(self) -> None:
        self._last[0] = time.monotonic()
        self._transport.write(_chunked(LAST) + END)


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _client(port: int, user: str, over: asyncio.Event) -> None:
    """Ask again and again, on one connection."""
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}'
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer"
    head += f" sk-{user}\r\ncontent-type: application/json\r\ncontent-length: "
    asked = head.encode() + b"%d\r\n\r\n" % len(body) + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not over.is_set():
        writer.write(asked)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode(errors="replace"))
        await reader.readuntil(END)
    writer.close()


async def _between(ports: Sequence[tuple[int, int]], count: int) -> list[float]:
    """
    The gaps at the account.

    Args:
        ports: of the account, and of the gateway of each user.
    """
    gaps: list[float] = []
    last, over, loop = [0.0], asyncio.Event(), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Account(gaps, last), "127.0.0.1", ports[0][0]
    )
    asking = [
        asyncio.ensure_future(_client(port, user, over))
        for user, (_, port) in zip("ab", ports)
        for _ in range(CLIENTS)
    ]
    while len(gaps) < count + 20 and not any(one.done() for one in asking):
        await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*asking)
    server.close()
    return sorted(gaps[20:])


def _gateway(folder: Path, upstream: int, url: str) -> Program:
    folder.mkdir()
    port = peers.free_port()
    text = CONFIG.format(port=port, upstream=upstream)
    for name in "ab":
        key = hashlib.sha256(f"sk-{name}".encode()).hexdigest()
        text += USER.format(name=name, key=key)
    if url:
        text += f'[shared]\nurl = "{url}"\n'
    (folder / "config.toml").write_text(text)
    command = [sys.executable, "-m", "gateway", "serve", "--config"]
    command.append(str(folder / "config.toml"))
    return Program(folder.name, command, port, "0-1", folder)


def measure_http(count: int, *, processes: int = 2) -> list[float]:
    """Seconds of each hand-off of an account's slot, the shortest first."""
    upstream = peers.free_port()
    with tempfile.TemporaryDirectory() as name, engine(Path(name)) as running:
        url = running.url if processes > 1 else ""
        programs = [
            _gateway(Path(name) / f"gateway-{number}", upstream, url)
            for number in range(processes)
        ]
        ports = [(upstream, programs[n % processes].port) for n in range(2)]
        try:
            return uvloop.run(_between(ports, count))
        finally:
            for program in programs:
                program.stop()


def main() -> None:
    """Measure, and say it in milliseconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handoff")
    parser.add_argument("parts", nargs="*", default=["slot", "http"])
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    if not binary():
        raise SystemExit("no valkey-server or redis-server (apt install redis-server)")
    if "slot" in args.parts:
        say("slot, two processes", measure(args.count // 2))
    if "http" in args.parts:
        say("over HTTP, two gateways", measure_http(args.count))
        one = measure_http(args.count, processes=1)
        say("over HTTP, one gateway, no engine", one)


def say(what: str, found: list[float]) -> None:
    """Print the quantiles of *found* seconds."""
    p50, p99 = (found[int(len(found) * part)] * 1000 for part in (0.5, 0.99))
    print(f"{what}: {len(found)} hand-offs, p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
