"""
The right to run: a slot of the user first, then one of an account.

Rule 1: one deadline covers both waits, and the user's slot is held during the second.
Rule 2: whatever interrupts a wait, a slot that was granted meanwhile goes back once.
Rule 3: only a request's first wait can be refused for a full queue: who has waited
        or run has earned its place.
Rule 4: a request has its place from its head on. While its body arrives it counts
        among those who wait, so that a full queue is told before a body is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from gateway.admission.reserved_positions import ReservedPositions
from gateway.admission.slot import AccountsChanged, Holder, Place, Slot, Tiers, Waiting
from gateway.admission.slot_table import Holders, SlotTable
from gateway.errors import ClientError, GatewayError, Overloaded

__all__ = ["AccountsChanged", "Count", "Holder", "Place", "Registry", "Slot", "Tiers"]

MAX_TIMER_S = 1e6  # an event loop cannot count to infinity
NO_WAIT_S = 0.001


class Count(NamedTuple):
    """The slots of one user or account; *waiting*: everybody whom it would fit."""

    scope: str
    name: str
    in_use: int
    waiting: int
    limit: int


class Registry:
    """
    Args:
        clock: monotonic seconds; deadlines are told in its time.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._roll = Holders()
        self._users = SlotTable("user", self._roll, clock)
        self._accounts = SlotTable("account", self._roll, clock)
        self._max_queued: dict[str, int] = {}
        self._kept = ReservedPositions()
        self._arrivals = 0

    # --- limits ----------------------------------------------------------------------

    def set_user(self, name: str, max_concurrent: int, max_queued: int) -> None:
        """
        Let *name* in, or change its limits at once; nobody is dropped.

        Args:
            max_concurrent: 0 = no limit.
            max_queued: 0 = nobody may wait.
        """
        self._max_queued[name] = max_queued
        self._users.set(name, max_concurrent)

    def remove_user(self, name: str) -> None:
        """Refuse those of *name* who wait; those who run may finish."""
        self._max_queued.pop(name, None)
        for waiting, _ in self._users.remove(name):
            _refuse(waiting, _user_removed())
        for waiting in self._accounts.line.of(name):
            self._accounts.part(waiting)
            _refuse(waiting, _user_removed())

    def set_account(self, name: str, max_concurrent: int) -> None:
        """Add the account, or change its limit at once; 0 = no limit."""
        self._accounts.set(name, max_concurrent)

    def remove_account(self, name: str) -> None:
        """Those who wait go on without it; what runs there may finish."""
        for waiting, turn in self._accounts.remove(name):
            _send_back(waiting, turn)

    def choose_anew(self) -> None:
        """
        Let everybody who waits for an account choose again. They keep their places:
        the arrival, the user's turn, and the deadline.
        """
        for waiting, turn in self._accounts.dissolve():
            _send_back(waiting, turn)

    # --- the head of a request -------------------------------------------------------

    def arrive(self, holder: Holder) -> None:
        """
        Give *holder* its place; its body is still to be read. ``arrived`` follows.

        Raises:
            Overloaded: "queue_full".
        """
        self._arrive(holder, "")
        user = holder.user
        gate, allowed = self._users.gates.get(user), self._max_queued.get(user)
        if gate and gate.limit and allowed is not None:
            free = gate.limit - len(gate.slots) + len(gate.draining)
            before = self._roll.queued.get(user, 0) + self._roll.arriving[user]
            if before >= allowed + max(0, free):
                self._refuse_newcomer(holder)
        self._roll.arriving[user] += 1

    def arrived(self, holder: Holder) -> None:
        """Its body is complete, or will never be."""
        left = self._roll.arriving[holder.user] - 1
        if left:
            self._roll.arriving[holder.user] = left
        else:
            del self._roll.arriving[holder.user]

    def _refuse_newcomer(self, holder: Holder) -> None:
        """Refuse one more, unless it may be one that comes back to its kept place."""
        if self._kept.any_of(holder.user, self._clock()):
            return
        fits, loop = frozenset((holder.user,)), asyncio.get_running_loop()
        waiting = Waiting(holder, fits, ((holder.user,),), loop.create_future())
        self._users.join(waiting)
        place = self._users.place(waiting)
        self._users.part(waiting)
        raise _overloaded("queue_full", place)

    # --- the two waits ---------------------------------------------------------------

    async def user_slot(
        self, user: str, holder: Holder, deadline: float, *, session: str = ""
    ) -> Slot:
        """
        A slot of *user*, at once or when it is the turn of *holder*.

        Args:
            deadline: monotonic seconds.
            session: the conversation; a repeat of a request that timed out gets its
                place back.

        Raises:
            Overloaded: "queue_full" at once, "queue_timeout" at the deadline.
            ClientError: "user_removed".
        """
        self._arrive(holder, session)
        tiers = ((user,),)
        slot = self._users.enter(tiers, holder)
        if slot is not None:
            return slot
        fits = self._users.known(tiers)
        if not fits:
            raise _user_removed()
        return await self._wait(self._users, holder, fits, tiers, deadline)

    async def account_slot(
        self,
        candidates: Tiers,
        holder: Holder,
        deadline: float,
        *,
        prefer: str = "",
        prefer_until: float = 0.0,
    ) -> Slot:
        """
        A slot of any of *candidates*; ``account`` of the slot tells which.

        Args:
            prefer: the session's own account, taken first whatever its tier.
            prefer_until: monotonic seconds until which it alone is waited for.

        Raises:
            Overloaded: "queue_full" at once, "queue_timeout" at the deadline.
            AccountsChanged: the candidates are not what they were.
        """
        if not holder.arrival:
            self._arrive(holder, holder.session)
        waited_s = 0.0
        slot = None if prefer else self._accounts.enter(candidates, holder)
        if slot is None:
            began = self._clock()
            slot = await self._account_slot(
                candidates, holder, deadline, prefer, prefer_until - began
            )
            waited_s = self._clock() - began
        holder.admitted = True
        user = self._users.gates.get(holder.user)
        # Nothing is learnt from one more that did not wait where nobody does.
        if user and (waited_s or user.onward.mean_s > NO_WAIT_S):
            user.onward.add(waited_s)
        return slot

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
        fits = accounts.known(candidates)
        if not fits:
            raise AccountsChanged
        if prefer not in fits:
            alone_s = 0.0
        else:
            candidates = ((prefer,), *candidates)
        if alone_s > 0:
            fits = frozenset((prefer,))
        slot = accounts.enter(candidates[:1] if alone_s > 0 else candidates, holder)
        if slot is not None:
            return slot
        return await self._wait(accounts, holder, fits, candidates, deadline, alone_s)

    def _arrive(self, holder: Holder, session: str) -> None:
        """Give *holder* its number, or the one that was kept for its session."""
        holder.session = session
        kept = None
        if self._kept:
            kept = self._kept.take(holder.user, session, self._clock())
        if kept is None:
            if not holder.arrival:
                self._arrivals += 1
                holder.arrival = self._arrivals
        else:
            holder.arrival, holder.turn = kept.arrival, kept.turn
            holder.admitted = True

    async def _wait(
        self,
        layer: SlotTable,
        holder: Holder,
        fits: frozenset[str],
        tiers: Tiers,
        deadline: float,
        alone_s: float = 0.0,
    ) -> Slot:
        loop = asyncio.get_running_loop()
        waiting = Waiting(holder, fits, tiers, loop.create_future())
        turn = None
        if layer is self._accounts:  # a kept turn is good for one wait
            turn, holder.turn = holder.turn, None
        layer.join(waiting, turn)
        self._check_room(layer, waiting)
        left_s = min(max(0.0, deadline - self._clock()), MAX_TIMER_S)
        timers = [loop.call_later(left_s, self._expire, layer, waiting)]
        if alone_s > 0:
            timers.append(
                loop.call_later(min(alone_s, MAX_TIMER_S), layer.widen, waiting)
            )
        layer.press(waiting)
        if holder.on_wait is not None:
            holder.on_wait(layer.place(waiting))
        try:
            outcome = await waiting.done
        except BaseException:
            layer.part(waiting)
            _give_back(waiting)
            raise
        finally:
            for timer in timers:
                timer.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _check_room(self, layer: SlotTable, waiting: Waiting) -> None:
        """Refuse one more than may wait."""
        holder = waiting.holder
        allowed = self._max_queued.get(holder.user)
        if allowed is None:
            layer.part(waiting)
            raise _user_removed()
        # A drain ends for whoever waits: its slot is as good as free.
        allowed += layer.leaving(waiting)
        if not holder.admitted and self._roll.queued[holder.user] > allowed:
            place = layer.place(waiting)
            layer.part(waiting)
            raise _overloaded("queue_full", place)
        holder.admitted = True

    def _expire(self, layer: SlotTable, waiting: Waiting) -> None:
        """The deadline has come."""
        if waiting.done.done():
            return
        place = layer.place(waiting)
        turn = layer.part(waiting)
        holder = waiting.holder
        self._kept.keep(
            holder.user,
            holder.session,
            holder.arrival,
            turn if layer is self._accounts else None,
            self._clock(),
        )
        _refuse(waiting, _overloaded("queue_timeout", place))

    # --- what can be seen ------------------------------------------------------------

    def place(self, holder: Holder) -> Place | None:
        """Where *holder* stands in line; None if it does not."""
        waiting = holder.waiting
        if waiting is None:
            return None
        layer = self._users if holder.state == "queued_user" else self._accounts
        return layer.place(waiting)

    def holders(self) -> list[Holder]:
        """Everybody who waits or runs: "who has the slots?\" """
        return list(self._roll.holders)

    def account_loads(self) -> list[tuple[str, int, int]]:
        """Of every account its name, the slots in use, and how many it has."""
        gates = self._accounts.gates.values()
        return [(gate.name, len(gate.slots), gate.limit) for gate in gates]

    def counts(self, scope: str = "") -> list[Count]:
        """Slots in use and waiting requests of every user and account, or of one
        *scope* alone."""
        return [
            Count(
                layer.scope,
                name,
                len(gate.slots),
                layer.line.waiting((name,)),
                gate.limit,
            )
            for layer in (self._users, self._accounts)
            if scope in ("", layer.scope)
            for name, gate in layer.gates.items()
        ]


def _give_back(waiting: Waiting) -> None:
    """Release the slot that came at the same time as the interruption."""
    done = waiting.done
    if done.done() and not done.cancelled():
        outcome = done.result()
        if isinstance(outcome, Slot):
            outcome.release()


def _refuse(waiting: Waiting, error: GatewayError | AccountsChanged) -> None:
    if not waiting.done.done():
        waiting.done.set_result(error)


def _send_back(waiting: Waiting, turn: int) -> None:
    """Let it choose anew; it comes back to the turn that it had."""
    waiting.holder.turn = turn
    _refuse(waiting, AccountsChanged())


def _overloaded(code: str, place: Place) -> Overloaded:
    others = place.waiting - 1
    return Overloaded(
        code,
        f"Concurrency limit exceeded for {place.scope} "
        f"({place.running} of {place.limit} running, {others} waiting)",
        retry_after_s=place.expected_s,
    )


def _user_removed() -> ClientError:
    return ClientError("user_removed")
