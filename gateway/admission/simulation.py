"""
Admission under a simulated clock: what other limits would have changed.

It is the policy of ``Registry`` with the same parts, a user's slot first, then one of
an account, and moments instead of awaits. Only what decides a wait is simulated:
limits, queues, their order and their deadline, the session's own account. Accounts that
fail are not: a request takes as long as it did.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.admission.policy import FairQueue, Waiter

PROGRESS_EVERY = 1000  # arrivals between two reports


class Arrival(NamedTuple):
    """
    A request as admission meets it.

    Attributes:
        at_s: when its body was complete.
        tiers: the accounts that fit it, best tier first; at least one.
        service_s: how long it held its slots.
        patience_s: when its client left, if it still waited then; None if it stayed.
        prefer: the session's own account; "" for none.
    """

    at_s: float
    user: str
    tiers: tuple[tuple[str, ...], ...]
    service_s: float
    patience_s: float | None = None
    prefer: str = ""


class UserLimits(NamedTuple):
    """The limits of one user; ``max_concurrent`` 0 = no limit."""

    max_concurrent: int
    max_queued: int
    queue_timeout_s: float


class Plan(NamedTuple):
    """
    The limits that are tried.

    Attributes:
        users: of every user that arrives.
        accounts: slots of every account; 0 = no limit.
        sticky_wait_s: how long a session waits for its own account alone.
    """

    users: Mapping[str, UserLimits]
    accounts: Mapping[str, int]
    sticky_wait_s: float


class Passage(NamedTuple):
    """
    How a request fared.

    Attributes:
        wait_s: in the queues; of a request that was not served, until it was not.
        account: where it ran; "" if it did not.
        refused: queue_full, queue_timeout, left, or "".
    """

    wait_s: float
    account: str
    refused: str


@dataclass(slots=True, eq=False)
class _Request:
    """One arrival on its way."""

    n: int
    arrival: Arrival
    waiter: Waiter | None = None
    queue: FairQueue[Waiter] | None = None
    has_user_slot: bool = False
    admitted: bool = False
    account: str = ""
    passage: Passage | None = None


@dataclass(slots=True)
class _Gate:
    """The slots of one user or account."""

    limit: int
    taken: int = 0
    busy_s: float = 0.0  # slot seconds so far

    @property
    def free(self) -> bool:
        return not self.limit or self.taken < self.limit

    @property
    def load(self) -> tuple[float, int]:
        share = self.taken / self.limit if self.limit else 0.0
        return share, self.taken


@dataclass(slots=True)
class Simulation:
    """
    All arrivals through admission with the limits of *plan*.

    Attributes:
        busy_s: of each account, the slot seconds that were taken.
    """

    plan: Plan
    busy_s: dict[str, float] = field(default_factory=dict)
    _users: dict[str, _Gate] = field(default_factory=dict)
    _accounts: dict[str, _Gate] = field(default_factory=dict)
    _user_queue: FairQueue[Waiter] = field(default_factory=FairQueue)
    _account_queue: FairQueue[Waiter] = field(default_factory=FairQueue)
    _waiting: dict[str, int] = field(default_factory=dict)
    _of: dict[Waiter, _Request] = field(default_factory=dict)
    _events: list[tuple[float, int, Callable[[float], None]]] = field(
        default_factory=list
    )
    _sequence: int = 0

    def run(
        self,
        arrivals: Sequence[Arrival],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Passage]:
        """
        How each of *arrivals*, which are in the order of their time, fares.

        Args:
            progress: called now and then with how many have arrived.
        """
        self._accounts = {n: _Gate(limit) for n, limit in self.plan.accounts.items()}
        self._users = {n: _Gate(u.max_concurrent) for n, u in self.plan.users.items()}
        requests = [_Request(n, one) for n, one in enumerate(arrivals)]
        for request in requests:
            self._run_until(request.arrival.at_s)
            self._arrive(request)
            if request.n % PROGRESS_EVERY == 0:
                progress(request.n)
        self._run_until(float("inf"))
        self.busy_s = {name: gate.busy_s for name, gate in self._accounts.items()}
        return [request.passage for request in requests if request.passage]

    def _run_until(self, at_s: float) -> None:
        events = self._events
        while events and events[0][0] <= at_s:
            now, _, happen = heapq.heappop(events)
            happen(now)

    def _at(self, at_s: float, happen: Callable[[float], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (at_s, self._sequence, happen))

    # --- one request ------------------------------------------------------------------

    def _arrive(self, request: _Request) -> None:
        arrival, now = request.arrival, request.arrival.at_s
        gate = self._users[arrival.user]
        if gate.free:
            self._take_user(request, gate, now)
        elif self._enter(request, self._user_queue, frozenset((arrival.user,)), now):
            self._start_timers(request)

    def _start_timers(self, request: _Request) -> None:
        """Its deadline, and the moment at which its client left."""
        arrival = request.arrival
        timeout_s = self.plan.users[arrival.user].queue_timeout_s
        patience_s, why = arrival.patience_s, "left"
        if patience_s is None or timeout_s <= patience_s:
            patience_s, why = timeout_s, "queue_timeout"
        self._at(
            arrival.at_s + patience_s, lambda now: self._give_up(request, now, why)
        )

    def _take_user(self, request: _Request, gate: _Gate, now: float) -> None:
        gate.taken += 1
        request.has_user_slot = True
        arrival, accounts = request.arrival, self._accounts
        sticky = arrival.prefer in accounts and self.plan.sticky_wait_s > 0
        tiers = _with_own(arrival)
        if name := self._emptiest(tiers[:1] if sticky else tiers):
            self._take_account(request, name, now)
            return
        fits = frozenset(name for tier in arrival.tiers for name in tier)
        first_wait = not request.admitted
        alone = frozenset((arrival.prefer,)) if sticky else fits
        if not self._enter(request, self._account_queue, alone, now):
            return
        if first_wait:
            self._start_timers(request)
        if alone != fits:
            self._at(
                now + self.plan.sticky_wait_s,
                lambda later: self._widen(request, fits, later),
            )

    def _emptiest(self, tiers: Sequence[Sequence[str]]) -> str:
        """The emptiest account of the best tier that has a free one; "" for none."""
        accounts = self._accounts
        for tier in tiers:
            if tier:
                best = min(tier, key=lambda name: accounts[name].load)
                if accounts[best].free:
                    return best
        return ""

    def _take_account(self, request: _Request, name: str, now: float) -> None:
        self._accounts[name].taken += 1
        request.account = name
        arrival = request.arrival
        request.passage = Passage(now - arrival.at_s, name, "")
        self._at(now + arrival.service_s, lambda later: self._finish(request, later))

    def _finish(self, request: _Request, now: float) -> None:
        gate = self._accounts[request.account]
        gate.taken -= 1
        gate.busy_s += request.arrival.service_s
        self._hand_on(request.account, now)  # as a request gives its slots back
        self._leave_user(request, now)

    def _leave_user(self, request: _Request, now: float) -> None:
        user = request.arrival.user
        gate, queue = self._users[user], self._user_queue
        gate.taken -= 1
        while gate.free and (waiter := queue.next(user)):
            queue.serve(waiter, user)
            self._take_user(self._part(waiter), gate, now)

    def _hand_on(self, account: str, now: float) -> None:
        gate, queue = self._accounts[account], self._account_queue
        while gate.free and (waiter := queue.next(account)):
            queue.serve(waiter, account)
            self._take_account(self._part(waiter), account, now)

    # --- the queues -------------------------------------------------------------------

    def _enter(
        self,
        request: _Request,
        queue: FairQueue[Waiter],
        fits: frozenset[str],
        now: float,
    ) -> bool:
        """Whether it may wait; else it is refused."""
        user = request.arrival.user
        waiting = self._waiting.get(user, 0)
        if not request.admitted and waiting >= self.plan.users[user].max_queued:
            self._end(request, now, "queue_full")
            return False
        request.admitted = True
        waiter = request.waiter = Waiter(user, request.n + 1, fits)
        request.queue = queue
        self._of[waiter] = request
        self._waiting[user] = waiting + 1
        queue.add(waiter)
        return True

    def _part(self, waiter: Waiter) -> _Request:
        """The request of *waiter*, which is in no queue any more."""
        request = self._of.pop(waiter)
        request.waiter = request.queue = None
        self._waiting[request.arrival.user] -= 1
        return request

    def _give_up(self, request: _Request, now: float, why: str) -> None:
        if request.waiter and request.queue:
            request.queue.remove(request.waiter)
            self._part(request.waiter)
            self._end(request, now, why)

    def _widen(self, request: _Request, fits: frozenset[str], now: float) -> None:
        """It has waited for its session's own account long enough: any will do."""
        queue, waiter = self._account_queue, request.waiter
        if waiter is None or request.queue is not queue:
            return
        last_served = queue.remove(waiter)
        waiter.fits = fits
        if name := self._emptiest(_with_own(request.arrival)):
            self._take_account(self._part(waiter), name, now)
        else:
            queue.add(waiter, last_served)

    def _end(self, request: _Request, now: float, why: str) -> None:
        request.passage = Passage(now - request.arrival.at_s, "", why)
        if request.has_user_slot:
            request.has_user_slot = False
            self._leave_user(request, now)


def _with_own(arrival: Arrival) -> tuple[tuple[str, ...], ...]:
    """Its tiers, the session's own account before them."""
    return ((arrival.prefer,), *arrival.tiers) if arrival.prefer else arrival.tiers


class Waits(NamedTuple):
    """
    The waits of some requests, and what was refused.

    Attributes:
        p50_s, p95_s: of those that were served.
    """

    requests: int
    waited: int
    p50_s: float
    p95_s: float
    refused: int
    left: int


def waits_of(passages: Sequence[Passage]) -> Waits:
    """*passages* in six numbers."""
    served = sorted(one.wait_s for one in passages if not one.refused)
    return Waits(
        len(passages),
        sum(wait_s > 0.001 for wait_s in served),
        percentile(served, 0.5),
        percentile(served, 0.95),
        sum(one.refused.startswith("queue_") for one in passages),
        sum(one.refused == "left" for one in passages),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which *share* of *ordered* lies; 0 where there is none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def by_user(
    arrivals: Sequence[Arrival], passages: Sequence[Passage]
) -> Iterator[tuple[str, Waits]]:
    """The waits of each user, by name."""
    found: dict[str, list[Passage]] = {}
    for arrival, passage in zip(arrivals, passages, strict=True):
        found.setdefault(arrival.user, []).append(passage)
    for user in sorted(found):
        yield user, waits_of(found[user])
