"""
Refuses requests of users whose budget is used up, in the form that the client obeys.

A budget by the minute becomes a wait (``retry-after``). One by the day or month is
final: Codex gets ``usage_limit_reached`` with the time of the reset, every other client
is asked not to try again. In a stream that has begun, ``invalid_prompt`` is the only
code that Codex takes as final.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway.accounting.budget import BudgetRefusal, Budgets, BudgetStatus, too_often
from gateway.config.schema import User
from gateway.context import RequestContext
from gateway.errors import GatewayError
from gateway.ledger.day_sum import DaySum
from gateway.record import Record

METERS = ("primary", "secondary")  # Codex shows two; the fuller one first


class BudgetExhausted(GatewayError):
    """A budget is used up until a day that no client waits for."""

    final = True


class BudgetGuard:
    """
    Every user's budget and what is used of it. Its methods serve three: requests, the
    ledger with the other processes, and those who show what is used.

    Attributes:
        on_admitted: called with the user of each request that is let in.
        counted_elsewhere: whether another one judges the requests of a minute.
    """

    def __init__(self, users: Iterable[User]) -> None:
        self._budgets = Budgets({user.name: user.budget for user in users})
        self.on_admitted: Callable[[str], object] = lambda user: None
        self.counted_elsewhere: Callable[[], bool] = lambda: False

    def load(self, sums: Iterable[DaySum]) -> None:
        """Begin with what the ledger holds."""
        self._budgets.load(sums)

    def replace(self, users: Iterable[User]) -> None:
        """Take up changed budgets; what was used stays used."""
        self._budgets.replace({user.name: user.budget for user in users})

    def admit(self, user: str, client: str) -> None:
        """
        Count a request that has arrived.

        Args:
            client: its kind, which decides the form of a refusal.

        Raises:
            GatewayError: "budget_exceeded".
        """
        if user not in self._budgets.limited:
            return
        now, unix = time.monotonic(), time.time()
        elsewhere = self.counted_elsewhere()
        if refusal := self._budgets.admit(user, now, unix, counted_elsewhere=elsewhere):
            raise _error_of(refusal, client)
        self.on_admitted(user)

    def check(self, context: RequestContext) -> None:
        """Look again after the wait; see ``admit``."""
        if context.user.name not in self._budgets.limited:
            return
        if refusal := self._budgets.check(context.user.name, time.time()):
            raise _error_of(refusal, context.client.name)

    def add(self, record: Record) -> None:
        """Count what a request used."""
        usage = record.usage
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        if record.user and (tokens or record.cost_usd):
            self._budgets.add(record.user, record.started_at, record.cost_usd, tokens)

    def statuses(self, user: str) -> list[BudgetStatus]:
        """How far each budget of *user* in money or tokens is used."""
        return list(self._budgets.statuses(user, time.time()))

    def used_of_minute(self, user: str) -> int:
        """How many requests *user* has sent within a minute."""
        return self._budgets.arrived(user, time.monotonic())

    # --- what other processes say ----------------------------------------------------

    def is_limited(self, user: str) -> bool:
        """Whether *user* has a budget."""
        return user in self._budgets.limited

    def add_use(
        self, user: str, started_at: float, usd: float | None, tokens: int
    ) -> None:
        """Count what a request used that another process served."""
        self._budgets.add(user, started_at, usd, tokens)

    def per_minute(self, user: str) -> int:
        """How many requests a minute *user* may send; 0 = no limit."""
        budget = self._budgets.limited.get(user)
        return budget.requests_per_minute if budget else 0

    def too_often(self, user: str, wait_s: float) -> GatewayError:
        """The refusal of one more in this minute, where another one counts them."""
        return _error_of(too_often(self.per_minute(user), wait_s, time.time()), "")

    def note_arrival(self, user: str) -> None:
        """Count a request for the minute that another process has admitted."""
        self._budgets.note_arrival(user, time.monotonic())

    def raise_to(self, sums: Iterable[DaySum]) -> None:
        """Nothing is less than the ledger says."""
        self._budgets.raise_to(sums)

    def dump_use(self) -> list[list[Any]]:
        """What was used, for another process of this machine."""
        return self._budgets.dump()

    def load_use(self, known: Iterable[Sequence[Any]]) -> None:
        """Take over what ``dump_use`` of another process gave."""
        self._budgets.load_dump(known)

    def usage_headers(self, context: RequestContext) -> dict[str, str]:
        """The headers of Codex's usage meter; none for a user without a budget."""
        name = context.user.name
        if name not in self._budgets.limited or context.client.name != "codex":
            return {}
        statuses = self._budgets.statuses(name, time.time())
        fullest = sorted(statuses, key=lambda status: -status.used_percent)
        headers: dict[str, str] = {}
        for meter, status in zip(METERS, fullest):
            start = f"x-codex-{meter}-"
            headers[start + "used-percent"] = f"{status.used_percent:.1f}"
            headers[start + "window-minutes"] = str(status.window_minutes)
            headers[start + "reset-at"] = str(int(status.resets_at))
        return headers


def _error_of(refusal: BudgetRefusal, client: str) -> GatewayError:
    status = refusal.status
    if status.window_minutes <= 1:
        return GatewayError(
            "budget_exceeded", refusal.message, retry_after_s=refusal.retry_after_s
        )
    error = BudgetExhausted(
        "budget_exceeded",
        refusal.message,
        facts={"resets_at": int(status.resets_at)},
    )
    if client == "codex":
        error.type = "usage_limit_reached"
        error.client_code = "invalid_prompt"
    return error
