"""
What a worker asks of its parent, since it concerns all processes.

    worker   {"is": "ask", "what": "restart", "number": 7}
    parent   {"do": "answer", "number": 7, "outcome": {"ok": true, …}}

The outcome of a ``restart`` comes when the new workers serve, that of a ``reload`` when
every worker has the config. ``ok`` false comes with a ``reason``, or with ``mistakes``.
``processes`` is answered at once, also while the gateway stops: the parent and each of
its workers.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.daemon.channel import Message
from gateway.daemon.worker_handle import WorkerHandle

if TYPE_CHECKING:
    from gateway.daemon.parent import Parent


class ParentQuestions:
    """
    Takes the questions, and sends the answers.

    Attributes:
        started_at: of the gateway, in Unix seconds; the same over every restart.
    """

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self.started_at = time.time()

    def asked(self, worker: WorkerHandle, message: Message) -> None:
        """*worker* asks for something."""
        asker = worker.pid, message["number"]
        what = message["what"]
        if what == "processes":
            self.answer(*asker, self._processes())
        elif self._parent.stops:
            self.answer(*asker, {"ok": False, "reason": "the gateway stops"})
        elif what == "restart":
            self._parent.restart.request(asker)
        elif what == "reload":
            self._parent.reload.request(partial(self.answer, *asker))
        else:
            self.answer(*asker, {"ok": False, "reason": f"{what} is not known here"})

    def _processes(self) -> dict[str, Any]:
        now = time.monotonic()
        workers = [
            {
                "worker": one.slot,
                "pid": one.pid,
                "node": one.node,
                "state": one.state.name.lower(),
                "uptime_s": round(now - one.began_at, 3),
            }
            for one in self._parent.pool.workers
        ]
        pid, started_at = os.getpid(), self.started_at
        return {"ok": True, "pid": pid, "started_at": started_at, "workers": workers}

    def answer(self, pid: int, number: int, outcome: dict[str, Any]) -> None:
        """Answer the question *number* of the worker *pid*, if it still lives."""
        for worker in self._parent.pool.workers:
            if worker.pid == pid:
                worker.channel.send(
                    {"do": "answer", "number": number, "outcome": outcome}
                )
