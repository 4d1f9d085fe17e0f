"""
Admission as the other packages see it: who may run, who waits, who holds what.

``Registry`` is the implementation for one process. Another one can share the limits
among processes or hosts, so slots and answers about all holders are awaited, while a
slot is released at once.

Rule: only the wiring names an implementation; everything else takes these protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gateway.admission.slot import (
    AccountsChanged,
    Holder,
    QueuePosition,
    Slot,
    Tiers,
)
from gateway.errors import GatewayError

__all__ = [
    "AccountsChanged",
    "Admission",
    "AdmissionLimits",
    "AdmissionView",
    "Holder",
    "HolderInfo",
    "QueuePosition",
    "Slot",
    "SlotCount",
    "SlotSource",
    "Tiers",
]


class SlotCount(NamedTuple):
    """The slots of one user or account; *waiting*: the waiters that it would fit."""

    scope: str
    name: str
    in_use: int
    waiting: int
    limit: int


class HolderInfo(NamedTuple):
    """
    One request that waits, runs or drains.

    Attributes:
        account: whose slot it holds; "" for none yet.
        state: queued_user, queued_account, running or draining.
        age_s: seconds in this state.
        node: the process that serves it; "" where there is one.
    """

    request_id: str
    user: str
    account: str
    state: str
    age_s: float
    node: str = ""


class SlotSource(Protocol):
    """What a request needs: its position from its head on, then its slots."""

    def arrive(self, holder: Holder) -> None:
        """
        Give *holder* its position; its body is still to be read. ``arrived`` follows.

        Raises:
            Overloaded: "queue_full".
        """

    def arrived(self, holder: Holder) -> None:
        """Its body is complete, or will never be."""

    async def user_slot(
        self,
        user: str,
        holder: Holder,
        deadline: float,
        *,
        session: str = "",
        ahead: Callable[[], Tiers] | None = None,
    ) -> Slot:
        """
        A slot of *user*, at once or when *holder* is next.

        Args:
            deadline: monotonic seconds.
            session: the conversation; a repeat of a request that timed out gets its
                reserved position.
            ahead: the accounts that it will ask for next, as far as is known. Where
                slots are granted elsewhere, one of theirs may come with the user's.

        Raises:
            Overloaded: "queue_full" at once, "queue_timeout" at the deadline.
            ClientError: "user_removed".
        """

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
        A slot of any of *candidates*; ``account`` of the slot says which.

        Args:
            prefer: the session's own account, taken first whatever its tier.
            prefer_until: monotonic seconds until which it alone is waited for.

        Raises:
            Overloaded: "queue_full" at once, "queue_timeout" at the deadline.
            AccountsChanged: the candidates are not what they were.
        """

    def queue_position(self, holder: Holder) -> QueuePosition | None:
        """The position of *holder* and its expected wait; None if it does not wait."""


class AdmissionLimits(Protocol):
    """What a reload changes. No request is dropped by a changed limit."""

    def set_user(self, name: str, max_concurrent: int, max_queued: int) -> None:
        """
        Let *name* in, or change its limits at once.

        Args:
            max_concurrent: 0 = no limit.
            max_queued: 0 = no request may wait.
        """

    def remove_user(self, name: str) -> None:
        """Refuse the waiters of *name*; its running requests may finish."""

    def set_account(self, name: str, max_concurrent: int) -> None:
        """Add the account, or change its limit at once; 0 = no limit."""

    def remove_account(self, name: str) -> None:
        """Its waiters go on without it; what runs there may finish."""

    def choose_anew(self) -> None:
        """
        Let every request that waits for an account choose again. It keeps its
        position: the arrival, the user's ``last_served``, and the deadline.
        """


class AdmissionView(Protocol):
    """Who holds what, and how full everything is."""

    async def holders(self) -> Sequence[HolderInfo]:
        """Every request that waits, runs or drains, on every node."""

    def holders_now(self) -> Sequence[HolderInfo]:
        """Every holder of this process."""

    async def end(self, request_id: str, error: GatewayError) -> bool:
        """
        End a holder, wherever it is: one that waits or runs gets *error*, one whose
        client has left is dropped. False if there is none of that id.
        """

    def counts(self, scope: str = "") -> Sequence[SlotCount]:
        """
        Slots in use and waiters of every user and account, or of one *scope* (``user``,
        ``account``) alone.
        """

    def expected_wait_s(self, account: str) -> float:
        """Seconds that one more request would wait for a slot of *account*."""

    def account_loads(self) -> Sequence[tuple[str, int, int]]:
        """Of every account its name, the slots in use, and how many it has."""


class Admission(SlotSource, AdmissionLimits, AdmissionView, Protocol):
    """All of it."""
