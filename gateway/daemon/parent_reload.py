"""
A reload of all workers: one reads the config and judges it, the others take it over.

Rule 1: so they all have the same config, or all keep the old one.
Rule 2: reloads that are asked for during one become one more behind it.
Rule 3: a rolling restart holds one up only while its new code is tried. Replacing all
workers may take minutes, and what serves meanwhile has the limits of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.daemon.channel import Message
from gateway.daemon.systemd import Notifier
from gateway.daemon.worker_handle import WorkerHandle, WorkerState
from gateway.daemon.worker_pool import WorkerPool

ADOPT_S = 10.0  # for a worker to take over a config; it then goes on with it alone

Outcome = dict[str, Any]


class ParentReload:
    """
    Args:
        changed: called with the settings of a config that was taken up.
    """

    def __init__(
        self,
        pool: WorkerPool,
        notifier: Notifier,
        changed: Callable[[dict[str, Any]], None],
    ) -> None:
        self._pool = pool
        self._notifier = notifier
        self._changed = changed
        self._wanted: list[Callable[[Outcome], object]] | None = None
        self._asked: list[Callable[[Outcome], object]] = []
        self._leader: WorkerHandle | None = None
        self._adopting: set[WorkerHandle] = set()
        self._outcome: Outcome = {}
        self._tells_systemd = False

    def request(self, done: Callable[[Outcome], object] | None = None) -> None:
        """
        Reload soon.

        Args:
            done: called with the outcome: ``ok``, and what changed or is wrong.
        """
        self._wanted = self._wanted or []
        if done is not None:
            self._wanted.append(done)

    @property
    def runs(self) -> bool:
        """Whether one is under way."""
        return self._leader is not None or bool(self._adopting)

    def advance(self, tells_systemd: bool) -> None:
        """Begin what was requested, end what has no worker left."""
        self._tells_systemd = self._tells_systemd and tells_systemd
        if self._leader and self._leader not in self._pool.workers:
            self._leader = None
            self._finish({"ok": False, "reason": "the worker that read it has ended"})
        self._adopting &= set(self._pool.workers)
        if self._outcome and not self._adopting:
            self._finish(self._outcome)
        if self._wanted is None or self.runs:
            return
        readers = [
            one for one in self._pool.workers if one.state >= WorkerState.SERVING
        ]
        if not readers:
            return
        self._asked, self._wanted = self._wanted, None
        # Not one that leaves, and in a restart the newest code.
        self._leader = min(readers, key=lambda one: (one.state, -one.began_at))
        self._tells_systemd = tells_systemd
        if tells_systemd:
            self._notifier.reloading()
        self._leader.channel.send({"do": "reload"})

    def answered(self, worker: WorkerHandle, message: Message) -> None:
        """*worker* has read the config, or taken it over."""
        if message["is"] == "adopted":
            self._adopting.discard(worker)
        elif worker is self._leader:
            self._leader, self._outcome = None, message["outcome"]
            if settings := message.get("settings"):
                self._changed(settings)
                self._spread(worker, settings["served"])

    def _spread(self, leader: WorkerHandle, served: Any) -> None:
        for worker in self._pool.workers:
            if worker is not leader and worker.state >= WorkerState.READY:
                worker.channel.send({"do": "adopt", "served": served})
                self._adopting.add(worker)
        if self._adopting:
            waited_for = set(self._adopting)
            self._pool.timers.after(ADOPT_S, lambda: self._give_up(waited_for))

    def _give_up(self, waited_for: set[WorkerHandle]) -> None:
        self._adopting -= waited_for

    def _finish(self, outcome: Outcome) -> None:
        self._outcome = {}
        if self._tells_systemd:
            self._notifier.ready()
        for done in self._asked:
            done(outcome)
        self._asked = []
