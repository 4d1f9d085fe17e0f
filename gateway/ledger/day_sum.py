"""What a user has used on one day: what the ledger sums up and budgets start with."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple


class DaySum(NamedTuple):
    """What one user has used on one day, in UTC."""

    user: str
    day: date
    usd: float
    tokens: int
