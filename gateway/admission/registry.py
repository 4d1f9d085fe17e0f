"""
Admission of one process: a slot of the user first, then one of an account.

Rule 1: one deadline covers both waits, and the user's slot is held during the second.
Rule 2: whatever interrupts a wait, a slot that was granted meanwhile is released once.
Rule 3: only a request's first wait can be refused for a full queue: a request that has
        waited or run has earned its position.
Rule 4: a request has its position from its head on. While its body arrives it counts
        as a waiter, so that a full queue refuses it before the body is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.admission.interface import Admission, HolderInfo, SlotCount
from gateway.admission.reserved_positions import ReservedPositions
from gateway.admission.slot import (
    AccountsChanged,
    Holder,
    QueuePosition,
    Slot,
    SlotWaiter,
    Tiers,
    Wanted,
)
from gateway.admission.slot_table import Holders, SlotTable, taken_slots
from gateway.admission.wait_timer import WaitTimer
from gateway.errors import ClientError, GatewayError, Overloaded

MAX_TIMER_S = 1e6  # an event loop cannot count to infinity
NO_WAIT_S = 0.001


class Registry(Admission):
    """
    The ``Admission`` of one process. It has more public methods than a class should,
    since it is three protocols at once; each of its users takes one of them.

    Args:
        clock: monotonic seconds; deadlines are in its time.
        end_running: ends a running request of that id with an error; False if there
            is none.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        end_running: Callable[[str, GatewayError], bool] = lambda ident, error: False,
    ) -> None:
        self._clock = clock
        self._end_running = end_running
        self._holders = Holders()
        self._users = self._table("user")
        self._accounts = self._table("account")
        self._max_queued: dict[str, int] = {}
        self._reserved = ReservedPositions()
        self._arrivals = 0

    def _table(self, scope: str) -> SlotTable:
        return SlotTable(scope, self._holders, self._clock)

    # --- limits (see AdmissionLimits) ------------------------------------------------

    def set_user(self, name: str, max_concurrent: int, max_queued: int) -> None:
        self._max_queued[name] = max_queued
        self._users.set(name, max_concurrent)

    def remove_user(self, name: str) -> None:
        self._max_queued.pop(name, None)
        for waiter, _ in self._users.remove(name):
            refuse(waiter, user_removed())
        for waiter in self._accounts.queue.of(name):
            self._accounts.leave_queue(waiter)
            refuse(waiter, user_removed())

    def set_account(self, name: str, max_concurrent: int) -> None:
        self._accounts.set(name, max_concurrent)

    def remove_account(self, name: str) -> None:
        for waiter, last_served in self._accounts.remove(name):
            _send_back(waiter, last_served)

    def choose_anew(self) -> None:
        for waiter, last_served in self._accounts.empty_queue():
            _send_back(waiter, last_served)

    # --- the head of a request (see SlotSource) --------------------------------------

    def arrive(self, holder: Holder) -> None:
        self._arrive(holder, "")
        user, holders = holder.user, self._holders
        limiter, allowed = self._users.limiters.get(user), self._max_queued.get(user)
        if limiter and limiter.limit and allowed is not None:
            free = limiter.limit - len(limiter.slots) + len(limiter.draining)
            before = holders.queued.get(user, 0) + holders.arriving[user]
            if before >= allowed + max(0, free):
                self._refuse_newcomer(holder)
        holders.arriving[user] += 1

    def arrived(self, holder: Holder) -> None:
        arriving, user = self._holders.arriving, holder.user
        left = arriving[user] - 1
        if left:
            arriving[user] = left
        else:
            del arriving[user]

    def _refuse_newcomer(self, holder: Holder) -> None:
        """Refuse one more, unless it may come back to its reserved position."""
        if self._any_reserved(holder.user):
            return
        fits, loop = frozenset((holder.user,)), asyncio.get_running_loop()
        waiter = SlotWaiter(holder, fits, ((holder.user,),), loop.create_future())
        self._users.enter_queue(waiter)
        position = self._users.position(waiter)
        self._users.leave_queue(waiter)
        raise overloaded("queue_full", position)

    def _any_reserved(self, user: str) -> bool:
        return self._reserved.any_of(user, self._clock())

    # --- the two waits (see SlotSource) ----------------------------------------------

    async def user_slot(
        self,
        user: str,
        holder: Holder,
        deadline: float,
        *,
        session: str = "",
        ahead: Callable[[], Tiers] | None = None,
    ) -> Slot:
        self._arrive(holder, session)
        tiers = ((user,),)
        slot = self._users.take_free(tiers, holder)
        if slot is not None:
            return slot
        fits = self._users.configured(tiers)
        if not fits:
            raise user_removed()
        return await self._wait(self._users, holder, Wanted(fits, tiers, deadline))

    async def account_slot(
        self,
        candidates: Tiers,
        holder: Holder,
        deadline: float,
        *,
        prefer: str = "",
        prefer_until: float = 0.0,
    ) -> Slot:
        if not holder.arrival:
            self._arrive(holder, holder.session)
        waited_s = 0.0
        slot = self._account_now(candidates, holder, prefer)
        if slot is None:
            began = self._clock()
            slot = await self._account_slot(
                candidates, holder, deadline, prefer, prefer_until - began
            )
            waited_s = self._clock() - began
        holder.admitted = True
        user = self._users.limiters.get(holder.user)
        # One more that did not wait says nothing where no request waits.
        if user and (waited_s or user.onward.mean_s > NO_WAIT_S):
            user.onward.add(waited_s)
        return slot

    def _account_now(
        self, candidates: Tiers, holder: Holder, prefer: str
    ) -> Slot | None:
        """A slot that needs no further look."""
        return None if prefer else self._accounts.take_free(candidates, holder)

    async def _account_slot(
        self,
        candidates: Tiers,
        holder: Holder,
        deadline: float,
        prefer: str,
        alone_s: float,
    ) -> Slot:
        """The same where one account is preferred, or none was free."""
        accounts = self._accounts
        fits = accounts.configured(candidates)
        if not fits:
            raise AccountsChanged
        if prefer not in fits:
            alone_s = 0.0
        else:
            candidates = ((prefer,), *candidates)
        if alone_s > 0:
            fits = frozenset((prefer,))
        slot = accounts.take_free(candidates[:1] if alone_s > 0 else candidates, holder)
        if slot is not None:
            return slot
        wanted = Wanted(fits, candidates, deadline, alone_s)
        return await self._wait(accounts, holder, wanted)

    def _arrive(self, holder: Holder, session: str) -> None:
        """Give *holder* its number, or the one that is reserved for its session."""
        holder.session = session
        reserved = None
        if self._reserved:
            reserved = self._reserved.take(holder.user, session, self._clock())
        if reserved is None:
            if not holder.arrival:
                self._arrivals += 1
                holder.arrival = self._arrivals
        else:
            holder.arrival, holder.last_served = reserved.arrival, reserved.last_served
            holder.admitted = True

    async def _wait(self, table: SlotTable, holder: Holder, wanted: Wanted) -> Slot:
        fits, tiers, deadline, alone_s = wanted
        loop = asyncio.get_running_loop()
        waiter = SlotWaiter(holder, fits, tiers, loop.create_future())
        last_served = None
        if table is self._accounts:  # a reserved one is good for one wait
            last_served, holder.last_served = holder.last_served, None
        table.enter_queue(waiter, last_served)
        self._check_room(table, waiter)
        left_s = min(max(0.0, deadline - self._clock()), MAX_TIMER_S)
        timers = [WaitTimer(loop, left_s, self._expire, table, waiter)]
        if alone_s > 0:
            alone_s, accept_any = min(alone_s, MAX_TIMER_S), type(table).accept_any
            timers.append(WaitTimer(loop, alone_s, accept_any, table, waiter))
        self._begin_wait(table, waiter)
        try:
            outcome = await waiter.done
        except BaseException:
            table.leave_queue(waiter)
            _give_back(waiter)
            raise
        finally:
            for timer in timers:
                timer.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _begin_wait(self, table: SlotTable, waiter: SlotWaiter) -> None:
        """*waiter* is in the queue, with its timers."""
        table.preempt_for(waiter)
        say_wait(table, waiter)

    def _check_room(self, table: SlotTable, waiter: SlotWaiter) -> None:
        """Refuse one more than may wait."""
        holder = waiter.holder
        allowed = self._max_queued.get(holder.user)
        if allowed is None:
            table.leave_queue(waiter)
            raise user_removed()
        # A drain ends for a waiter that fits: its slot is as good as free.
        allowed += sum(table.limiters[name].ending for name in waiter.fits)
        if not holder.admitted and self._holders.queued[holder.user] > allowed:
            position = table.position(waiter)
            table.leave_queue(waiter)
            raise overloaded("queue_full", position)
        holder.admitted = True

    def _expire(self, table: SlotTable, waiter: SlotWaiter) -> None:
        """The deadline has come."""
        if waiter.done.done():
            return
        position = table.position(waiter)
        last_served = table.leave_queue(waiter)
        holder = waiter.holder
        self._reserved.reserve(
            holder.user,
            holder.session,
            holder.arrival,
            last_served if table is self._accounts else None,
            self._clock(),
        )
        refuse(waiter, overloaded("queue_timeout", position))

    def queue_position(self, holder: Holder) -> QueuePosition | None:
        waiter = holder.waiter
        if waiter is None:
            return None
        return self._table_of(holder).position(waiter)

    def _table_of(self, holder: Holder) -> SlotTable:
        """Where *holder* waits."""
        return self._users if holder.state == "queued_user" else self._accounts

    # --- who holds what (see AdmissionView) ------------------------------------------

    async def holders(self) -> list[HolderInfo]:
        return self.holders_now()

    def holders_now(self) -> list[HolderInfo]:
        """Every holder of this process."""
        now = self._clock()
        return [
            HolderInfo(
                holder.request_id,
                holder.user,
                holder.account,
                holder.state,
                max(0.0, now - holder.since),
            )
            for holder in self._holders.all
        ]

    async def end(self, request_id: str, error: GatewayError) -> bool:
        return self.end_now(request_id, error)

    def end_now(self, request_id: str, error: GatewayError) -> bool:
        """``end`` for a holder of this process."""
        for holder in self._holders.all:
            if holder.request_id == request_id:
                return self._end(holder, error)
        return self._end_running(request_id, error)  # it has handed its slots on

    def _end(self, holder: Holder, error: GatewayError) -> bool:
        if waiter := holder.waiter:
            self._table_of(holder).leave_queue(waiter)
            refuse(waiter, error)
            return True
        if holder.state != "draining":
            return self._end_running(holder.request_id, error)
        for table in (self._users, self._accounts):
            for limiter in table.limiters.values():
                for slot in [one for one in limiter.draining if one.holder is holder]:
                    limiter.evict(slot)
        return True

    def expected_wait_s(self, account: str) -> float:
        return self._accounts.expected_wait_s(account)

    def account_loads(self) -> list[tuple[str, int, int]]:
        limiters = self._accounts.limiters.values()
        return [
            (limiter.name, len(limiter.slots), limiter.limit) for limiter in limiters
        ]

    def counts(self, scope: str = "") -> list[SlotCount]:
        return [
            SlotCount(
                table.scope,
                name,
                len(limiter.slots),
                table.queue.waiting((name,)),
                limiter.limit,
            )
            for table in (self._users, self._accounts)
            if scope in ("", table.scope)
            for name, limiter in table.limiters.items()
        ]


def _give_back(waiter: SlotWaiter) -> None:
    """Release the slot that came at the same time as the interruption."""
    done = waiter.done
    if done.done() and not done.cancelled():
        outcome = done.result()
        if isinstance(outcome, Slot):
            outcome.release()


def say_wait(table: SlotTable, waiter: SlotWaiter) -> None:
    """Call ``on_wait`` of a holder that begins to wait."""
    on_wait = waiter.holder.on_wait
    if on_wait is not None:
        taken = taken_slots(table.limiters, waiter.fits)
        on_wait(table.position(waiter)._replace(taken=taken))


def refuse(waiter: SlotWaiter, error: GatewayError | AccountsChanged) -> None:
    """End the wait with *error*, unless it has ended."""
    if not waiter.done.done():
        waiter.done.set_result(error)


def _send_back(waiter: SlotWaiter, last_served: int) -> None:
    """Let it choose anew; its user keeps its place between the others."""
    waiter.holder.last_served = last_served
    refuse(waiter, AccountsChanged())


def overloaded(code: str, position: QueuePosition) -> Overloaded:
    """The refusal of a request that would be, or was, at *position*."""
    others = position.waiting - 1
    return Overloaded(
        code,
        f"Concurrency limit exceeded for {position.scope} "
        f"({position.running} of {position.limit} running, {others} waiting)",
        retry_after_s=position.expected_s,
    )


def user_removed() -> ClientError:
    """The refusal of a request whose user the config names no more."""
    return ClientError("user_removed")
