"""
What a worker asks of its parent, since it concerns all processes.

    worker   {"is": "ask", "what": "restart", "number": 7}
    parent   {"do": "answer", "number": 7, "outcome": {"ok": true, …}}

The outcome of a ``restart`` comes when the new workers serve, that of a ``reload`` when
every worker has the config. ``ok`` false comes with a ``reason``, or with ``mistakes``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.daemon.channel import Message
from gateway.daemon.worker_handle import WorkerHandle

if TYPE_CHECKING:
    from gateway.daemon.parent import Parent


class ParentQuestions:
    """Takes the questions, and sends the answers."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent

    def asked(self, worker: WorkerHandle, message: Message) -> None:
        """*worker* asks for something."""
        asker = worker.pid, message["number"]
        what = message["what"]
        if self._parent.stops:
            self.answer(*asker, {"ok": False, "reason": "the gateway stops"})
        elif what == "restart":
            self._parent.restart.request(asker)
        elif what == "reload":
            self._parent.reload.request(partial(self.answer, *asker))
        else:
            self.answer(*asker, {"ok": False, "reason": f"{what} is not known here"})

    def answer(self, pid: int, number: int, outcome: dict[str, Any]) -> None:
        """Answer the question *number* of the worker *pid*, if it still lives."""
        for worker in self._parent.pool.workers:
            if worker.pid == pid:
                worker.channel.send(
                    {"do": "answer", "number": number, "outcome": outcome}
                )
