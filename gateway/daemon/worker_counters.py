"""
A worker's counters among those of the others: see ``parent_counters``.

Rule: a scrape is answered in any case; without the parent with what was heard last.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.daemon.channel import Message
from gateway.daemon.parent_link import ParentLink
from gateway.telemetry.merged_metrics import Samples
from gateway.telemetry.metrics import Metrics

ANSWER_S = 1.0


class WorkerCounters:
    """
    Args:
        link: to the parent.
    """

    def __init__(self, link: ParentLink, metrics: Metrics) -> None:
        self._link = link
        self._metrics = metrics
        self._heard: Samples = {}
        self._number = 0
        self._asked: dict[int, asyncio.Future[Samples]] = {}
        link.on("counters", self._answered)
        link.on("count", lambda message, fds: self.say(message["number"]))

    async def others(self) -> Samples:
        """What the other processes have counted, and those before them."""
        self._number += 1
        number, loop = self._number, asyncio.get_running_loop()
        self._asked[number] = loop.create_future()
        self._link.say("counters", number=number, growing=self._metrics.growing())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    self._heard = await self._asked[number]
        finally:
            del self._asked[number]
        return self._heard

    def say(self, number: int = 0) -> None:
        """Say what this process has counted."""
        metrics = self._metrics
        facts = {"growing": metrics.growing(), "counted": metrics.counted()}
        self._link.say("counted", number=number, **facts)

    def _answered(self, message: Message, fds: list[int]) -> None:
        asked = self._asked.get(message["number"])
        if asked is not None and not asked.done():
            asked.set_result(message["samples"])
