"""
How long the upstream may take until something of an answer is there.

It is ``asyncio.timeout`` at a third of its price, which every request pays, and its
time-out is the upstream's failure. It cannot be entered twice.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from gateway.errors import UpstreamError
from gateway.transport.idle_timeout import grace_until
from gateway.transport.timers import NOT_WAITING, timers_of


class FirstEventTimeout:
    """
    A context manager that interrupts its block after *limit_s* seconds.

    Raises:
        UpstreamError: "upstream_timeout", at the end of the block.
    """

    __slots__ = (
        "_limit_s",
        "_loop",
        "_timer",
        "_task",
        "_due",
        "_cancelling",
        "_expired",
    )

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timer = NOT_WAITING
        self._expired = False

    def __enter__(self) -> FirstEventTimeout:
        self._loop = loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task
        self._task = task
        self._cancelling = task.cancelling()
        self._due = loop.time() + self._limit_s
        self._timer = timers_of(loop).at(self._due, self)
        return self

    def end(self) -> None:
        """What was waited for is there: the rest of the block may take its time."""
        if self._timer:
            timers_of(self._loop).end(self._timer, self)
            self._timer = NOT_WAITING

    def on_timer(self) -> None:
        """See ``TimerOwner``: the time is over."""
        self._timer = NOT_WAITING
        if again := grace_until(self._loop.time(), self._due):
            self._due = math.inf  # once
            self._timer = timers_of(self._loop).at(again, self)
            return
        self._expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        if not self._expired:
            return
        # Somebody else may have cancelled the task, too: then it stays cancelled.
        ours = self._task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise UpstreamError("upstream_timeout") from None
