"""
Which processes of a ledger live: a lock that the system gives back when one dies.

Rule 1: a node is a number that no other process has; its lock is held from before its
        first row to its end. So a row is left open by a crash exactly when the lock of
        its node is free.
Rule 2: nothing has to be written for it, cleaned up, or believed from a clock.

    SQLite       a byte of the file ``gateway.db.lock``, at the node's number
    PostgreSQL   an advisory lock of that number, by the connection that writes

The same file makes the writers of several processes take turns: SQLite itself lets
them look again and again, in no order (with four, 99 of 100 commits take 3 instead of
9 ms).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, text

NODE_BITS = 62
MAX_SEEN = 1024  # nodes that are counted
_FLOCK = "@hhqqi"  # ``struct flock`` of 64-bit Linux: type, origin, start, length, pid
_HELD = text(
    "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE"
    " locktype = 'advisory' AND objsubid = 1 AND granted AND database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Presence:
    """
    This process among those that use a ledger.

    Args:
        path: of a SQLite file; None for PostgreSQL.

    Attributes:
        node: the name of this process.
        waits_since: since when it waits for its turn to write, in monotonic seconds;
            None while it does not.
        turn_at: when the last such wait was over.
    """

    def __init__(self, path: Path | None) -> None:
        self._number = secrets.randbits(NODE_BITS)
        self.node = f"{self._number:x}"
        self._path = Path(f"{path}.lock") if path is not None else None
        self._fd: int | None = None
        self.waits_since: float | None = None
        self.turn_at = 0.0

    @property
    def setup(self) -> str:
        """What the writing connection of PostgreSQL does first."""
        return "" if self._path else f"SELECT pg_advisory_lock({self._number})"

    def enter(self) -> None:
        """
        Hold the lock of this node; once is enough.

        Raises:
            OSError: the file cannot be used.
        """
        if self._path is None or self._fd is not None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._number)

    def dead(self, nodes: list[str], connection: Connection) -> list[str]:
        """Those of *nodes*, other than this one, whose process has ended."""
        others = [node for node in nodes if node != self.node]
        if self._path is None:
            held = {f"{number:x}" for number in connection.scalars(_HELD)}
            return [node for node in others if node not in held]
        return [node for node in others if self._is_free(node)]

    def _is_free(self, node: str) -> bool:
        try:
            number = int(node or "x", 16)
        except ValueError:  # a row from before nodes had names
            return True
        assert self._fd is not None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)
        return True

    def alive(self, connection: Connection) -> list[str]:
        """Every process that uses the ledger now, this one among them, in order."""
        if self._path is None:
            found = {f"{number:x}" for number in connection.scalars(_HELD)}
        else:
            found = {f"{number:x}" for number in self._held_by_others()}
        return sorted(found | {self.node})

    def _held_by_others(self) -> Iterator[int]:
        """The numbers whose locks other processes hold, where the system says it."""
        if self._fd is None or sys.platform != "linux":
            return
        left, seen = [(0, 2**NODE_BITS - 1)], 0
        while left and seen < MAX_SEEN:
            first, last = left.pop()
            asked = struct.pack(
                _FLOCK, fcntl.F_WRLCK, os.SEEK_SET, first, last - first + 1, 0
            )
            # Any of the locks in that range, not the first.
            answer = fcntl.fcntl(self._fd, fcntl.F_GETLK, asked)
            kind, _, start, _, _ = struct.unpack(_FLOCK, answer)
            if kind == fcntl.F_UNLCK:
                continue
            seen += 1
            yield start
            left += [
                part
                for part in ((first, start - 1), (start + 1, last))
                if part[0] <= part[1]
            ]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The turn of this process to write, for the block."""
        self.take_turn()
        try:
            yield
        finally:
            self.end_turn()

    def take_turn(self) -> None:
        """Wait for the turn of this process to write; ``end_turn`` follows."""
        if self._fd is None:
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait_for_turn(self._fd)
        except OSError:
            pass  # a file system without locks: SQLite's own decides

    def _wait_for_turn(self, fd: int) -> None:
        self.waits_since = time.monotonic()
        try:
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
        finally:
            self.turn_at, self.waits_since = time.monotonic(), None

    def end_turn(self) -> None:
        """Let others write."""
        if self._fd is None:
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            pass

    def leave(self) -> None:
        """Give the lock back: what is open now has no writer any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
