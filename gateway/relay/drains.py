"""
Reading on for clients that have left, to learn what their answers cost.

Bounded in time, bytes and number. The slots of the account and of the user stay taken,
since the upstream still works for both. A request that waits for one of them comes
first: the drain is given up at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from gateway.admission.interface import Slot
from gateway.relay.failures import FAILURES

MAX_DRAINS = 200
MAX_DRAIN_BYTES = 64 * 1024 * 1024  # that one may read


class Drainable(Protocol):
    """What is read on."""

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots that it holds."""
        ...

    async def read_on(self) -> bool:
        """Read the answer to its end; whether it was whole."""
        ...

    def close(self, *, answered: bool = False) -> None:
        """Be done with the upstream, and release the slots."""
        ...

    def drained(self, how: str) -> None:
        """The drain is over: "whole", "failed" or "given_up". Called once."""
        ...


class Drains:
    """
    Attributes:
        limit_s: how long one may last; 0 = none at all.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tasks)

    def __bool__(self) -> bool:
        return True

    @property
    def open(self) -> bool:
        """Whether one more may be adopted."""
        return not self._closed and 0 < self.limit_s and len(self._tasks) < MAX_DRAINS

    def adopt(self, attempt: Drainable) -> None:
        """Take over *attempt*, with its slots, from a handler that is ending."""
        how = ["given_up"]
        task = asyncio.get_running_loop().create_task(
            self._drain(attempt, how), name="drain"
        )
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            # Also for a task that was cancelled before its first step.
            self._tasks.discard(task)
            attempt.close(answered=how[0] == "whole")
            attempt.drained(how[0])

        task.add_done_callback(over)
        for slot in attempt.slots:
            slot.drain(task.cancel)

    async def _drain(self, attempt: Drainable, how: list[str]) -> None:
        try:
            async with asyncio.timeout(self.limit_s):
                how[0] = "whole" if await attempt.read_on() else "failed"
        except FAILURES:
            how[0] = "failed"
        except TimeoutError:
            pass

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
