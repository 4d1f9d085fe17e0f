"""
Reading on for clients that have left, to learn what their answers cost.

Bounded in time, bytes and number. The slots of the account and of the user stay taken,
since the upstream still works for both, but a request that waits for one of them comes
first: the drain is given up at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.admission.interface import Slot
from gateway.errors import UpstreamError
from gateway.relay.failures import StatedFailure, UpstreamRefusal
from gateway.relay.upstream_call import UpstreamCall

MAX_DRAINS = 200

Reading = Callable[[], Coroutine[Any, Any, bool]]
"""Reads an answer to its end; whether it was whole."""


class Drains:
    """
    Attributes:
        limit_s: how long one may last; 0 = none at all.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def open(self) -> bool:
        """Whether one more may be adopted."""
        return not self._closed and 0 < self.limit_s and len(self._tasks) < MAX_DRAINS

    def adopt(
        self,
        exchange: UpstreamCall,
        slots: Sequence[Slot],
        read: Reading,
        done: Callable[[str], None],
    ) -> None:
        """
        Take over *exchange* and *slots* from a handler that is ending.

        Args:
            done: called once with how it ended: "whole", "failed" or "given_up".
        """
        how = ["given_up"]
        task = asyncio.get_running_loop().create_task(
            self._drain(exchange, read, how), name="drain"
        )
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            # Also for a task that was cancelled before its first step.
            self._tasks.discard(task)
            exchange.close()
            for slot in slots:
                slot.release()
            done(how[0])

        task.add_done_callback(over)
        for slot in slots:
            slot.drain(task.cancel)

    async def _drain(
        self, exchange: UpstreamCall, read: Reading, how: list[str]
    ) -> None:
        try:
            async with asyncio.timeout(self.limit_s):
                how[0] = "whole" if await read() else "failed"
        except (UpstreamError, UpstreamRefusal, StatedFailure):
            how[0] = "failed"
        except TimeoutError:
            pass
        exchange.close(answered=how[0] == "whole")

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
