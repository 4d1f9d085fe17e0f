"""
Reading on for clients that have left, to learn what their answers cost.

Bounded in time, bytes and number. The account's slot stays taken, since the upstream
still works for it, but whoever waits for that slot comes first: the drain is given
up at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.admission.registry import Slot
from gateway.errors import UpstreamError
from gateway.exchange import Course, Exchange
from gateway.protocols.wire import Facts
from gateway.turn import Turn

MAX_DRAINS = 200
MAX_DRAIN_BYTES = 64 * 1024 * 1024

Done = Callable[[Turn, Facts, str], None]
"""Called once with how the drain ended: "whole", "given_up", "failed"."""


class Drains:
    """
    Args:
        limit_s: how long one may last; 0 = none at all.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def adopt(
        self, turn: Turn, exchange: Exchange, course: Course, slot: Slot, done: Done
    ) -> bool:
        """Take over *exchange* and *slot* from a handler that is ending, if possible."""
        if (
            self._closed
            or not self._limit_s
            or len(self._tasks) >= MAX_DRAINS
            or not exchange.reply
        ):
            return False
        turn.record.drained = True
        task = asyncio.get_running_loop().create_task(
            self._drain(turn, exchange, course, slot, done),
            name=f"drain {turn.record.request_id}",
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        slot.drain(task.cancel)
        return True

    async def _drain(
        self, turn: Turn, exchange: Exchange, course: Course, slot: Slot, done: Done
    ) -> None:
        how = "given_up"
        try:
            async with asyncio.timeout(self._limit_s):
                batch = await exchange.drain(course, MAX_DRAIN_BYTES)
            whole = batch and batch.ending and batch.ending.outcome != "failed"
            how = "whole" if whole else "failed"
        except UpstreamError:
            how = "failed"
        except (TimeoutError, asyncio.CancelledError):
            pass  # nobody awaits this task: being cancelled is being given up
        finally:
            exchange.close(answered=how == "whole")
            slot.release()
            done(turn, course.facts, how)

    def close(self) -> None:
        """Adopt nothing any more."""
        self._closed = True

    async def stop(self) -> None:
        """Give all of them up."""
        self.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
