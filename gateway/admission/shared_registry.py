"""
Admission of many processes and hosts: the engine decides who is next, for all of them.

    the engine is there   a request waits in the engine and is granted there; the tables
                          here are the list of what waits and runs on this node
    it is away            the same tables decide, as in one process, with this node's
                          share of what was free (``shared.shares``)

Rule 1: who waits here waits in the engine, too, in the same order: so either side can
        take over at any moment, and no waiter moves.
Rule 2: what the engine grants to a request that is gone is given back at once; what it
        was asked and has not answered is asked by saying everything again.
Rule 3: no request waits for an engine that is away, and none fails because of it, but
        where the operator asked for that (``refuse``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from gateway.admission.governed_table import GovernedTable
from gateway.admission.interface import HolderInfo
from gateway.admission.lease_book import LeaseBook
from gateway.admission.node_side import NodeSide, tiers_within, waits
from gateway.admission.registry import (
    Registry,
    overloaded,
    refuse,
    say_wait,
    user_removed,
)
from gateway.admission.slot import (
    AccountsChanged,
    Holder,
    Slot,
    SlotWaiter,
    Tiers,
    Wanted,
)
from gateway.admission.slot_table import SlotTable
from gateway.errors import GatewayError, Overloaded
from gateway.shared import steps
from gateway.shared.answers import AccountAnswer, Outcome, UserAnswer
from gateway.shared.bus import Bus
from gateway.shared.membership import Membership

UNBOUNDED = 1_000_000_000
MAX_HOLDERS = 10_000  # that one node lists for another
END_S = 2.0  # for another node to say that it has ended a request


class SharedRegistry(Registry):
    """
    The ``Admission`` of one node of many; ``engine`` is set before it is used. It has
    the methods of ``Registry`` and of ``NodeBook``.

    Args:
        refuse: whether a node that has lost the engine refuses new requests.

    Attributes:
        side: this node towards the engine.
        per_minute: how many requests a minute a user may send; 0 = no limit.
        too_often: the refusal of one more, by the user and the seconds until the next.
    """

    engine: Membership
    _users: GovernedTable
    _accounts: GovernedTable

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        end_running: Callable[[str, GatewayError], bool] = lambda ident, error: False,
        refuse: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(clock=clock, end_running=end_running)
        self._known_limits: dict[str, int] = {}
        self._may_return: dict[str, float] = {}  # until when, by user
        self.per_minute: Callable[[str], int] = lambda user: 0
        self.too_often: Callable[[str, float], GatewayError] = _too_often
        self.side = NodeSide(
            self._users,
            self._accounts,
            clock,
            self._take_account,
            self._refuse_excess,
            refuse,
        )

    def attach(self, engine: Membership, bus: Bus) -> None:
        """Work with *engine*, whose book is ``side``, and with the other nodes."""
        self._bus = bus
        bus.answer("holders", lambda text: self._holders_text())
        bus.answer("end", self._end_for)
        bus.listen("reserved", self._reserved_elsewhere)
        self.engine = self.side.engine = engine
        self._book = self.side.book = LeaseBook(
            engine.node, self._holders, engine.tell, self._clock
        )

    def _table(self, scope: str) -> GovernedTable:
        return GovernedTable(
            scope,
            self._holders,
            self._clock,
            self._released,
            self._drained,
            self._widened,
            lambda gate, here: self.side.in_use(gate, here),
        )

    # --- requests (see SlotSource) ----------------------------------------------------

    def _arrive(self, holder: Holder, session: str) -> None:
        super()._arrive(holder, session)
        if not holder.arrived_s:
            holder.arrived_s = self._clock()

    async def user_slot(
        self,
        user: str,
        holder: Holder,
        deadline: float,
        *,
        session: str = "",
        ahead: Callable[[], Tiers] | None = None,
    ) -> Slot:
        if self.side.refusing:
            raise Overloaded("engine_unavailable", retry_after_s=1.0)
        if ahead is not None and self._governed:
            holder.ahead = ahead()
        return await super().user_slot(user, holder, deadline, session=session)

    def _account_now(
        self, candidates: Tiers, holder: Holder, prefer: str
    ) -> Slot | None:
        slot, holder.ahead_slot = holder.ahead_slot, None
        if slot is None:
            return super()._account_now(candidates, holder, prefer)
        wanted = ((prefer,),) if prefer else candidates
        if any(slot.name in tier for tier in wanted):
            return slot
        slot.release()  # what was chosen then is not the choice of now
        return None

    async def _wait(self, table: SlotTable, holder: Holder, wanted: Wanted) -> Slot:
        self._book.flush()
        try:
            return await super()._wait(table, holder, wanted)
        except AccountsChanged:
            self._book.note(holder, keep_turn=True)
            raise
        except BaseException as error:
            if isinstance(error, Overloaded) and error.code == "queue_timeout":
                self._book.reserve(holder)
                self._bus.tell("reserved", holder.user)
            self._book.note(holder)
            raise

    def _check_room(self, table: SlotTable, waiter: SlotWaiter) -> None:
        if not self._governed:
            super()._check_room(table, waiter)
        elif waiter.holder.user not in self._max_queued:
            table.leave_queue(waiter)
            raise user_removed()

    def _begin_wait(self, table: SlotTable, waiter: SlotWaiter) -> None:
        if not self._governed:
            super()._begin_wait(table, waiter)
        elif self.engine.up:
            self._ask(waiter)

    def _reserved_elsewhere(self, user: str) -> None:
        """Another node has reserved a position: its request may come back here."""
        if user in self._max_queued:
            self._may_return[user] = self._clock() + steps.RESERVED_S

    def _any_reserved(self, user: str) -> bool:
        elsewhere = self._may_return.get(user, 0.0) > self._clock()
        return elsewhere or super()._any_reserved(user)

    @property
    def _governed(self) -> bool:
        return self._users.governed

    # --- what the engine is asked, and answers ----------------------------------------

    def _ask(self, waiter: SlotWaiter, *, again: bool = False) -> None:
        holder, generation = waiter.holder, self.engine.generation
        lease, most = self._book.lease(holder), self._max_queued.get(holder.user, 0)
        if holder.state == "queued_user":
            self.engine.ask(
                steps.enter_user(
                    lease,
                    holder.user,
                    UNBOUNDED if holder.admitted else most,
                    age_s=self._clock() - holder.arrived_s,
                    session=holder.session,
                    requests_per_minute=self.per_minute(holder.user),
                    ahead=holder.ahead,
                ),
                lambda one: self._user_answered(waiter, one, generation, again),
            )
        else:
            most = -1 if holder.admitted else most
            self.engine.ask(
                steps.enter_account(lease, tiers_within(waiter), waiter.fits, most),
                lambda one: self._account_answered(waiter, one, generation, again),
            )

    def _user_answered(
        self, waiter: SlotWaiter, answer: UserAnswer, generation: int, again: bool
    ) -> None:
        if answer.drawn:
            self.side.spares.drawn(f"u{waiter.holder.user}")
        if answer.account_drawn:
            self.side.spares.drawn(f"a{answer.account}")
        if answer.outcome is Outcome.GRANTED:
            if self._users.grant(waiter, waiter.holder.user) and answer.account:
                self._hold_ahead(waiter.holder, answer.account)
            return
        self._not_granted(self._users, waiter, answer, generation, again)

    def _account_answered(
        self, waiter: SlotWaiter, answer: AccountAnswer, generation: int, again: bool
    ) -> None:
        if answer.drawn:
            self.side.spares.drawn(f"a{answer.account}")
        if answer.outcome is Outcome.GRANTED:
            self._take_account(waiter, answer.account)
            return
        self._not_granted(self._accounts, waiter, answer, generation, again)

    def _hold_ahead(self, holder: Holder, account: str) -> None:
        """A slot of *account* came with the user's."""
        holder.ahead_slot = self._accounts.hold(holder, account)
        if holder.ahead_slot is None:  # a reload has taken this account away
            self.engine.tell(steps.leave_account(holder.lease))

    def _take_account(self, waiter: SlotWaiter, account: str) -> None:
        """Take the slot, or give it back and ask for another."""
        if self._accounts.grant(waiter, account):
            return
        if waits(waiter):  # a reload has taken this account away
            lease = self._book.lease(waiter.holder)
            self.engine.tell(steps.leave_account(lease, keep_turn=True))
            self._ask(waiter)

    def _not_granted(
        self,
        table: GovernedTable,
        waiter: SlotWaiter,
        answer: UserAnswer | AccountAnswer,
        generation: int,
        again: bool,
    ) -> None:
        if answer.outcome is Outcome.FENCED:
            self.engine.rejoin(generation)
            return
        if not waits(waiter) or not self._governed:
            return  # what became of it was said, or will be
        holder = waiter.holder
        if answer.place is not None:
            table.placed(waiter, answer.place)
        if answer.outcome is Outcome.QUEUED:
            holder.admitted = True
            say_wait(table, waiter)
        elif answer.outcome is Outcome.FULL:
            position = table.position(waiter)
            table.leave_queue(waiter)
            if table is self._users:
                self._book.forget(holder)
            refuse(waiter, overloaded("queue_full", position))
        elif isinstance(answer, UserAnswer) and answer.retry_s:
            table.leave_queue(waiter)
            self._book.forget(holder)
            refuse(waiter, self.too_often(holder.user, answer.retry_s))
        elif again:  # it does not learn what it is taught
            table.leave_queue(waiter)
            accounts_gone = table is self._accounts
            refuse(waiter, AccountsChanged() if accounts_gone else user_removed())
        else:
            self._teach(table, waiter)

    def _teach(self, table: GovernedTable, waiter: SlotWaiter) -> None:
        """The engine does not know the names: another node may have removed them."""
        kind = table.scope[0]
        known = [
            (f"{kind}{name}", limiter.limit)
            for name in waiter.fits
            if (limiter := table.limiters.get(name)) and not limiter.removed
        ]
        for step in steps.conf(self.engine.node, "", known):
            self.engine.tell(step)
        self._ask(waiter, again=True)

    def _released(self, slot: Slot, wanted: bool) -> None:
        if slot.scope == "user" and slot.holder.ahead_slot is not None:
            slot.holder.ahead_slot.release()  # it never asked for an account
            slot.holder.ahead_slot = None
        self._book.note(slot.holder, wanted=wanted)
        self.side.released(f"{slot.scope[0]}{slot.name}")

    def _drained(self, holder: Holder) -> None:
        if self._governed and holder.lease:
            self._book.flush()
            self.engine.tell(steps.drain(holder.lease))

    def _widened(self, waiter: SlotWaiter) -> None:
        """*waiter* takes other accounts than before, at its old position."""
        if not self.engine.up:
            return
        generation = self.engine.generation
        self.engine.ask(
            steps.regroup(
                self._book.lease(waiter.holder), tiers_within(waiter), waiter.fits
            ),
            lambda answer: self._account_answered(waiter, answer, generation, False),
        )

    # --- limits (see AdmissionLimits) -------------------------------------------------

    def set_user(self, name: str, max_concurrent: int, max_queued: int) -> None:
        super().set_user(name, max_concurrent, max_queued)
        self._tell_limit(f"u{name}", max_concurrent)

    def set_account(self, name: str, max_concurrent: int) -> None:
        super().set_account(name, max_concurrent)
        self._tell_limit(f"a{name}", max_concurrent)

    def remove_account(self, name: str) -> None:
        touched = self._accounts.queue.at(name)
        super().remove_account(name)
        if self._governed:
            for waiter in touched:
                if waits(waiter):
                    self._widened(waiter)

    def _refuse_excess(self) -> None:
        """Now that this node decides: those that the engine had not let wait yet."""
        for holder in [one for one in self._holders.all if one.waiter is not None]:
            waiter = holder.waiter
            if waiter is None or not waits(waiter) or holder.admitted:
                continue
            table = self._table_of(holder)
            position = table.position(waiter)
            try:
                super()._check_room(table, waiter)
            except GatewayError:
                refuse(waiter, overloaded("queue_full", position))

    def _tell_limit(self, gate: str, limit: int) -> None:
        if self._known_limits.get(gate) == limit:
            return
        self._known_limits[gate] = limit
        if engine := getattr(self, "engine", None):
            for step in steps.conf(engine.node, engine.config, [(gate, limit)]):
                engine.tell(step)

    # --- who holds what (see AdmissionView) -------------------------------------------

    async def holders(self) -> list[HolderInfo]:
        found = self._holders_here()
        for text in await self._bus.ask("holders"):
            found += [HolderInfo(*row) for row in json.loads(text)]
        return found

    def _holders_here(self) -> list[HolderInfo]:
        node = self.engine.node
        return [one._replace(node=node) for one in self.holders_now()]

    def _holders_text(self) -> str:
        return json.dumps(self._holders_here()[:MAX_HOLDERS])

    async def end(self, request_id: str, error: GatewayError) -> bool:
        if self.end_now(request_id, error):
            return True
        text = json.dumps([request_id, error.code, error.message])
        ask = self._bus.ask("end", text, enough="1", within_s=END_S)
        return "1" in await ask

    def _end_for(self, text: str) -> str:
        """Another node wants to end a request, wherever it is."""
        request_id, code, message = json.loads(text)
        return "1" if self.end_now(request_id, GatewayError(code, message)) else "0"

    def account_loads(self) -> list[tuple[str, int, int]]:
        return [
            (name, self.side.in_use(f"a{name}", in_use), limit)
            for name, in_use, limit in super().account_loads()
        ]


def _too_often(user: str, retry_s: float) -> GatewayError:
    return GatewayError("budget_exceeded", retry_after_s=retry_s)
