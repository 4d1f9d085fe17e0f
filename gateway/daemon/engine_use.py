"""
The private engine as the processes that use it see it: a folder, and who is the last.

    FOLDER/engine.sock   where it listens; mode 0600, in a folder of mode 0700
    FOLDER/users         locked by every process that uses it, parents and workers

Rule 1: it ends with the last process that uses it. So workers whose parent was killed
        go on with it, and a new gateway of the same config finds it, and them.
Rule 2: its pid is asked of the kernel, by its socket: no number in a file to go stale.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import NamedTuple

END_S = 2.0  # for the engine to end, before it is killed
LOOK_S = 0.005


class EngineChoice(NamedTuple):
    """
    The private engine, as a worker hears of it.

    Attributes:
        folder: where its files are.
        new: no process has ever used it.
    """

    folder: str
    new: bool

    @property
    def url(self) -> str:
        """As ``shared.url`` would name it."""
        return f"unix://{socket_path(self.folder)}"


class EngineUse:
    """
    This process among those that use the engine in *folder*.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: str, fd: int | None = None) -> None:
        self._folder = folder
        self.fd = _locked(folder) if fd is None else fd

    def leave(self) -> bool:
        """Use it no more; whether this was the last user, and it has ended."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            end_engine(self._folder)
            for name in ("engine.log", "users"):
                with suppress(OSError):
                    os.unlink(os.path.join(self._folder, name))
            with suppress(OSError):
                os.rmdir(self._folder)
            return True
        finally:
            os.close(self.fd)


def _locked(folder: str) -> int:
    """A descriptor with the lock of a user; waits while the last user ends all."""
    path = os.path.join(folder, "users")
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the last user has just removed the folder
            continue
        fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        os.close(fd)


def socket_path(folder: str) -> str:
    """Where the engine in *folder* listens."""
    return os.path.join(folder, "engine.sock")


def engine_pid(folder: str) -> int:
    """The pid of the engine that listens in *folder*; 0 for none."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(socket_path(folder))
            size = struct.calcsize("3i")
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        except OSError:
            return 0
    pid: int = struct.unpack("3i", peer)[0]
    return pid


def end_engine(folder: str) -> None:
    """End the engine in *folder*, and remove its socket."""
    pid = engine_pid(folder)
    if pid:
        _signal(pid, signal.SIGTERM)
        until = time.monotonic() + END_S
        while _lives(pid) and time.monotonic() < until:
            time.sleep(LOOK_S)
        if _lives(pid):
            _signal(pid, signal.SIGKILL)
    with suppress(OSError):
        os.unlink(socket_path(folder))


def _lives(pid: int) -> bool:
    with suppress(ChildProcessError):
        return not os.waitpid(pid, os.WNOHANG)[0]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
