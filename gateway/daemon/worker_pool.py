"""
The parent's loop: it waits for signals, for words of its workers, and for their ends.

Rule 1: it runs in one thread and never waits for a worker.
Rule 2: what has come is read before anything is said about silence, so a parent that
        stood still itself kills no worker for it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from gateway.daemon.channel import Message
from gateway.daemon.worker_handle import WorkerHandle, spawn

MAX_SLEEP_S = 0.5  # also how often systemd's watchdog is fed
HANDLED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGUSR2, signal.SIGCHLD),
)


class Signals:
    """Signals as a list, and a descriptor that wakes ``poll``."""

    def __init__(self) -> None:
        self._come: list[int] = []
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, lambda taken, frame: self._come.append(taken))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def fileno(self) -> int:
        """The descriptor that is readable after a signal."""
        return self._reader

    def take(self) -> list[int]:
        """The signals that have come, in their order."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        come, self._come = self._come, []
        return come

    def close(self) -> None:
        """Give the descriptors back; signals do what they did before a start."""
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)

    @staticmethod
    def hold() -> None:
        """Keep signals waiting for the program that is executed next."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)

    @staticmethod
    def go_on() -> None:
        """No program was executed: take what waits."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


class Timers:
    """What is to be done when."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Call *action* once, in *seconds*."""
        due = time.monotonic() + seconds
        heapq.heappush(self._heap, (due, next(self._numbers), action))

    def run(self) -> None:
        """Call what is due."""
        while self._heap and self._heap[0][0] <= time.monotonic():
            heapq.heappop(self._heap)[2]()

    @property
    def wait_s(self) -> float:
        """Seconds until the next."""
        if not self._heap:
            return MAX_SLEEP_S
        return max(0.0, min(MAX_SLEEP_S, self._heap[0][0] - time.monotonic()))


class WorkerPool:
    """
    Args:
        program: how this program is called, without its command.
        inherited: descriptors for every worker.
        on_message: called with what a worker says.
        on_exit: called with the exit status of one, negative for a signal.

    Attributes:
        watched: a further descriptor that ends the wait.
    """

    def __init__(
        self,
        program: Sequence[str],
        inherited: Sequence[int],
        on_message: Callable[[WorkerHandle, Message, list[int]], None],
        on_exit: Callable[[WorkerHandle, int], None],
    ) -> None:
        self.workers: list[WorkerHandle] = []
        self.watched: int | None = None
        self.timers = Timers()
        self._signals = Signals()
        self._program = program
        self._inherited = inherited
        self._on_message = on_message
        self._on_exit = on_exit

    def start(self, slot: int) -> WorkerHandle:
        """
        Execute a worker for *slot*.

        Raises:
            OSError: the system refuses it.
        """
        worker = spawn(slot, self._program, self._inherited)
        self.workers.append(worker)
        return worker

    def adopt(self, workers: Iterable[WorkerHandle]) -> None:
        """Go on with workers that this process has started before its new code."""
        self.workers += workers

    def wait(self) -> list[int]:
        """Wait for something, deal with it; returns the signals that came."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        if self.watched is not None:
            poll.register(self.watched, select.POLLIN)
        for worker in self.workers:
            if worker.channel.fileno() >= 0:
                writes = select.POLLOUT if worker.channel.wants_write else 0
                poll.register(worker.channel, select.POLLIN | writes)
        poll.poll(self.timers.wait_s * 1000)
        signals = self._signals.take()
        for worker in list(self.workers):
            self._receive(worker)
        self._reap()
        self._kill_silent()
        self.timers.run()
        return signals

    def hold_signals(self) -> None:
        """Keep signals for the program that this process executes next."""
        self._signals.hold()

    def let_signals(self) -> None:
        """Take them again."""
        self._signals.go_on()

    def kill_all(self) -> None:
        """End every worker at once."""
        for worker in self.workers:
            worker.kill()

    def close(self) -> None:
        """Wait for nothing more."""
        self._signals.close()

    @property
    def fresh(self) -> bool:
        """Whether every worker has given a sign of life."""
        now = time.monotonic()
        return all(worker.silent_at > now for worker in self.workers)

    def _receive(self, worker: WorkerHandle) -> None:
        channel = worker.channel
        if channel.fileno() < 0:
            return
        channel.flush()
        try:
            come = channel.receive()
        except EOFError:  # its exit follows
            channel.close()
            return
        for message, fds in come:
            worker.beat_at = time.monotonic()
            if message is not None:
                self._on_message(worker, message, fds)
            for fd in fds:
                os.close(fd)

    def _reap(self) -> None:
        for worker in list(self.workers):
            try:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it
                pid, status = worker.pid, 1 << 8
            if pid:
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: WorkerHandle, status: int) -> None:
        self._receive(worker)  # its last words
        self.workers.remove(worker)
        worker.channel.close()
        self._on_exit(worker, status)

    def _kill_silent(self) -> None:
        now = time.monotonic()
        for worker in self.workers:
            if worker.silent_at <= now and worker.ending != "silent":
                worker.ending = "silent"
                worker.kill()
