"""One of the times of a wait in a queue, among those of all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.admission.slot import SlotWaiter
from gateway.admission.slot_table import SlotTable
from gateway.transport.timers import timers_of


class WaitTimer:
    """
    Calls *action* with *table* and *waiter* in *seconds*, unless it is ended before.
    """

    __slots__ = ("_loop", "_number", "_action", "_table", "_waiter")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        action: Callable[[SlotTable, SlotWaiter], object],
        table: SlotTable,
        waiter: SlotWaiter,
    ) -> None:
        self._loop = loop
        self._action = action
        self._table = table
        self._waiter = waiter
        self._number = timers_of(loop).at(loop.time() + seconds, self)

    def on_timer(self) -> None:
        """See ``TimerOwner``."""
        self._action(self._table, self._waiter)

    def cancel(self) -> None:
        """Do not call it."""
        timers_of(self._loop).end(self._number, self)
