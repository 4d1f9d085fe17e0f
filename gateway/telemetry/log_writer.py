"""
Writes the log: a bounded queue and one thread that writes it to a file descriptor.

Rule 1: ``put`` never blocks and never raises, also while the reader does not read. Only
        the thread waits for it.
Rule 2: a line for which the queue is full, or that the descriptor refuses, is lost and
        counted. A notice replaces the lines that were lost.
Rule 3: lines are written in order, each whole. The rest of a line that was cut by an
        error is written first once the descriptor takes data again.
Rule 4: the thread wakes once each INTERVAL_S at most, unless a whole write waits: under
        load many lines share one, and the event loop keeps the interpreter.
Rule 5: processes that write to one descriptor take turns, so that each line is whole:
        a pipe takes only so much at a time.

    put ──▶ queue (MAX_WAITING_BYTES) ──▶ take ──▶ write ──▶ descriptor
      └─▶ lost                                       └─▶ lost
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TextIO

from gateway.wake_event import WakeEvent

MAX_WAITING_BYTES = 512 * 1024  # of lines that the reader has not taken yet
WRITE_BYTES = 64 * 1024  # of lines that share one write
INTERVAL_S = 0.05  # between two writes
RETRY_S = 0.1  # between two writes while the descriptor refuses them
IDLE_S = 60.0
FLUSH_S = 2.0  # for the lines that wait when the process ends

Notice = Callable[[int], bytes]
"""Renders the line that says how many lines were lost."""


class _Line(NamedTuple):
    """A line in the queue; *missing*: how many lost lines it reports, if a notice."""

    data: bytes
    missing: int = 0


class LogLock:
    """
    Held while lines are written.

    Args:
        fd: a file that the processes of one gateway share; None: there is one process.
    """

    def __init__(self, fd: int | None) -> None:
        self.fd = fd

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the turn of this process, in the thread that writes alone."""
        if self.fd is None:
            yield
            return
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX)
        except OSError:  # no lock is left: lines may be mixed, but none is lost
            yield
            return
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)


class LogWriter:
    """
    Args:
        fd: where lines are written; None: nowhere, every line is lost.
        lost: how many lines were lost before.
        lock: shared with other processes that write there.

    Attributes:
        lost: how many lines were lost in all.
    """

    def __init__(
        self,
        fd: int | None,
        notice: Notice,
        lost: int = 0,
        lock: LogLock = LogLock(None),
    ) -> None:
        self.lost = lost
        self._lock_file = lock
        self._fd = fd
        self._notice = notice
        # Reentrant: a finaliser that fails while a line is put writes a line, too.
        self._lock = threading.RLock()
        self._queue: deque[_Line] = deque()
        self._waiting_bytes = 0
        self._gap = 0  # lost behind the last line of the queue, without a notice yet
        self._unreported = 0  # lost before its first line; the thread's own
        self._rest = b""  # of a line that was written in part; the thread's own
        self._wake = WakeEvent()
        self._asleep = False
        self._stopping = fd is None
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        if fd is not None:
            self._thread.start()

    def put(self, data: bytes) -> None:
        """Queue the line *data*, which ends in a newline."""
        with self._lock:
            waiting_bytes = self._waiting_bytes + len(data)
            if waiting_bytes > MAX_WAITING_BYTES or self._stopping:
                self.lost += 1
                self._gap += 1
                return
            if self._gap:
                self._queue_notice()
            self._waiting_bytes = waiting_bytes
            self._queue.append(_Line(data))
            if self._asleep:
                self._asleep = False
                self._wake.set()

    def settle(self, timeout_s: float) -> None:
        """Return once the lines so far are written, or the time is over."""
        due = time.monotonic() + timeout_s
        while not (self._asleep or self._stopping) and time.monotonic() < due:
            self._wake.set()  # else it sleeps through its interval
            time.sleep(0.001)

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what waits, for *timeout_s* at most; later lines are lost."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _queue_notice(self) -> None:
        # Above the bound, but only one notice for each line that finds room again.
        lost, self._gap = self._gap, 0
        self._queue.append(_Line(self._notice(lost), lost))

    # --- the thread -------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            if lines := self._take():
                with self._lock_file.held():
                    took = self._write(lines)
                full = self._waiting_bytes >= WRITE_BYTES
                if not (self._stopping or took and full):
                    self._wake.wait(INTERVAL_S if took else RETRY_S)
            elif self._stopping:
                return
            else:
                self._wait()

    def _wait(self) -> None:
        with self._lock:
            self._asleep = not (self._queue or self._stopping)
            asleep = self._asleep
        if asleep:
            self._wake.wait(IDLE_S)
        self._asleep = False

    def _take(self) -> list[_Line]:
        """The next lines that share a write; none if nothing waits."""
        lines: list[_Line] = []
        size = 0
        with self._lock:
            while self._queue and size < WRITE_BYTES:
                line = self._queue.popleft()
                size += len(line.data)
                lines.append(line)
                if not line.missing:
                    self._waiting_bytes -= len(line.data)
            if self._gap and not self._queue:
                self._queue_notice()
                lines.append(self._queue.popleft())
        return lines

    def _write(self, lines: list[_Line]) -> bool:
        """Write *lines*; False if the descriptor refused some, which are lost then."""
        if self._unreported:
            lines.insert(0, _Line(self._notice(self._unreported), self._unreported))
            self._unreported = 0
        if self._rest:
            lines.insert(0, _Line(self._rest))
        data = b"".join([line.data for line in lines])
        done = 0
        try:
            while done < len(data):
                done += self._write_some(data[done:] if done else data)
        except OSError as error:
            # Behind a pipe whose reader has gone, no reader could join the two parts.
            self._refused(lines, done, keeps=error.errno != errno.EPIPE)
            return False
        self._rest = b""
        return True

    def _write_some(self, data: bytes) -> int:
        assert self._fd is not None
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # another process has made it non-blocking
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll(1000)
            return 0

    def _refused(self, lines: list[_Line], done: int, *, keeps: bool) -> None:
        """
        Count what is lost of *lines*, of which *done* bytes were written.

        Args:
            keeps: the rest of a line that was cut may still follow.
        """
        rest, lost, unreported, end = b"", 0, 0, 0
        cut_before = bool(self._rest)  # then the first is the rest of a line
        for line in lines:
            start, end = end, end + len(line.data)
            if end <= done:
                cut_before = False
                continue
            if keeps and (start < done or cut_before):
                rest = line.data[max(0, done - start) :]
            elif line.missing:
                unreported += line.missing
            else:
                lost += 1
            cut_before = False
        self._rest = rest
        self._unreported = unreported + lost
        with self._lock:
            self.lost += lost


class TextWriter:
    """A stream without a file, written to at once."""

    def __init__(self, stream: TextIO, lost: int) -> None:
        self.lost = lost
        self._stream = stream

    def put(self, data: bytes) -> None:
        """Write one line."""
        try:
            self._stream.write(data.decode())
        except (OSError, ValueError):  # it has been closed
            self.lost += 1

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Nothing waits."""
