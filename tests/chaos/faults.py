"""What each kind of fault does to the stage, and how it is mended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.chaos.journal import Window
from tests.chaos.link import DOWN, UP
from tests.chaos.schedule import KINDS, Fault
from tests.chaos.stage import ACCOUNTS, PREFIX, START_S, Stage
from tests.kit import plays
from tests.kit.daemon import Daemon

Act = Callable[[Stage, Fault], Awaitable[None]]


async def play_fault(stage: Stage, fault: Fault) -> Window:
    """
    Do *fault* and mend it; when it was.

    What is still being mended is not hit again: on a busy machine a process takes its
    time to start.
    """
    async with stage.locks[KINDS[fault.kind].part, fault.node]:
        begin = time.monotonic()
        await FAULTS[fault.kind](stage, fault)
        return Window(fault.kind, fault.node, begin, time.monotonic())


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _worker(stage: Stage, fault: Fault) -> int:
    workers = stage.daemons[fault.node].workers
    return int(workers[int(fault.chance * len(workers))])


async def _worker_killed(stage: Stage, fault: Fault) -> None:
    daemon = stage.daemons[fault.node]
    served = len(daemon.log.events("worker.started"))
    _kill(_worker(stage, fault), signal.SIGKILL)
    await _another(daemon, served)


async def _worker_stopped(stage: Stage, fault: Fault) -> None:
    pid = _worker(stage, fault)
    _kill(pid, signal.SIGSTOP)
    await asyncio.sleep(fault.lasts_s)
    _kill(pid, signal.SIGCONT)


async def _parent_killed(stage: Stage, fault: Fault) -> None:
    stage.daemons[fault.node].process.kill()
    await stage.daemons[fault.node].process.wait()
    await stage.replace(fault.node)


async def _node_killed(stage: Stage, fault: Fault) -> None:
    await stage.daemons[fault.node].kill()
    await asyncio.sleep(fault.lasts_s)
    await stage.replace(fault.node)


async def _restart(stage: Stage, fault: Fault) -> None:
    daemon = stage.daemons[fault.node]
    served = len(daemon.log.events("worker.started"))
    _kill(daemon.pid, signal.SIGUSR2)
    await _another(daemon, served)


async def _another(daemon: Daemon, served: int) -> None:
    """Return when *daemon* has started a worker more than *served*."""
    await daemon.log.wait_for(
        lambda: len(daemon.log.events("worker.started")) > served,
        "no new worker has started",
        START_S,
    )


async def _reload(stage: Stage, fault: Fault) -> None:
    """Another limit of an account, and back."""
    name = list(ACCOUNTS)[int(fault.chance * len(ACCOUNTS))]
    stage.limits[name] = ACCOUNTS[name] + (2 if fault.chance < 0.5 else -2)
    await stage.reload()
    await asyncio.sleep(fault.lasts_s)
    stage.limits[name] = ACCOUNTS[name]
    await stage.reload()


async def _engine_killed(stage: Stage, fault: Fault) -> None:
    stage.engine.kill()
    await asyncio.sleep(fault.lasts_s)
    stage.engine.start()


async def _engine_hung(stage: Stage, fault: Fault) -> None:
    stage.engine.pause()
    await asyncio.sleep(fault.lasts_s)
    stage.engine.resume()


async def _engine_replaced(stage: Stage, fault: Fault) -> None:
    stage.engine.kill()
    stage.engine.start()


# The clock as the last beat saw it was so much earlier, and the time of the scripts,
# which is both together, is the same: as after a leap (see ``beat.lua``). The shift
# alone would be an hour without a beat of any node.
LEAP = (
    "redis.call('HINCRBY', KEYS[1], '!clock', -ARGV[1])"
    " redis.call('HINCRBY', KEYS[1], '!shift', ARGV[1])"
)


async def _command(stage: Stage, *words: str) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.connect(stage.engine.socket)
        engine.sendall(" ".join(words).encode() + b"\r\n")
        answer = engine.recv(100)
        assert not answer.startswith(b"-"), answer


async def _engine_flushed(stage: Stage, fault: Fault) -> None:
    await _command(stage, "FLUSHALL")


async def _clock_leapt(stage: Stage, fault: Fault) -> None:
    """An hour forwards or back, as the engine's scripts see it."""
    us = 3_600_000_000 * (1 if fault.chance < 0.5 else -1)
    await _command(stage, "EVAL", f'"{LEAP}"', "1", f"{{{PREFIX}}}:lim", str(us))


async def _link_cut(stage: Stage, fault: Fault) -> None:
    stage.links[fault.node].cut()


async def _link(stage: Stage, fault: Fault, *held: str) -> None:
    link = stage.links[fault.node]
    link.hold(*held)
    await asyncio.sleep(fault.lasts_s)
    link.pass_on()


async def _link_lossy(stage: Stage, fault: Fault) -> None:
    stage.links[fault.node].loss = 0.05 + 0.2 * fault.chance
    await _link(stage, fault)


async def _link_slow(stage: Stage, fault: Fault) -> None:
    stage.links[fault.node].slow_s = 0.01 + 0.09 * fault.chance
    await _link(stage, fault)


async def _link_half_open(stage: Stage, fault: Fault) -> None:
    await _link(stage, fault, UP if fault.chance < 0.5 else DOWN)


async def _node_partitioned(stage: Stage, fault: Fault) -> None:
    await _link(stage, fault, UP, DOWN)


async def _account(stage: Stage, fault: Fault, play: plays.Play) -> None:
    name = list(ACCOUNTS)[int(fault.chance * len(ACCOUNTS))]
    stage.upstream.out[name] = play
    await asyncio.sleep(fault.lasts_s)
    del stage.upstream.out[name]


async def _account_busy(stage: Stage, fault: Fault) -> None:
    await _account(stage, fault, plays.status(429, headers={"retry-after": "1"}))


async def _account_failing(stage: Stage, fault: Fault) -> None:
    await _account(stage, fault, plays.status(500))


FAULTS: dict[str, Act] = {
    "worker-killed": _worker_killed,
    "worker-stopped": _worker_stopped,
    "parent-killed": _parent_killed,
    "node-killed": _node_killed,
    "restart": _restart,
    "reload": _reload,
    "engine-killed": _engine_killed,
    "engine-hung": _engine_hung,
    "engine-replaced": _engine_replaced,
    "engine-flushed": _engine_flushed,
    "clock-leapt": _clock_leapt,
    "link-cut": _link_cut,
    "link-lossy": _link_lossy,
    "link-slow": _link_slow,
    "link-half-open": _link_half_open,
    "node-partitioned": _node_partitioned,
    "account-busy": _account_busy,
    "account-failing": _account_failing,
}
