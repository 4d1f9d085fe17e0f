"""
The counters of all workers, so that any of them can answer for all, and for the dead.

    a worker is scraped ──▶ {"is": "counters", "number": 7, "growing": …}
    the parent asks the others, and waits for them a moment
    the worker          ◀── {"do": "counters", "number": 7, "samples": …}

Rule: what a scrape has shown of a worker stays in the sum when that ends, however it
      ends.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.daemon.channel import Message
from gateway.daemon.worker_handle import WorkerHandle
from gateway.daemon.worker_pool import WorkerPool

COUNT_S = 0.5  # for the other workers to answer

Samples = dict[str, float]


class ParentCounters:
    """
    Attributes:
        retired: the sums of workers that have ended.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self.retired: Samples = {}
        self._pool = pool
        self._number = 0
        self._waiting: dict[int, set[WorkerHandle]] = {}  # by gathering
        self._then: dict[int, Callable[[], object]] = {}
        self._live: dict[WorkerHandle, Samples] = {}

    def asked(self, worker: WorkerHandle, message: Message) -> None:
        """*worker* is scraped."""
        worker.counted = message["growing"]
        others = {one for one in self._pool.workers if one is not worker and one.node}
        self._number += 1
        number = self._number

        def answer() -> None:
            if self._waiting.pop(number, None) is not None:
                del self._then[number]
                samples = self._samples_beside(worker)
                said = {"number": message["number"], "samples": samples}
                worker.channel.send({"do": "counters", **said})

        self._waiting[number], self._then[number] = others, answer
        if not others:
            answer()
            return
        for one in others:
            one.channel.send({"do": "count", "number": number})
        self._pool.timers.after(COUNT_S, answer)

    def counted(self, worker: WorkerHandle, message: Message) -> None:
        """*worker* says what it has counted; without a number: before it ends."""
        worker.counted = message["growing"]
        self._live[worker] = message["counted"]
        number = message["number"]
        if number in self._waiting:
            self._waiting[number].discard(worker)
            if not self._waiting[number]:
                self._then[number]()

    def ended(self, worker: WorkerHandle) -> None:
        """Keep what *worker* has shown."""
        self._live.pop(worker, None)
        _add(self.retired, worker.counted)
        worker.counted = {}

    def _samples_beside(self, worker: WorkerHandle) -> Samples:
        samples = dict(self.retired)
        for one in self._pool.workers:
            if one is not worker:
                _add(samples, one.counted)
                _add(samples, self._live.get(one, {}))
        return samples


def _add(sums: Samples, more: Samples) -> None:
    for key, value in more.items():
        sums[key] = sums.get(key, 0.0) + value
