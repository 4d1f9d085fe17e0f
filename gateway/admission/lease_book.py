"""
The leases of this node's requests: one for each, from the first wait to the last slot.

What is given back is said at the end of the turn of the event loop: a request that ends
releases two slots, and the engine hears of it once. Where no request waits for them, it
may hear of it with the next question, in one write: that wakes it half as often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.admission.slot import Holder
from gateway.admission.slot_table import Holders
from gateway.shared import steps
from gateway.shared.steps import EngineStep, LeaseReport

UNWANTED_S = 0.002
"""What no request waits for is given back with the next question, or after so long."""


class LeaseBook:
    """
    Args:
        node: the name of this node.
        holders: everything inside admission.
        tell: takes a step whose answer says nothing.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        node: str,
        holders: Holders,
        tell: Callable[[EngineStep[Any]], object],
        clock: Callable[[], float],
    ) -> None:
        self._node = node
        self._holders = holders
        self._tell = tell
        self._clock = clock
        self._by_lease: dict[str, Holder] = {}
        self._count = 0
        self._noted: dict[Holder, bool] = {}  # with whether its turn is kept
        self._reserved: set[Holder] = set()
        self._urgent = False
        self._later: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many leases the engine must have."""
        return len(self._by_lease)

    def lease(self, holder: Holder) -> str:
        """The lease of *holder*; a new one if it has none."""
        if not holder.lease:
            self._count += 1
            holder.lease = steps.lease_id(self._node, self._count)
            self._by_lease[holder.lease] = holder
        return holder.lease

    def holder(self, lease: str) -> Holder | None:
        """Whose lease it is; None if it is over."""
        return self._by_lease.get(lease)

    def holders(self) -> list[Holder]:
        """Every holder that has a lease."""
        return list(self._by_lease.values())

    def forget(self, holder: Holder) -> None:
        """The engine has no lease of *holder*."""
        self._by_lease.pop(holder.lease, None)
        self._reserved.discard(holder)
        holder.lease = ""

    def note(
        self, holder: Holder, *, keep_turn: bool = False, wanted: bool = True
    ) -> None:
        """
        *holder* has released a slot, or left a queue.

        Args:
            keep_turn: it will wait again, where its user stands now.
            wanted: another request may wait for what it had.
        """
        if not holder.lease:
            return
        loop = asyncio.get_running_loop()
        if wanted and not self._urgent:
            self._urgent = True
            loop.call_soon(self.flush)
        elif not self._noted:
            self._later = loop.call_later(UNWANTED_S, self.flush)
        self._noted[holder] = keep_turn

    def reserve(self, holder: Holder) -> None:
        """Its wait was too long: a repeat may come back to its position."""
        if holder.session:
            self._reserved.add(holder)

    def flush(self) -> None:
        """Say now what was given back."""
        self._urgent = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._noted:
            return
        noted, self._noted = self._noted, {}
        for holder, keep_turn in noted.items():
            lease = holder.lease
            if not lease:
                continue
            if not holder.refs:
                reserve = holder.session if holder in self._reserved else ""
                self._tell(steps.leave(lease, reserve=reserve))
                self.forget(holder)
            elif (
                not holder.account
                and holder.state != "queued_account"
                and holder not in self._reserved  # it ends as a whole, at once
            ):
                self._tell(steps.leave_account(lease, keep_turn=keep_turn))

    def reports(self) -> list[LeaseReport]:
        """Everything that the engine must know."""
        self.flush()
        return [self._report(holder) for holder in self._holders.all]

    def _report(self, holder: Holder) -> LeaseReport:
        now, waiter = self._clock(), holder.waiter
        group: tuple[str, ...] = ()
        if waiter is not None and holder.state == "queued_user":
            state = "u"
        elif waiter is not None:
            state, group = "a", tuple(waiter.fits)
        elif holder.state == "draining":
            state = "D"
        else:
            state = "A" if holder.account else "U"
        return LeaseReport(
            self.lease(holder),
            state,
            holder.user,
            holder.account,
            group,
            now - holder.arrived_s,
            "",
            now - holder.since,
        )
