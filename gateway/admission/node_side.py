"""
This node towards the engine: what it has, what it is granted, what it may do alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from gateway.admission.governed_table import GovernedTable
from gateway.admission.lease_book import LeaseBook
from gateway.admission.limiter import Limiter
from gateway.admission.slot import SlotWaiter
from gateway.shared import steps
from gateway.shared.answers import GateCount, LeaseNews, PlacesAnswer, Push
from gateway.shared.membership import Membership, NodeBook
from gateway.shared.shares import LastBeat, equal_part, share_of
from gateway.shared.steps import LeaseReport
from gateway.telemetry.engine_metrics import SlotsOver

EQUAL_AFTER_S = 15.0  # an outage that is longer than a fail-over
REFUSE_AFTER_S = 2.5  # a second before the others have this node's slots
PLACES_EVERY_S = 2.0
PLACES_AT_ONCE = 100  # waiters
GATES_AT_ONCE = 500  # whose loads a beat asks for


class NodeSide(NodeBook):
    """
    Its methods are the ``NodeBook``, and what the registry asks about the engine.

    Args:
        take_account: takes an account's slot for a waiter, or gives it back.
        alone_room: refuses those beyond what may wait, once this node decides.
        refuse: whether a node that has lost the engine refuses new requests.

    Attributes:
        refusing: whether it does now.
    """

    engine: Membership
    book: LeaseBook

    def __init__(
        self,
        users: GovernedTable,
        accounts: GovernedTable,
        clock: Callable[[], float],
        take_account: Callable[[SlotWaiter, str], None],
        alone_room: Callable[[], object],
        refuse: Callable[[], bool],
    ) -> None:
        self._users, self._accounts = users, accounts
        self._clock = clock
        self._take_account = take_account
        self._alone_room = alone_room
        self._refuse = refuse
        self.refusing = False
        self._timers: list[asyncio.TimerHandle] = []
        self._last: dict[str, LastBeat] = {}
        self._held_at_beat: dict[str, int] = {}
        self._places_at = 0.0
        self._place_turn = 0

    # --- what it has ------------------------------------------------------------------

    def reports(self) -> Sequence[LeaseReport]:
        return self.book.reports()

    def lease_count(self) -> int:
        self.book.flush()
        return len(self.book)

    def gates(self) -> Sequence[str]:
        accounts = [f"a{name}" for name in self._accounts.limiters]
        users = [
            f"u{name}"
            for name, limiter in self._users.limiters.items()
            if limiter.limit and limiter.slots
        ]
        gates = (accounts + users)[:GATES_AT_ONCE]
        self._held_at_beat = {gate: self._held(gate) for gate in gates}
        return gates

    def limits(self) -> Sequence[tuple[str, int | None]]:
        return [
            (f"{table.scope[0]}{name}", limiter.limit)
            for table in (self._users, self._accounts)
            for name, limiter in table.limiters.items()
            if not limiter.removed
        ]

    # --- who decides ------------------------------------------------------------------

    def joined(self) -> None:
        self.refusing = False
        self._stop_timers()
        self._users.govern()
        self._accounts.govern()

    def lost(self) -> None:
        for table in (self._users, self._accounts):
            table.decide(partial(self._share_of, table.scope[0]))
        self._alone_room()
        self._users.evict_needed()
        self._accounts.evict_needed()
        loop = asyncio.get_running_loop()
        self._stop_timers()
        self._timers = [
            loop.call_later(REFUSE_AFTER_S, self._begin_refusing),
            loop.call_later(EQUAL_AFTER_S, self._divide_equally),
        ]

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _divide_equally(self) -> None:
        if self.engine.up or self.refusing:
            return
        engine = self.engine

        def part(limiter: Limiter) -> int:
            return equal_part(limiter.limit, engine.nodes, engine.rank)

        self._users.decide(part)
        self._accounts.decide(part)

    def _begin_refusing(self) -> None:
        if not self.engine.up and self._refuse():
            self.refusing = True
            # Nothing is granted here, and by no other.
            self._users.govern()
            self._accounts.govern()

    def _share_of(self, kind: str, limiter: Limiter) -> int:
        last = self._last.get(f"{kind}{limiter.name}")
        held = len(limiter.slots)
        engine = self.engine
        return share_of(limiter.limit, held, last, engine.nodes, engine.rank)

    # --- what the engine says ---------------------------------------------------------

    def corrected(self, news: Sequence[LeaseNews]) -> None:
        for lease, state, account in news:
            if state != "D":
                self.pushed(Push(state, lease, account))

    def pushed(self, push: Push) -> None:
        lease, holder = push.lease, self.book.holder(push.lease)
        if holder is None:  # it is gone; what it was granted is another's
            self.engine.tell(steps.leave(lease))
        elif push.kind == "E":
            self._users.evict(holder)
            self._accounts.evict(holder)
        elif push.kind == "U":
            if holder.waiter is not None and holder.state == "queued_user":
                self._users.grant(holder.waiter, holder.user)
        elif holder.waiter is not None and holder.state == "queued_account":
            self._take_account(holder.waiter, push.account)
        elif holder.account != push.account:  # it left the line meanwhile
            self.engine.tell(steps.leave_account(lease, keep_turn=True))

    def beaten(self, gates: Sequence[str], counts: Sequence[GateCount]) -> None:
        # The engine's number is between what was held when the beat was sent and now.
        self._last = {
            gate: LastBeat(
                count.used, max(self._held(gate), self._held_at_beat.get(gate, 0))
            )
            for gate, count in zip(gates, counts)
        }
        now = self._clock()
        if now - self._places_at >= PLACES_EVERY_S and self.engine.up:
            self._places_at = now
            self._ask_places()

    def _held(self, gate: str) -> int:
        table = self._users if gate[0] == "u" else self._accounts
        limiter = table.limiters.get(gate[1:])
        return len(limiter.slots) if limiter else 0

    def _ask_places(self) -> None:
        """Where the waiters stand now; of many, some at a time."""
        waiting = [
            holder
            for holder in self.book.holders()
            if holder.waiter is not None and holder.waiter.queued
        ]
        if not waiting:
            return
        begin = self._place_turn % len(waiting)
        some = (waiting[begin:] + waiting[:begin])[:PLACES_AT_ONCE]
        self._place_turn = begin + len(some)
        self.engine.ask(steps.places([one.lease for one in some]), self._placed)

    def _placed(self, answer: PlacesAnswer) -> None:
        for lease, place in answer.places.items():
            holder = self.book.holder(lease)
            if holder is None or holder.waiter is None:
                continue
            at_user = holder.state == "queued_user"
            table = self._users if at_user else self._accounts
            # A push on its way may have moved it to the other line.
            if place.loads and place.loads[0].gate[0] == table.scope[0]:
                table.placed(holder.waiter, place)

    # --- how full everything is -------------------------------------------------------

    def in_use(self, gate: str, here: int) -> int:
        """Slots in use at all nodes, by the last beat and what is held *here* now."""
        last = self._last.get(gate)
        if last is None or not self.engine.up:
            return here
        return max(here, last.used - last.held + here)

    def over(self) -> list[SlotsOver]:
        """Where more runs than the limit says."""
        found = []
        for table in (self._users, self._accounts):
            for name, limiter in table.limiters.items():
                used = self.in_use(f"{table.scope[0]}{name}", len(limiter.slots))
                if limiter.limit and used > limiter.limit:
                    found.append(SlotsOver(table.scope, name, used - limiter.limit))
        return found


def waits(waiter: SlotWaiter) -> bool:
    """Whether *waiter* still waits."""
    return waiter.queued and not waiter.done.done()


def tiers_within(waiter: SlotWaiter) -> list[list[str]]:
    """The tiers of *waiter*, without what it may not have yet."""
    tiers = [[name for name in tier if name in waiter.fits] for tier in waiter.tiers]
    return [tier for tier in tiers if tier]
