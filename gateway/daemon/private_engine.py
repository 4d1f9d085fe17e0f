"""
The parent's own engine, for several workers of a host without ``shared.url``.

Rule 1: it listens on a unix socket in a folder that only this user may enter, and
        keeps nothing on the disk: what it forgets the workers say again.
Rule 2: one that has ended is started again, at the same place, for as long as the
        parent runs; one that hangs is killed first. While it is away the workers go on
        alone.
Rule 3: one that is there already is used: the workers of a parent that was killed
        still use it, and so the limits hold for both.

Imported only where there is one.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gateway.config.engine_program import MISSING, engine_program
from gateway.daemon.engine_probe import EngineProbe
from gateway.daemon.engine_use import (
    LOOK_S,
    EngineChoice,
    EngineUse,
    engine_pid,
    socket_path,
)
from gateway.daemon.parent_log import ParentLog
from gateway.daemon.process import StartError
from gateway.daemon.respawn import Respawn

START_S = 5.0
ARGUMENTS = (
    *("--port", "0", "--unixsocketperm", "600"),
    *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
    *("--databases", "1", "--hz", "1", "--daemonize", "no", "--loglevel", "warning"),
)


class PrivateEngine:
    """
    Args:
        folder: see ``private_folder``.
        use: this process among its users, over an exec.

    Attributes:
        pid: of the engine; 0 while there is none.
        new: no worker has been let use it yet.
    """

    def __init__(
        self, folder: str, log: ParentLog, use: EngineUse | None = None
    ) -> None:
        self.folder = folder
        self.pid = 0
        self.new = False
        self._log = log
        self._use = use or EngineUse(folder)
        self._respawn = Respawn()
        self._probe = EngineProbe(socket_path(folder))
        self._hung = False  # and killed for it
        self._pidfd: int | None = None
        self._began_at = 0.0
        self._start_at: float | None = None  # it has ended, and is started then

    # --- its life --------------------------------------------------------------------

    def start(self) -> None:
        """
        Find it, or start it and wait until it listens.

        Raises:
            StartError: it cannot be started.
        """
        with _alone(self.folder):
            if pid := engine_pid(self.folder):
                self._watch(pid)
                return
            self._spawn()
            self.new = True
            until = time.monotonic() + START_S
            while engine_pid(self.folder) != self.pid:
                if time.monotonic() > until or self._ended() is not None:
                    raise StartError(f"the engine fails: {self._last_words()}")
                time.sleep(LOOK_S)

    def look(self) -> None:
        """Start it again if it has ended; kill it if it hangs."""
        now = time.monotonic()
        if self.pid and (status := self._ended()) is not None:
            reason = "silent" if self._hung else "crashed"
            self._log.error("engine.ended", pid=self.pid, status=status, reason=reason)
            self._unwatch()
            lived_s = now - self._began_at
            self._start_at = now + self._respawn.died(now, lived_s)
        elif self.pid and not self._hung and self._probe.is_hung(now):
            self._hung = True
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if self._start_at is not None and self._start_at <= time.monotonic():
            self._start_at = None
            self._start_again()

    def _start_again(self) -> None:
        self.new = False
        try:
            with _alone(self.folder):
                if pid := engine_pid(self.folder):  # another parent was quicker
                    self._watch(pid)
                else:
                    self._spawn()
        except (OSError, StartError) as error:
            self._log.error("engine.failed", detail=str(error))
            self._start_at = time.monotonic() + START_S

    def stop(self) -> None:
        """End it, unless another process uses it."""
        self._unwatch()
        self._use.leave()

    # --- for the loop of the parent --------------------------------------------------

    def fileno(self) -> int | None:
        """A descriptor that is readable once it has ended; None without such a one."""
        return self._pidfd

    def choice(self) -> EngineChoice:
        """What a worker has to know of it."""
        return EngineChoice(self.folder, self.new)

    def dump(self) -> dict[str, Any]:
        """What the parent's new code has to know."""
        return {"folder": self.folder, "use": self._use.fd}

    @classmethod
    def load(cls, known: dict[str, Any], log: ParentLog) -> PrivateEngine:
        """The engine that ``dump`` described, in a new program of the same process."""
        os.set_inheritable(known["use"], False)
        folder = known["folder"]
        engine = cls(folder, log, EngineUse(folder, known["use"]))
        if pid := engine_pid(folder):
            engine._watch(pid)
        else:
            engine._start_at = 0.0
        return engine

    # --- inside ----------------------------------------------------------------------

    def _spawn(self) -> None:
        program = engine_program()
        if not program:
            raise StartError(MISSING)
        words = [program, *ARGUMENTS, "--dir", self.folder]
        words += ["--unixsocket", socket_path(self.folder)]
        log = os.path.join(self.folder, "engine.log")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        pid = os.posix_spawn(
            program,
            words,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            # A terminal sends these to all; the engine ends with its users alone.
            setsigmask=(signal.SIGINT, signal.SIGHUP),
            setsigdef=(signal.SIGTERM, signal.SIGUSR2),
        )
        self._watch(pid)
        self._log.info("engine.started", pid=pid, program=os.path.basename(program))

    def _watch(self, pid: int) -> None:
        self.pid, self._began_at, self._hung = pid, time.monotonic(), False
        with suppress(AttributeError, OSError):  # then each turn of the loop looks
            self._pidfd = os.pidfd_open(pid)

    def _unwatch(self) -> None:
        self.pid = 0
        self._probe.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _ended(self) -> int | None:
        """The exit status; None while it lives."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return os.waitstatus_to_exitcode(status) if pid else None
        except ChildProcessError:  # it was started by another parent
            pass
        if self._pidfd is not None:
            ended = bool(select.select([self._pidfd], (), (), 0)[0])
            return 0 if ended else None
        return None if os.path.exists(f"/proc/{self.pid}") else 0

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = Path(self.folder, "engine.log").read_text().strip().splitlines()
            if lines:
                return lines[-1][:200]
        return f"it is not ready after {START_S:.0f} s"


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Keep parents that start together from starting two engines."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
