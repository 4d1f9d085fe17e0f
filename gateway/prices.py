"""
What an answer cost, from the price list that was installed.

Rule 1: no price is ever fetched: the list is the one inside the installed
        ``genai-prices``, in a snapshot of our own that no updater can replace.
Rule 2: a price that is not known gives None, never 0, and is told once a model.
Rule 3: an account's own ``price`` comes before the list, number by number.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from genai_prices import Usage as PricedUsage
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import ModelPrice

from gateway.config import Account, Price
from gateway.usage import Usage

MAX_REMEMBERED = 1000  # model names: clients make them up
OVERRIDES = {
    "input": ("input_mtok",),
    "cached": ("cache_read_mtok",),
    # One number for both kinds: whoever writes it down has a price of their own.
    "cache_write": (
        "cache_write_mtok",
        "cache_write_1h_mtok",
    ),
    "output": ("output_mtok",),
}


class Prices:
    """
    The price list.

    Args:
        unknown: called with an account's and a model's name that has no price, once.
    """

    def __init__(self, unknown: Callable[[str, str], None]) -> None:
        self._unknown = unknown
        self._told: set[tuple[str, str]] = set()
        self._forget()

    def cost_usd(
        self, account: Account, model: str, usage: Usage, when: datetime
    ) -> float | None:
        """
        US dollars that *usage* of *account*'s *model* costs at *when*.

        A count that the upstream did not tell costs nothing here. None when it told
        no count at all, or when there is no price for the model.
        """
        if account.embedded:
            return 0.0
        if usage.input_tokens is None and usage.output_tokens is None:
            return None
        price = _override(self._listed(account, model, when), account.price)
        if price is None:
            self._tell(account.name, model)
            return None
        return float(price.calc_price(_priced(usage))["total_price"])

    def _listed(self, account: Account, model: str, when: datetime) -> Any:
        """The list's price, by the account's address, else by the model's name."""
        key = account.base_url, model
        if key not in self._found:
            if len(self._found) >= MAX_REMEMBERED:
                self._forget()
            self._found[key] = self._find(*key)
        found = self._found[key]
        return None if found is None else found.get_prices(when)

    def _find(self, base_url: str, model: str) -> Any:
        try:
            provider = self._list.find_provider(None, None, base_url)
        except LookupError:
            provider = None  # a reseller or a machine of one's own
        try:
            return self._list.find_provider_model(model, provider, None, None)[1]
        except LookupError:
            return None

    def _forget(self) -> None:
        self._found: dict[tuple[str, str], Any] = {}
        # The list's own memory of misses has no bound either.
        self._list = DataSnapshot(providers=providers, from_auto_update=False)
        self._told.clear()

    def _tell(self, account: str, model: str) -> None:
        if (account, model) not in self._told:
            self._told.add((account, model))
            self._unknown(account, model)


def _override(listed: Any, own: Price) -> Any:
    """*listed* with the account's *own* numbers; None when a needed one is missing."""
    numbers = {
        name: Decimal(repr(float(value)))
        for field, names in OVERRIDES.items()
        if (value := getattr(own, field)) is not None
        for name in names
    }
    if not numbers:
        return listed
    merged = {**(vars(listed) if listed is not None else {}), **numbers}
    if "input_mtok" not in merged or "output_mtok" not in merged:
        return None
    return ModelPrice(**merged)


def _priced(usage: Usage) -> PricedUsage:
    """*usage* as the list counts; parts that exceed their whole are cut to it."""
    whole = usage.input_tokens or 0
    cached = min(usage.cached_tokens or 0, whole)
    written = min(usage.cache_write_tokens or 0, whole - cached)
    return PricedUsage(
        input_tokens=whole,
        cache_read_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(usage.cache_write_1h_tokens or 0, written),
        output_tokens=usage.output_tokens or 0,
    )
