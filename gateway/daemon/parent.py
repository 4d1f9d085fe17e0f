"""
The main process: it holds the listeners, and starts, watches and replaces the workers.

Rule 1: it serves no request and has no event loop, so nothing that a client or an
        upstream does can stop it.
Rule 2: it reads no config; a worker does, and says what the parent has to know. So
        the parent imports nothing of what serves.
Rule 3: signals and systemd are its affair alone.

    SIGTERM, SIGINT   drain: stop listening, let open streams finish, end the rest
    a second one      end what is open now
    SIGHUP            the workers read the config again
    SIGUSR2           the code on disk takes over (``rolling_restart``)

    STARTING ──every worker serves──▶ RUNNING ──▶ STOPPING ──no worker is left──▶ exit
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.daemon.channel import Message
from gateway.daemon.parent_counters import ParentCounters
from gateway.daemon.parent_engine import ParentEngine
from gateway.daemon.parent_exec import execute
from gateway.daemon.parent_listeners import ADMIN, Listeners, OpenListener
from gateway.daemon.parent_log import ParentLog
from gateway.daemon.parent_questions import ParentQuestions
from gateway.daemon.parent_reload import ParentReload
from gateway.daemon.phase import Phase
from gateway.daemon.process import StartError
from gateway.daemon.respawn import MAX_DEATHS, Respawn
from gateway.daemon.rolling_restart import RollingRestart, followed_by
from gateway.daemon.systemd import Notifier
from gateway.daemon.worker_handle import WorkerHandle, WorkerState
from gateway.daemon.worker_pool import WorkerPool

COUNT_S = 1.0  # for the workers to say how much they drain
HURRY_S = 30.0  # from the second signal until what is left is killed


class Parent:
    """
    Args:
        path: the config file.
        log: where its lines go.
        listeners: what is open already.
        program: how this program is called, without its command.
        inherited: descriptors for every worker.
        max_open_files: how many files a process may open, for the log.
    """

    def __init__(
        self,
        path: Path,
        log: ParentLog,
        listeners: Listeners,
        program: Sequence[str],
        inherited: Sequence[int],
        max_open_files: int,
    ) -> None:
        self.path = path
        self.log = log
        self.listeners = listeners
        self.phase = Phase.STARTING
        self.settings: dict[str, Any] = {}
        self.pool = WorkerPool(program, inherited, self._on_message, self._on_exit)
        self.notifier = Notifier()
        self.version = __version__
        self.inherited = inherited
        self._max_open_files = max_open_files
        self.reload = ParentReload(self.pool, self.notifier, self.changed)
        self.restart = RollingRestart(self, partial(execute, self))
        self.questions = ParentQuestions(self)
        self.counters = ParentCounters(self.pool)
        self.engine = ParentEngine(path, log, self.pool)
        self._respawns: dict[int, Respawn] = {}
        self.buried: list[str] = []  # nodes whose rows are to be closed
        self.config_number = 0  # grows with each config that is taken up
        self._status = 0
        self._drained: dict[int, int] | None = None  # requests, by pid

    def run(self) -> int:
        """Serve until a signal says stop; returns the exit status."""
        try:
            if self.phase == Phase.STARTING:
                self.start_worker(0)
            while self.pool.workers or self.phase < Phase.STOPPING:
                self._turn()
        except (StartError, OSError) as error:
            self._fail(str(error))
            while self.pool.workers:
                self._turn()
        finally:
            self.listeners.close()
            self.engine.stop()
            self.notifier.close()
        if not self._status:
            self.log.info("server.stopped")
        self.log.close()
        return self._status

    def _turn(self) -> None:
        self.engine.look()
        for number in self.pool.wait():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._on_stop()
            elif number == signal.SIGHUP:
                self.reload.request()
            elif number == signal.SIGUSR2:
                self.restart.request()
        if self.phase == Phase.RUNNING and not self.reload.runs:
            self.restart.advance()
        if self.phase > Phase.STARTING and not self.restart.tries:
            self.reload.advance(self.phase == Phase.RUNNING)
        if self.phase == Phase.RUNNING and self.pool.fresh:
            self.notifier.watchdog()

    # --- starting --------------------------------------------------------------------

    def start_worker(self, slot: int, fresh: bool = False) -> WorkerHandle:
        """
        Execute a worker.

        Args:
            fresh: it reads the config file; else it gets what the others have.

        Raises:
            OSError: the system refuses it.
        """
        served = self.settings.get("served")
        if fresh and served:
            keys = ("key", "admin_token")  # what was printed is good until the stop
            served = {name: served[name] for name in keys}
        worker = self.pool.start(slot)
        worker.config_number = self.config_number
        worker.channel.send(
            {
                "do": "boot",
                "path": str(self.path),
                "passed": self.listeners.passed,
                "open": self.listeners.addresses(),
                "served": served,
            }
        )
        return worker

    def _configured(self, worker: WorkerHandle, message: Message) -> None:
        worker.state = WorkerState.CONFIGURED
        if self.phase == Phase.STARTING and not self.settings:
            self.changed(message["settings"])
            worker.config_number = self.config_number
            # Before the ledger: a daemon that cannot listen must not touch the rows
            # of the one that does.
            self.listeners.add(self.settings["listen"])
            self.engine.prepare(self.settings)
            for slot in range(1, self.settings["workers"]):
                self.start_worker(slot)
        if self.restart.is_new(worker):
            self.restart.configured(worker, message["settings"])
        else:
            self.open_ledger(worker)

    def open_ledger(
        self, worker: WorkerHandle, without: Sequence[OpenListener] = ()
    ) -> None:
        """Let *worker* open the ledger, and give it the listeners but *without*."""
        listeners = [one for one in self.listeners.open if one not in without]
        worker.channel.send(
            {
                "do": "open",
                "slot": worker.slot,
                "listeners": [one.described for one in listeners],
                **self.engine.described(),
            },
            [*(one.fd for one in listeners), *self.engine.fds],
        )

    def _ready(self, worker: WorkerHandle, message: Message) -> None:
        worker.state, worker.node = WorkerState.READY, message["node"]
        if self.restart.is_new(worker):
            self.restart.ready(worker)
        elif self.phase == Phase.RUNNING:
            self.let_serve(worker)
        elif self._all(WorkerState.READY):
            for one in self.pool.workers:
                self.let_serve(one)

    def let_serve(self, worker: WorkerHandle) -> None:
        """Let *worker* serve, behind those that leave its slot."""
        fds = [
            followed_by(old)
            for old in self.pool.workers
            if old.state == WorkerState.LEAVING and old.slot == worker.slot
        ]
        worker.channel.send({"do": "serve"}, fds)
        for fd in fds:
            os.close(fd)

    def _serving(self, worker: WorkerHandle, message: Message) -> None:
        worker.state = WorkerState.SERVING
        if worker.config_number != self.config_number:  # a reload came between
            worker.channel.send({"do": "adopt", "served": self.settings["served"]})
        if self.phase == Phase.RUNNING:
            self._say_started(worker)
        elif self.phase == Phase.STARTING and self._all(WorkerState.SERVING):
            self._started()
        self.restart.serving(worker)
        self._bury(worker)

    def _all(self, state: WorkerState) -> bool:
        wanted = self.settings.get("workers", 1)
        reached = [one for one in self.pool.workers if one.state >= state]
        return bool(len(reached) >= wanted)

    def _started(self) -> None:
        self.phase = Phase.RUNNING
        self.engine.all_serve()
        self.log.info(
            "server.started",
            version=self.version,
            listen=self.listeners.addresses(),
            admin=self.listeners.addresses(ADMIN),
            max_open_files=self._max_open_files,
        )
        for worker in self.pool.workers:
            self._say_started(worker)
        self.log.settle()
        self.notifier.ready()
        self.pool.workers[0].channel.send({"do": "greet"})

    def _say_started(self, worker: WorkerHandle) -> None:
        seconds = time.monotonic() - worker.began_at
        self.log.info(
            "worker.started",
            worker=worker.slot,
            pid=worker.pid,
            node=worker.node,
            started_in_s=round(seconds, 3),
        )

    def changed(self, settings: dict[str, Any]) -> None:
        """Take up what a worker says of the config."""
        self.settings = settings
        self.config_number += 1
        self.log.configure(settings["log_level"], settings["log_format"])

    # --- words and ends of workers ---------------------------------------------------

    def _on_message(
        self, worker: WorkerHandle, message: Message, fds: list[int]
    ) -> None:
        kind = message.get("is")
        if kind == "configured":
            self._configured(worker, message)
        elif kind == "ready":
            self._ready(worker, message)
        elif kind == "serving":
            self._serving(worker, message)
        elif kind == "failed":
            worker.failure = message["status"], message.get("detail", "")
        elif kind == "draining" and self._drained is not None:
            self._drained[worker.pid] = message["requests"]
            self._say_draining()
        elif kind in ("reloaded", "adopted"):
            self.reload.answered(worker, message)
        elif kind == "counters":
            self.counters.asked(worker, message)
        elif kind == "counted":
            self.counters.counted(worker, message)
        elif kind == "probed":
            self.restart.probed(worker, message)
        elif kind == "ask":
            self.questions.asked(worker, message)
        elif kind == "closed" and message["node"] in self.buried:
            self.buried.remove(message["node"])

    def _on_exit(self, worker: WorkerHandle, status: int) -> None:
        if worker.state >= WorkerState.READY:
            self._say_ended(worker, status)
        self.counters.ended(worker)
        self.engine.ended(worker)
        if status and worker.node:
            self.buried.append(worker.node)
        if self.phase == Phase.RUNNING:
            if worker.ending in ("", "silent") and worker.state < WorkerState.LEAVING:
                if not self.restart.was_trial(worker):
                    self._respawn(worker)
            for one in self.pool.workers:
                if one.state == WorkerState.SERVING:
                    self._bury(one)
                    break
        elif self.phase == Phase.STARTING:
            code, detail = worker.failure or (1, f"worker {worker.slot} has ended")
            if code == 2:  # it has said itself what is wrong with the config
                self._stop(2)
            else:
                self._fail(detail)
        elif self._drained is not None:
            self._drained.setdefault(worker.pid, 0)
            self._say_draining()

    def _say_ended(self, worker: WorkerHandle, status: int) -> None:
        facts = worker.ended(status)
        well = worker.ending not in ("", "silent")
        (self.log.info if well else self.log.error)("worker.ended", **facts)

    def _bury(self, worker: WorkerHandle) -> None:
        """Let *worker* close what dead workers have left open."""
        for node in self.buried:
            worker.channel.send({"do": "bury", "node": node})

    def _respawn(self, worker: WorkerHandle) -> None:
        now = time.monotonic()
        if worker.failure:
            self.log.error(
                "worker.failed", worker=worker.slot, detail=worker.failure[1]
            )
        respawn = self._respawns.setdefault(worker.slot, Respawn())
        wait_s = respawn.died(now, now - worker.began_at)
        if respawn.too_often(now):
            if not any(one.state >= WorkerState.SERVING for one in self.pool.workers):
                self._fail(f"worker {worker.slot} ended {MAX_DEATHS} times in a minute")
                return
            self.log.error("worker.failing", worker=worker.slot, wait_s=wait_s)
        self.pool.timers.after(wait_s, lambda: self._start_again(worker.slot))

    def _start_again(self, slot: int) -> None:
        if self.phase == Phase.RUNNING:
            try:
                self.start_worker(slot)
            except OSError as error:
                self._fail(f"cannot start a worker: {error.strerror}")

    # --- for the restart -------------------------------------------------------------

    @property
    def stops(self) -> bool:
        """Whether the gateway stops."""
        return self.phase == Phase.STOPPING

    def dismiss(self, worker: WorkerHandle) -> None:
        """Let *worker* finish what it has; its slot is not needed any more."""
        if worker.state < WorkerState.LEAVING:
            worker.state, worker.ending = WorkerState.LEAVING, "not needed"
            worker.channel.send({"do": "drain"})

    # --- stopping --------------------------------------------------------------------

    def _fail(self, detail: str) -> None:
        self.log.error("server.failed", detail=detail)
        self._stop(1)

    def _on_stop(self) -> None:
        """SIGTERM or SIGINT; the second one hurries."""
        if self.phase < Phase.STOPPING:
            self._stop(0)
            return
        for worker in self.pool.workers:
            worker.channel.send({"do": "hurry"})
        self.pool.timers.after(HURRY_S, self.pool.kill_all)

    def _stop(self, status: int) -> None:
        was, self.phase = self.phase, Phase.STOPPING
        self.restart.give_up("the gateway stops")
        self._status = self._status or status
        self.notifier.stopping()
        self.listeners.close()
        for worker in self.pool.workers:
            worker.ending = worker.ending or "stop"
            if worker.state < WorkerState.SERVING:
                worker.kill()
                continue
            worker.channel.send({"do": "hurry" if status else "drain"})
        if was == Phase.RUNNING and not status:
            self._drained = {}
            self.pool.timers.after(COUNT_S, lambda: self._say_draining(late=True))

    def _say_draining(self, late: bool = False) -> None:
        """One line for all workers, once they have stopped listening."""
        counted = self._drained
        if counted is None:
            return
        if late or all(one.pid in counted for one in self.pool.workers):
            self._drained = None
            self.log.info(
                "server.draining",
                requests=sum(counted.values()),
                drain_timeout_s=self.settings["drain_timeout_s"],
            )
