"""
A slot that goes back and forth between two processes over a real engine: how long from
its release in the one to the grant in the other.

    python -m benchmarks.handoff [HAND_OFFS]
"""

from __future__ import annotations

import asyncio
import mmap
import multiprocessing
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from gateway.admission.shared_registry import SharedRegistry
from gateway.admission.slot import Holder
from gateway.shared.address import parse_address
from gateway.shared.bus import Bus
from gateway.shared.membership import Membership

HELD_S = 0.002  # so that the other process waits again
CLOCK = struct.Struct("d")


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
    """Seconds of each hand-off, the shortest first."""
    binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if not binary:
        raise SystemExit("no valkey-server or redis-server (apt install redis-server)")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path, socket = Path(folder) / "clock", Path(folder) / "e.sock"
        path.write_bytes(CLOCK.pack(0.0))
        words = ["--port", "0", "--unixsocket", str(socket), "--save", ""]
        engine = subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                time.sleep(0.01)
            out = context.Queue()
            args = [(f"unix://{socket}", n, str(path), count, out) for n in ("a", "b")]
            sides = [context.Process(target=_run, args=one) for one in args]
            for side in sides:
                side.start()
            found = [took for _ in sides for took in out.get(timeout=300)]
            for side in sides:
                side.join()
        finally:
            engine.kill()
            engine.wait()
    return sorted(found)


def main() -> None:
    """Measure, and say it in milliseconds."""
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    p50, p99 = (found[int(len(found) * part)] * 1000 for part in (0.5, 0.99))
    print(f"{len(found)} hand-offs: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
