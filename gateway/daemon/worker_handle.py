"""
A worker as its parent sees it: a process, a channel to it, and its last beat.

    STARTING ──▶ CONFIGURED ──▶ READY ──▶ SERVING ──▶ LEAVING ──▶ (exit)
     reads the    opens the      waits     accepts     finishes
     config       ledger         for "serve"           what runs
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any

from gateway.daemon.channel import Channel

SILENCE_S = 10.0  # without a beat: it stands still
FIRST_BEAT_S = 120.0  # a start may have to bring a large ledger up to date


class WorkerState(IntEnum):
    """How far a worker has come."""

    STARTING = 0
    CONFIGURED = 1
    READY = 2
    SERVING = 3
    LEAVING = 4


class WorkerHandle:
    """
    Args:
        slot: which of the workers that serve it is, from 0.
        unread: of its channel, where another process has begun to read.

    Attributes:
        state: how far it has come.
        node: its name in the ledger and at the engine; "" until it is known.
        ending: why it was asked to go; "" if it was not.
        failure: what it said of its own end: the exit status and the reason.
        counted: its counters, as it showed them last.
        config_number: which of the parent's configs it was started with.
    """

    def __init__(
        self, slot: int, pid: int, sock: socket.socket, unread: bytes = b""
    ) -> None:
        self.slot = slot
        self.pid = pid
        self.channel = Channel(sock, unread)
        self.state = WorkerState.STARTING
        self.node = ""
        self.ending = ""
        self.failure: tuple[int, str] | None = None
        self.counted: dict[str, Any] = {}
        self.config_number = 0
        self.began_at = time.monotonic()
        self.beat_at = 0.0  # 0 = none came yet

    @property
    def silent_at(self) -> float:
        """When it has to be taken for one that stands still."""
        if self.beat_at:
            return self.beat_at + SILENCE_S
        return self.began_at + FIRST_BEAT_S

    def dump(self) -> dict[str, Any]:
        """What the parent's new code has to know of it."""
        return {
            "slot": self.slot,
            "pid": self.pid,
            "fd": self.channel.fileno(),
            "unread": self.channel.unread.hex(),
            "state": int(self.state),
            "node": self.node,
            "ending": self.ending,
            "counted": self.counted,
            "began_at": self.began_at,
        }

    @classmethod
    def load(cls, known: dict[str, Any]) -> WorkerHandle:
        """The worker that ``dump`` described, in a new program of the same process."""
        sock = socket.socket(fileno=known["fd"])
        sock.set_inheritable(False)
        handle = cls(known["slot"], known["pid"], sock, bytes.fromhex(known["unread"]))
        handle.state = WorkerState(known["state"])
        handle.node = known["node"]
        handle.ending = known["ending"]
        handle.counted = known["counted"]
        handle.began_at = known["began_at"]
        handle.beat_at = time.monotonic()
        return handle

    def ended(self, status: int) -> dict[str, Any]:
        """What the log says of its end; *status*: negative for a signal."""
        facts: dict[str, Any] = {
            "worker": self.slot,
            "pid": self.pid,
            "node": self.node,
            "reason": self.ending or "crashed",
        }
        facts |= {"status": status} if status >= 0 else {"signal": -status}
        if self.failure:
            facts["detail"] = self.failure[1]
        return facts

    def kill(self) -> None:
        """End it at once; its exit follows."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def spawn(slot: int, program: Sequence[str], inherited: Sequence[int]) -> WorkerHandle:
    """
    Execute a worker.

    Args:
        program: how this program is called, without its command.
        inherited: descriptors that it has under the same numbers.

    Raises:
        OSError: the system refuses it.
    """
    ours, theirs = socket.socketpair()
    kept = [theirs.fileno(), *inherited]
    words = ["worker", "--control", *map(str, kept)]
    try:
        for fd in kept:
            os.set_inheritable(fd, True)
        pid = os.posix_spawn(
            program[0],
            [*program, *words],
            os.environ,
            # A terminal sends these to all; the parent alone decides what they mean.
            setsigmask=(signal.SIGINT, signal.SIGHUP),
            setsigdef=(signal.SIGTERM, signal.SIGUSR2),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        for fd in inherited:
            os.set_inheritable(fd, False)
        theirs.close()
    return WorkerHandle(slot, pid, ours)


def own_program() -> list[str]:
    """How this process was called, without its command: to call itself again."""
    prefix = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    if len(prefix) > 1 and sys.executable:
        called = os.path.basename(sys.argv[0])
        if called in ("__main__.py", "gateway"):
            return [sys.executable, *prefix[1:]]
    return [sys.executable, "-m", "gateway"]
