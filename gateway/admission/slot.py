"""What admission works with: the holder, its slot, its position while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol

from gateway.admission.policy import Waiter
from gateway.errors import GatewayError

Tiers = Sequence[Sequence[str]]
"""Names by priority, the best tier first; inside a tier they are equal."""


class AccountsChanged(Exception):
    """A reload has changed the accounts: a request that waits must choose anew."""


class TakenSlots(NamedTuple):
    """
    Who holds the slots of one user or account.

    Attributes:
        limit: how many it has; 0 = no limit.
        holders: (user, slots), the most first; at most ``MAX_HOLDERS`` of them.
    """

    name: str
    limit: int
    holders: tuple[tuple[str, int], ...]


class Wanted(NamedTuple):
    """
    What a request waits for.

    Attributes:
        fits: the names of which it takes any one now.
        tiers: all that it may have.
        deadline: monotonic seconds.
        alone_s: after so long it takes any of its tiers; 0 = now.
    """

    fits: frozenset[str]
    tiers: Tiers
    deadline: float
    alone_s: float = 0.0


class QueuePosition(NamedTuple):
    """
    Attributes:
        position: in the fair order, from 1.
        expected_s: seconds until the slot.
        scope: ``user`` or ``account``: whose slot is waited for.
        running, limit, waiting: of that user, or of all fitting accounts together.
        taken: what it waits for, as the wait begins; else empty.
    """

    position: int
    expected_s: float
    scope: str
    running: int
    limit: int
    waiting: int
    taken: tuple[TakenSlots, ...] = ()


@dataclass(slots=True, eq=False)
class Holder:
    """
    One request inside admission, waiting or running.

    Attributes:
        since: monotonic seconds when its present state began.
        state: queued_user, queued_account, running or draining.
        account: whose slot it holds.
        on_wait: called with its position whenever it begins to wait in a queue.
        lease: its id in the engine that several processes share; "" for none.
        arrived_s: monotonic seconds when it came; 0 = not noted.
        ahead: the accounts that it will ask for once it has its user's slot.
        ahead_slot: of one of them, if it came with the user's.
    """

    request_id: str
    user: str
    since: float = 0.0
    state: str = ""
    account: str = ""
    on_wait: Callable[[QueuePosition], None] | None = field(default=None, repr=False)
    session: str = field(default="", repr=False)
    arrival: int = field(default=0, repr=False)  # 0 = it has not come yet
    # of a reserved position
    last_served: int | None = field(default=None, repr=False)
    admitted: bool = field(default=False, repr=False)  # may wait, however many do
    waiter: SlotWaiter | None = field(default=None, repr=False)
    refs: int = field(default=0, repr=False)  # slots held and queues waited in
    lease: str = field(default="", repr=False)
    arrived_s: float = field(default=0.0, repr=False)
    ahead: Tiers = field(default=(), repr=False)
    ahead_slot: Slot | None = field(default=None, repr=False)

    def enter(self, state: str, now: float) -> None:
        """Enter *state*."""
        self.state = state
        self.since = now


class SlotIssuer(Protocol):
    """
    What grants slots; ``release`` is called once for each, the others at most once.
    """

    def release(self, slot: Slot) -> bool: ...
    def drain(self, slot: Slot) -> None: ...
    def may_hand_on(self, slot: Slot) -> bool: ...
    def over(self, slot: Slot) -> None: ...


class Slot:
    """
    The right to run; a context manager that releases it.

    Args:
        name: of the user or account.
        scope: ``user`` or ``account``.
        since: monotonic seconds when it was granted.

    Attributes:
        evict: ends what drains in it; None while it is not drained.
    """

    __slots__ = ("name", "scope", "holder", "since", "evict", "_issuer", "_handed_on")

    def __init__(
        self,
        name: str,
        scope: str,
        holder: Holder,
        since: float,
        issuer: SlotIssuer,
    ) -> None:
        self.name = name
        self.scope = scope
        self.holder = holder
        self.since = since
        self.evict: Callable[[], object] | None = None
        self._issuer: SlotIssuer | None = issuer
        self._handed_on: SlotIssuer | None = None

    @property
    def account(self) -> str:
        """The account's name; empty for a user's slot."""
        return self.name if self.scope == "account" else ""

    def release(self) -> bool:
        """
        Give it to the next waiter, if there is one, and return whether there may be;
        nothing happens the second time.
        """
        issuer, self._issuer = self._issuer, None
        if issuer is not None:
            return issuer.release(self)
        issuer, self._handed_on = self._handed_on, None
        if issuer is not None:
            issuer.over(self)
        return False

    def hand_on(self) -> bool:
        """
        Give it to the next waiter although its request is not over: what it was needed
        for is; what is returned is as for ``release``, which follows with the end of
        the request. Where too many requests of its name have done so and are not over,
        it is kept until then.
        """
        issuer = self._issuer
        if issuer is not None and issuer.may_hand_on(self):
            self._issuer, self._handed_on = None, issuer
            return issuer.release(self)
        return False

    def drain(self, evict: Callable[[], object]) -> None:
        """
        Keep it only as long as no other request needs it.

        Args:
            evict: called by the event loop, once, when one does; the slot must then
                be released soon.
        """
        if self._issuer is not None and self.evict is None:
            self.evict = evict
            self._issuer.drain(self)

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class SlotWaiter(Waiter):
    """
    A holder in a queue.

    Args:
        tiers: everything that fits, also while it waits for one name alone.
        done: set once, with the slot or with why there is none.
    """

    __slots__ = ("holder", "tiers", "done", "queued")

    def __init__(
        self,
        holder: Holder,
        fits: frozenset[str],
        tiers: Tiers,
        done: asyncio.Future[Slot | GatewayError | AccountsChanged],
    ) -> None:
        super().__init__(holder.user, holder.arrival, fits)
        self.holder = holder
        self.tiers = tiers
        self.done = done
        self.queued = False
