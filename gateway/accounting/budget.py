"""
What users have used of their budgets.

Rule 1: days and months are those of UTC; what a request cost counts on the day it
        began, as in the ledger, so a restart finds the same sums.
Rule 2: sums are kept by day, not by "today": a clock that is set back or jumps ahead
        for a moment neither loses nor waives anything.
Rule 3: running requests are not counted yet, so a user may exceed a budget by what
        the running ones cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.config.schema import Budget
from gateway.ledger.day_sum import DaySum

KEPT_DAYS = 70  # two months and a little
NO_BUDGET = Budget()
MINUTE_S = 60.0
DAY_S = 24 * 60 * 60
DAY_MINUTES = 24 * 60
EPOCH = date(1970, 1, 1)


class BudgetStatus(NamedTuple):
    """How far one budget is used; *resets_at* in Unix seconds."""

    budget: str  # its key in the config
    used: float
    limit: float
    window_minutes: int
    resets_at: float

    @property
    def used_percent(self) -> float:
        """The used share, from 0 to 100."""
        return min(100.0, 100.0 * self.used / self.limit)

    @property
    def exceeded(self) -> bool:
        """Whether nothing is left."""
        return self.used >= self.limit


class BudgetRefusal(NamedTuple):
    """Why a request is refused; *retry_after_s* seconds from now."""

    status: BudgetStatus
    retry_after_s: float

    @property
    def message(self) -> str:
        """The sentence for the client: which budget, how much, until when."""
        budget, used, limit, _, resets_at = self.status
        what, _, window = budget.partition("_per_")
        money = what == "usd"
        amount = (
            f"{used:.2f} of {limit:.2f} USD"
            if money
            else f"{used:.0f} of {limit:.0f} {what}"
        )
        when = datetime.fromtimestamp(resets_at, UTC)
        shown = f"{when:%H:%M:%S}" if window == "minute" else f"{when:%Y-%m-%d %H:%M}"
        return (
            f"Budget exceeded for user: {amount} per {window} used,"
            f" resets at {shown} UTC"
        )


class _Month(NamedTuple):
    """The month of a day, in days since 1970: its first and that of the next."""

    first: int
    following: int


@dataclass(slots=True)
class _Used:
    usd: dict[int, float] = field(default_factory=dict)  # by days since 1970
    tokens: dict[int, int] = field(default_factory=dict)
    arrivals: deque[float] = field(default_factory=deque)  # monotonic seconds


def too_often(limit: int, wait_s: float, unix: float) -> BudgetRefusal:
    """The refusal of one more than *limit* requests a minute, for *wait_s* seconds."""
    status = BudgetStatus("requests_per_minute", limit, limit, 1, unix + wait_s)
    return BudgetRefusal(status, wait_s)


class Budgets:
    """
    Every user's budget and what is used of it.

    Args:
        budgets: by user name; a user without one has no limit.

    Attributes:
        limited: the budgets of users that have one; no other user is ever refused.
    """

    def __init__(self, budgets: Mapping[str, Budget]) -> None:
        self._used: dict[str, _Used] = {}
        self.replace(budgets)

    def replace(self, budgets: Mapping[str, Budget]) -> None:
        """Take up changed *budgets*; what was used stays used."""
        self.limited = {u: one for u, one in budgets.items() if one != NO_BUDGET}

    def load(self, sums: Iterable[DaySum]) -> None:
        """Begin with the sums of the ledger."""
        for user, day, usd, tokens in sums:
            self._add(user, (day - EPOCH).days, usd, tokens)

    def raise_to(self, sums: Iterable[DaySum]) -> None:
        """Nothing is less than the ledger says."""
        for user, day, usd, tokens in sums:
            used, number = self._of(user), (day - EPOCH).days
            used.usd[number] = max(usd, used.usd.get(number, 0.0))
            used.tokens[number] = max(tokens, used.tokens.get(number, 0))

    def note_arrival(self, user: str, now: float) -> None:
        """Another process has let *user* send a request."""
        budget = self.limited.get(user)
        if budget is not None and budget.requests_per_minute:
            arrivals = self._of(user).arrivals
            arrivals.append(now)
            while len(arrivals) > 2 * budget.requests_per_minute:
                arrivals.popleft()

    def add(self, user: str, started_at: float, usd: float | None, tokens: int) -> None:
        """Count the use of a request that began at Unix second *started_at*."""
        self._add(user, int(started_at // DAY_S), usd or 0.0, tokens)

    def admit(
        self, user: str, now: float, unix: float, *, counted_elsewhere: bool = False
    ) -> BudgetRefusal | None:
        """
        Whether *user* may send a request now; if so, it counts for the minute.

        Args:
            now: monotonic seconds; ``unix``: the same moment by the calendar.
            counted_elsewhere: another one judges the requests of a minute.
        """
        budget = self.limited.get(user)
        if budget is None:
            return None
        refusal = self.check(user, unix)
        if refusal is not None:
            return refusal
        limit = budget.requests_per_minute
        if not limit:
            return None
        arrivals = self._of(user).arrivals
        while arrivals and arrivals[0] <= now - MINUTE_S:
            arrivals.popleft()
        if counted_elsewhere and len(arrivals) >= limit:
            return None
        if len(arrivals) < limit:
            arrivals.append(now)
            return None
        return too_often(limit, arrivals[0] + MINUTE_S - now, unix)

    def arrived(self, user: str, now: float) -> int:
        """How many requests of *user* count for the minute before *now*."""
        used = self._used.get(user)
        return sum(at > now - MINUTE_S for at in used.arrivals) if used else 0

    def check(self, user: str, unix: float) -> BudgetRefusal | None:
        """Whether money and tokens are left; called again after a wait."""
        if user not in self.limited:
            return None
        spent = [s for s in self.statuses(user, unix) if s.exceeded]
        if not spent:
            return None
        last = max(spent, key=lambda status: status.resets_at)
        return BudgetRefusal(last, last.resets_at - unix)

    def statuses(self, user: str, unix: float) -> Iterator[BudgetStatus]:
        """Each budget of *user* in money or tokens, with how far it is used."""
        budget = self.limited.get(user)
        if budget is None:
            return
        used, today = self._used.get(user) or _Used(), int(unix // DAY_S)
        tomorrow = float((today + 1) * DAY_S)
        if limit := budget.usd_per_day:
            spent = used.usd.get(today, 0.0)
            yield BudgetStatus("usd_per_day", spent, limit, DAY_MINUTES, tomorrow)
        if limit := budget.tokens_per_day:
            tokens = used.tokens.get(today, 0)
            yield BudgetStatus("tokens_per_day", tokens, limit, DAY_MINUTES, tomorrow)
        if limit := budget.usd_per_month:
            first, following = _month(today)
            spent = sum(usd for d, usd in used.usd.items() if first <= d < following)
            minutes, reset = (following - first) * DAY_MINUTES, float(following * DAY_S)
            yield BudgetStatus("usd_per_month", spent, limit, minutes, reset)

    def dump(self) -> list[list[Any]]:
        """What every user has used, as JSON."""
        return [
            [user, list(used.usd.items()), list(used.tokens.items()), [*used.arrivals]]
            for user, used in self._used.items()
        ]

    def load_dump(self, known: Iterable[Sequence[Any]]) -> None:
        """Begin with what ``dump`` of another process gave, whose clock this is."""
        for user, usd, tokens, arrivals in known:
            of_days = {day: used for day, used in usd}, {day: n for day, n in tokens}
            self._used[user] = _Used(*of_days, deque(arrivals))

    def _of(self, user: str) -> _Used:
        used = self._used.get(user)
        if used is None:
            used = self._used[user] = _Used()
        return used

    def _add(self, user: str, day: int, usd: float, tokens: int) -> None:
        # Also for users without a budget: a reload may give them one.
        used = self._of(user)
        used.usd[day] = used.usd.get(day, 0.0) + usd
        used.tokens[day] = used.tokens.get(day, 0) + tokens
        while len(used.usd) > KEPT_DAYS:
            oldest = min(used.usd)
            del used.usd[oldest], used.tokens[oldest]


@lru_cache(maxsize=4)
def _month(day: int) -> _Month:
    first = (EPOCH + timedelta(days=day)).replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return _Month((first - EPOCH).days, (following - EPOCH).days)
