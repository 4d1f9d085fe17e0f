"""The parent's loop, with small programs as workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.__main__ import _daemon
from gateway.daemon import worker_handle
from gateway.daemon.channel import Message
from gateway.daemon.worker_handle import WorkerHandle
from gateway.daemon.worker_pool import HANDLED, WorkerPool
from tests.kit.daemon import ROOT

WORKER = """
import signal, socket, sys, time
control = socket.socket(fileno=int(sys.argv[3]))
def say(text):
    control.send(len(text).to_bytes(4, "big") + text)
"""


class Pool:
    """A pool whose workers run *program*, and what came of them."""

    def __init__(self, program: str) -> None:
        self.said: list[Message] = []
        self.ended: list[int] = []
        self.pool = WorkerPool(
            [sys.executable, "-c", WORKER + program], (), self._message, self._exit
        )

    def _message(self, worker: WorkerHandle, message: Message, fds: list[int]) -> None:
        self.said.append(message)

    def _exit(self, worker: WorkerHandle, status: int) -> None:
        self.ended.append(status)

    def until(self, reached: Callable[[], object]) -> None:
        due = time.monotonic() + 20
        while not reached():
            assert time.monotonic() < due
            self.pool.wait()


@pytest.fixture
def pool_of() -> Iterator[Callable[[str], Pool]]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    made: list[Pool] = []

    def make(program: str) -> Pool:
        made.append(Pool(program))
        return made[-1]

    yield make
    for one in made:
        for worker in one.pool.workers:
            worker.kill()
            os.waitpid(worker.pid, 0)
            worker.channel.close()
        one.pool.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_words_and_ends_are_heard_in_their_order(pool_of: Any) -> None:
    pool = pool_of("""say(b'{"is":"ready"}'); sys.exit(7)""")
    pool.pool.start(0)
    pool.until(lambda: pool.ended)

    assert [{"is": "ready"}] == pool.said
    assert [7] == pool.ended
    assert [] == pool.pool.workers


def test_one_that_is_silent_is_killed(
    pool_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "SILENCE_S", 0.5)
    pool = pool_of("say(b''); time.sleep(60)")
    worker = pool.pool.start(0)
    pool.until(lambda: pool.ended)

    assert [-signal.SIGKILL] == pool.ended
    assert "silent" == worker.ending


def test_one_that_beats_lives_though_the_parent_stood_still(
    pool_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "SILENCE_S", 0.5)
    pool = pool_of("say(b'{}')\nwhile True: say(b''); time.sleep(0.02)")
    worker = pool.pool.start(0)
    pool.until(lambda: pool.said)
    time.sleep(0.8)  # longer than the silence that kills
    for _ in range(5):
        pool.pool.wait()

    assert [] == pool.ended
    assert pool.pool.fresh
    assert "" == worker.ending


def test_signals_come_once_each_and_wake_the_loop(pool_of: Any) -> None:
    pool = pool_of("time.sleep(60)")
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR2)

    assert sorted((signal.SIGHUP, signal.SIGUSR2)) == sorted(pool.pool.wait())
    pool.pool.hold_signals()
    # To this thread: the parent has no other, a test's process has.
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    assert [] == pool.pool.wait()
    pool.pool.let_signals()
    assert [signal.SIGTERM] == pool.pool.wait()


def test_a_worker_is_not_ended_by_the_terminal(pool_of: Any) -> None:
    pool = pool_of("say(b'{}'); time.sleep(60)")
    worker = pool.pool.start(0)
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(worker.pid, number)
    pool.until(lambda: pool.said)

    assert [] == pool.ended


def test_timers_run_in_their_order(pool_of: Any) -> None:
    pool = pool_of("")
    ran: list[int] = []
    pool.pool.timers.after(0.02, lambda: ran.append(2))
    pool.pool.timers.after(0.01, lambda: ran.append(1))
    pool.until(lambda: len(ran) == 2)

    assert [1, 2] == ran


SMALL = """
import sys
from gateway.__main__ import _daemon
assert _daemon(["serve", "--config", "gateway.toml"])
print(*sys.modules)
"""
LARGE = {"aiohttp", "argparse", "asyncio", "dataclasses", "logging", "sqlalchemy"}
LARGE |= {"ssl", "structlog", "subprocess", "tempfile", "tomllib"}


def test_the_parent_stays_small() -> None:
    """It lives as long as the gateway, and loads nothing of what serves."""
    words = [sys.executable, "-c", SMALL]
    loaded = subprocess.run(words, capture_output=True, check=True, cwd=ROOT, text=True)

    assert set() == LARGE & set(loaded.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["serve", "--config"],
        ["serve", "--config", "-h"],
        ["serve", "--config", "a", "b"],
        ["worker", "--control"],
        ["worker", "--control", "x"],
        ["worker", "--control", "3", "-h"],
        ["check", "--config", "a"],
        [],
    ],
)
def test_all_but_plain_words_are_left_to_the_parser(words: list[str]) -> None:
    assert None is _daemon(words)
