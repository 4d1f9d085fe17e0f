"""What admission hands out: who asks, what is granted, who waits."""

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
    """A reload has changed the accounts: who waits for one must choose anew."""


class Place(NamedTuple):
    """
    A place in line.

    Attributes:
        position: in the just order, from 1.
        expected_s: seconds until the slot.
        scope: ``user`` or ``account``: whose slot is waited for.
        running, limit, waiting: of that user, or of all fitting accounts together.
    """

    position: int
    expected_s: float
    scope: str
    running: int
    limit: int
    waiting: int


@dataclass(slots=True, eq=False)
class Holder:
    """
    One request inside admission, waiting or running.

    Attributes:
        since: monotonic seconds when its present state began.
        state: queued_user, queued_account, running or draining.
        account: whose slot it holds.
        on_wait: called with its place whenever it begins to stand in a line.
    """

    request_id: str
    user: str
    since: float = 0.0
    state: str = ""
    account: str = ""
    on_wait: Callable[[Place], None] | None = field(default=None, repr=False)
    session: str = field(default="", repr=False)
    arrival: int = field(default=0, repr=False)  # 0 = it has not come yet
    turn: int | None = field(default=None, repr=False)  # of a place that was kept
    admitted: bool = field(default=False, repr=False)  # may wait, however many do
    waiting: Waiting | None = field(default=None, repr=False)
    ties: int = field(default=0, repr=False)  # slots held and lines stood in

    def becomes(self, state: str, now: float) -> None:
        """Enter *state*."""
        self.state = state
        self.since = now


class Issuer(Protocol):
    """Who hands out slots; told once of each that it is given back, or drained."""

    def leave(self, slot: Slot) -> None: ...
    def drain(self, slot: Slot) -> None: ...


class Slot:
    """
    The right to run; a context manager that gives it back.

    Args:
        name: of the user or account.
        scope: ``user`` or ``account``.
        since: monotonic seconds when it was granted.
    """

    __slots__ = (
        "name",
        "scope",
        "holder",
        "since",
        "evict",
        "_issuer",
    )

    def __init__(
        self,
        name: str,
        scope: str,
        holder: Holder,
        since: float,
        issuer: Issuer,
    ) -> None:
        self.name = name
        self.scope = scope
        self.holder = holder
        self.since = since
        self.evict: Callable[[], object] | None = None
        self._issuer: Issuer | None = issuer

    @property
    def account(self) -> str:
        """The account's name; empty for a user's slot."""
        return self.name if self.scope == "account" else ""

    def release(self) -> None:
        """Give it back, to whose turn it is; nothing happens the second time."""
        issuer, self._issuer = self._issuer, None
        if issuer is not None:
            issuer.leave(self)

    def drain(self, evict: Callable[[], object]) -> None:
        """
        Keep it only as long as nobody else needs it.

        Args:
            evict: called by the event loop, once, when somebody does; the slot must
                then be released soon.
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


class Waiting(Waiter):
    """
    A holder in line.

    Args:
        tiers: everything that fits, also while it waits for one name alone.
        done: set once, with the slot or with why there is none.
    """

    __slots__ = ("holder", "tiers", "done", "in_line")

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
        self.in_line = False
