"""
How many further attempts the gateway may make: a retry budget.

Rule 1: a first attempt is never refused here.
Rule 2: going on to an account that is proven to serve costs nothing: no client shall
        meet a failure because many sessions lost the same account at once.
Rule 3: every other further attempt costs one, of its pool and of that account in it: a
        dead pool of any size multiplies traffic by little more than 1 + ``SHARE``.
Rule 4: a pool is a set of accounts that fit the same models. Each has its own balance,
        so that a dead pool takes nothing from another, whatever accounts they share.

A balance is a floor that refills slowly, and what recent requests earned.
"""

from __future__ import annotations

import math
from collections import OrderedDict

SHARE = 0.2  # further attempts that one request earns
FLOOR = 32.0
REFILL_PER_S = 2.0
RECENT_S = 10.0  # half-life of what was earned
MAX_POOLS = 256  # the least used begins anew, with the floor

Pool = frozenset[str]
"""The names of the accounts that fit a model."""


class Balance:
    """A floor that refills slowly, and deposits that decay."""

    __slots__ = ("_floor", "_earned", "_at")

    def __init__(self, now: float, earned: float = 0.0) -> None:
        self._floor, self._earned, self._at = FLOOR, earned, now

    def earned(self, now: float) -> float:
        """What recent requests earned, without the floor."""
        self._age(now)
        return self._earned

    def deposit(self, now: float) -> None:
        """A request deposits its share."""
        self._age(now)
        self._earned += SHARE

    def covers_one(self, now: float) -> bool:
        """Whether one attempt could be withdrawn."""
        self._age(now)
        return self._floor + self._earned >= 1

    def withdraw(self) -> None:
        """Withdraw one attempt, from what expires first."""
        from_earned = min(1.0, self._earned)
        self._earned -= from_earned
        self._floor -= 1.0 - from_earned

    def _age(self, now: float) -> None:
        passed = now - self._at
        if passed <= 0:
            return
        self._at = now
        if self._floor < FLOOR:
            self._floor = min(FLOOR, self._floor + passed * REFILL_PER_S)
        self._earned *= math.exp2(-passed / RECENT_S)


class _PoolBudget:
    """The balance of a pool, and one for each of its accounts that is asked again."""

    __slots__ = ("_all", "_each")

    def __init__(self, now: float) -> None:
        self._all = Balance(now)
        self._each: dict[str, Balance] = {}

    def deposit(self, now: float) -> None:
        """A request deposits its share."""
        self._all.deposit(now)
        for balance in self._each.values():
            balance.deposit(now)

    def try_withdraw(self, account: str, now: float) -> bool:
        """Whether an attempt at *account* is covered; if so, it is withdrawn."""
        # An account that is asked again for the first time has the pool's deposits.
        own = self._each.get(account)
        if own is None:
            own = self._each[account] = Balance(now, self._all.earned(now))
        if not (self._all.covers_one(now) and own.covers_one(now)):
            return False
        self._all.withdraw()
        own.withdraw()
        return True


class RetryBudget:
    """The balances of all pools."""

    def __init__(self) -> None:
        self._pools: OrderedDict[Pool, _PoolBudget] = OrderedDict()

    def deposit(self, pool: Pool, now: float) -> None:
        """A request makes its first attempt, at an account of *pool*."""
        self._of(pool, now).deposit(now)

    def try_withdraw(
        self, pool: Pool, account: str, now: float, *, proven: bool = False
    ) -> bool:
        """
        Whether a further attempt may go to *account*; if so, it is withdrawn.

        Args:
            pool: the accounts that fit the request.
            proven: the account served this model lately and nothing failed since
                (``Health.proven``); never so for the same account again.
        """
        return proven or self._of(pool, now).try_withdraw(account, now)

    def _of(self, pool: Pool, now: float) -> _PoolBudget:
        budget = self._pools.get(pool)
        if budget is None:
            budget = self._pools[pool] = _PoolBudget(now)
            if len(self._pools) > MAX_POOLS:
                self._pools.popitem(last=False)
        else:
            self._pools.move_to_end(pool)
        return budget
