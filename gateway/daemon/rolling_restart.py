"""
A restart that no client notices: the code on disk takes over, process by process.

    TRYING      a new worker loads the new code and the config, opens the ledger
    PROBING     it says whether the parent's new code can go on with its state
    (exec)      the parent's new code takes over, in the same process
    HANDING     the new worker follows the old one: it serves once that has said what
                it has; the old one finishes its streams and its waiters
    STARTING    the next new worker, and again, until every slot is served anew

Until the exec a failure changes nothing: the old code serves on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from gateway.daemon import parent_state
from gateway.daemon.channel import Message
from gateway.daemon.parent_exec import dump
from gateway.daemon.parent_listeners import OpenListener
from gateway.daemon.process import StartError
from gateway.daemon.worker_handle import WorkerHandle, WorkerState

if TYPE_CHECKING:
    from gateway.daemon.parent import Parent

READY_S = 60.0  # for a new worker to be ready to serve

Outcome = dict[str, Any]
Asker = tuple[int, int]
"""The pid of a worker that waits for the outcome, and the number of its question."""


class RestartStep(Enum):
    """Where a restart stands."""

    IDLE = "idle"
    TRYING = "trying"
    PROBING = "probing"
    HANDING = "handing"
    STARTING = "starting"


class RollingRestart:
    """
    Args:
        execute: replaces this program; called with the state, returns only by OSError.
    """

    def __init__(
        self, parent: Parent, execute: Callable[[parent_state.ParentState], None]
    ) -> None:
        self._parent = parent
        self._execute = execute
        self._wanted = False
        self._step = RestartStep.IDLE
        self._slot = 0
        self._new: WorkerHandle | None = None
        self._settings: dict[str, Any] = {}
        self._gone: list[OpenListener] = []
        self._added: list[OpenListener] = []
        self._askers: list[Asker] = []

    @property
    def runs(self) -> bool:
        """Whether one is under way."""
        return self._step is not RestartStep.IDLE

    @property
    def tries(self) -> bool:
        """Whether one is under way that may still leave everything as it was."""
        return self._step in (RestartStep.TRYING, RestartStep.PROBING)

    def request(self, asker: Asker | None = None) -> None:
        """Restart soon; one that is asked for during another comes behind it."""
        self._wanted = True
        if asker is not None:
            self._askers.append(asker)

    def is_new(self, worker: WorkerHandle) -> bool:
        """Whether *worker* is the one that is being tried or handed over to."""
        return worker is self._new

    def advance(self) -> None:
        """Begin what was requested."""
        if not self._wanted or self.runs:
            return
        self._wanted = False
        self._slot, self._gone, self._added = 0, [], []
        self._step = RestartStep.TRYING
        self._parent.log.info("server.restarting")
        try:
            self._try(self._parent.start_worker(0, fresh=True))
        except OSError as error:
            self._failed(f"cannot start a worker: {error.strerror}")

    def _try(self, worker: WorkerHandle) -> None:
        self._new = worker
        self._parent.pool.timers.after(READY_S, lambda: self._too_late(worker))

    def _too_late(self, worker: WorkerHandle) -> None:
        if worker is self._new and self.tries:
            self._failed(f"the new worker is not ready after {READY_S:.0f} s")

    # --- steps of the new worker -----------------------------------------------------

    def configured(self, worker: WorkerHandle, settings: dict[str, Any]) -> None:
        """The new worker has read the config."""
        if self._step is RestartStep.TRYING:
            self._settings = settings
            listeners = self._parent.listeners
            before = list(listeners.open)
            try:
                self._parent.engine.prepare_restart(self._parent.settings, settings)
                self._gone = listeners.add(settings["listen"])
            except (StartError, OSError) as error:
                self._failed(str(error))
                return
            self._added = [one for one in listeners.open if one not in before]
        self._parent.open_ledger(worker, without=self._gone)

    def ready(self, worker: WorkerHandle) -> None:
        """The new worker could serve."""
        if self._step is RestartStep.TRYING:
            self._step = RestartStep.PROBING
            worker.channel.send({"do": "probe", "state": self._state()})
        else:
            self._hand_over(worker)

    def probed(self, worker: WorkerHandle, message: Message) -> None:
        """The new worker has looked at the state of this program."""
        if self._step is not RestartStep.PROBING or worker is not self._new:
            return
        if message["problem"]:
            self._failed(message["problem"])
            return
        self._step = RestartStep.HANDING
        try:
            self._execute(self._state())
        except OSError as error:
            self._failed(f"cannot execute the new code: {error.strerror}")

    def go_on(self, known: dict[str, Any]) -> None:
        """The parent's new code: go on where the old one was."""
        parent = self._parent
        self._step, self._slot = RestartStep.HANDING, known["slot"]
        self._askers = [(pid, number) for pid, number in known["askers"]]
        self._settings = known["settings"]
        gone = known["gone"]
        self._gone = [one for one in parent.listeners.open if one.fd in gone]
        self._wanted = known["wanted"]
        for worker in parent.pool.workers:
            if worker.pid == known["new"]:
                self._new = worker
        if self._new is None:
            self._failed("the new worker has ended")
            return
        parent.changed(self._settings)
        self._new.config_number = parent.config_number
        self._hand_over(self._new)

    def _hand_over(self, new: WorkerHandle) -> None:
        """Let *new* serve instead of the old worker of its slot."""
        self._step = RestartStep.HANDING
        parent = self._parent
        for old in parent.pool.workers:
            if old.slot == new.slot and old.state == WorkerState.SERVING:
                old.state, old.ending = WorkerState.LEAVING, "replaced"
        parent.let_serve(new)

    def serving(self, worker: WorkerHandle) -> None:
        """The new worker serves."""
        if self._step is not RestartStep.HANDING or worker.slot != self._slot:
            return
        self._new = None
        self._slot += 1
        if self._slot < self._settings["workers"]:
            self._step = RestartStep.STARTING
            self._new = self._parent.start_worker(self._slot)
            return
        self._finish({"ok": True})

    def was_trial(self, worker: WorkerHandle) -> bool:
        """Whether *worker*, which has ended, only had to show that it can start."""
        if worker is not self._new:
            return False
        if self._step is RestartStep.HANDING:  # another is started in its slot
            self._new = None
            return False
        self._failed(_reason_of(worker))
        return True

    # --- the outcome -----------------------------------------------------------------

    def give_up(self, reason: str) -> None:
        """The gateway stops."""
        if self.runs:
            self._failed(reason)

    def _failed(self, reason: str) -> None:
        self._parent.log.error("restart.failed", detail=reason)
        if self._new is not None:
            self._new.ending = "not needed"
            self._new.kill()
        if self.tries:
            self._parent.listeners.close(self._added)
            self._gone = []
        self._finish({"ok": False, "reason": reason})

    def _finish(self, outcome: Outcome) -> None:
        parent = self._parent
        self._new, self._step = None, RestartStep.IDLE
        parent.listeners.close(self._gone)
        self._gone = []
        if outcome["ok"]:
            for worker in parent.pool.workers:  # of slots that there are no more
                if worker.slot >= self._settings["workers"]:
                    parent.dismiss(worker)
            parent.log.info("server.restarted", version=parent.version)
        for pid, number in self._askers:
            parent.questions.answer(pid, number, outcome)
        self._askers = []
        for worker in parent.pool.workers:
            if worker.state == WorkerState.LEAVING:
                worker.channel.send({"do": "followed"})

    def _state(self) -> parent_state.ParentState:
        assert self._new is not None
        state = dump(self._parent)
        state["restart"] = {
            "slot": self._slot,
            "new": self._new.pid,
            "askers": self._askers,
            "settings": self._settings,
            "gone": [one.fd for one in self._gone],
            "wanted": self._wanted,
        }
        return state


def _reason_of(worker: WorkerHandle) -> str:
    """Why *worker* could not start."""
    if worker.failure is None:
        return "the new worker has ended; see the log"
    return worker.failure[1] or "the config has mistakes; see config.rejected"


def followed_by(old: WorkerHandle) -> int:
    """Let *old* hand over what it has; returns the descriptor for its follower."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        old.channel.send({"do": "leave"}, [ours.fileno()])
        return os.dup(theirs.fileno())
