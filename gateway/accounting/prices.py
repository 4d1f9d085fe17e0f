"""
What an answer cost, from the price list that was installed.

Rule 1: no price is ever fetched: the list is the one inside the installed
        ``genai-prices``, in a snapshot of our own that no updater can replace.
Rule 2: a price that is not known gives None, never 0, and is reported once a model.
Rule 3: an account's own ``price`` comes before the list, number by number.
Rule 4: the library says what one token of each kind costs, once for each price. A cost
        is the sum of counts times these rates, to the digit what the library itself
        computes in a hundred times the time (docs/performance.md).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.accounting.price_data import (
    DataSnapshot,
    ModelPrice,
    PricedUsage,
    TieredPrices,
    providers,
)
from gateway.config.schema import Account, Price
from gateway.usage import Usage

MAX_REMEMBERED = 1000  # model names: clients make them up
OVERRIDES = {
    "input": ("input_mtok",),
    "cached": ("cache_read_mtok",),
    # One number for both kinds: an account's own price does not differ by time.
    "cache_write": (
        "cache_write_mtok",
        "cache_write_1h_mtok",
    ),
    "output": ("output_mtok",),
}
MILLION = 1_000_000

# What a million tokens of each kind are to the library, in the order of ``_Rates``.
# A kind that is part of another is counted in both.
KINDS = (
    {"input_tokens": MILLION},
    {"input_tokens": MILLION, "cache_read_tokens": MILLION},
    {"input_tokens": MILLION, "cache_write_tokens": MILLION},
    {
        "input_tokens": MILLION,
        "cache_write_tokens": MILLION,
        "cache_write_1h_tokens": MILLION,
    },
    {"output_tokens": MILLION},
)


class Prices:
    """
    The price list.

    Args:
        unknown: called with an account's and a model's name that has no price, once.
    """

    def __init__(self, unknown: Callable[[str, str], None]) -> None:
        self._unknown = unknown
        self._reported: set[tuple[str, str]] = set()
        self._forget()

    def cost_usd(
        self, account: Account, model: str, usage: Usage, unix: float
    ) -> float | None:
        """
        US dollars that *usage* of *account*'s *model* costs at Unix second *unix*.

        A count that the upstream did not report costs nothing here. None when it
        reported no count at all, or when there is no price for the model.
        """
        if account.embedded:
            return 0.0
        if usage.input_tokens is None and usage.output_tokens is None:
            return None
        priced = self._models.get((account.name, model))
        if priced is None or priced.account is not account:  # a reload changed it
            priced = self._remember(account, model)
        price = priced.at(unix) if priced.varies else priced.price
        if price is None:
            self._report(account.name, model)
            return None
        return price.cost_usd(usage)

    def _remember(self, account: Account, model: str) -> _PricedModel:
        if len(self._models) >= MAX_REMEMBERED:
            self._forget()
        priced = _PricedModel(account, self._find(account.base_url, model))
        self._models[account.name, model] = priced
        return priced

    def _find(self, base_url: str, model: str) -> Any:
        """The list's entry, by the account's address, else by the model's name."""
        try:
            provider = self._list.find_provider(None, None, base_url)
        except LookupError:
            provider = None  # a reseller or a machine of one's own
        try:
            return self._list.find_provider_model(model, provider, None, None)[1]
        except LookupError:
            return None

    def _forget(self) -> None:
        self._models: dict[tuple[str, str], _PricedModel] = {}
        # The list's own memory of misses has no bound either.
        self._list = DataSnapshot(providers=providers, from_auto_update=False)
        self._reported.clear()

    def _report(self, account: str, model: str) -> None:
        if (account, model) not in self._reported:
            self._reported.add((account, model))
            self._unknown(account, model)


class _PricedModel:
    """
    One model of one account.

    Args:
        listed: the list's entry; None if it has none.

    Attributes:
        varies: whether the list's price changes with the date or the time of day.
        price: the one price where it does not; None where it is not known.
    """

    __slots__ = ("account", "varies", "price", "_listed", "_prices")

    def __init__(self, account: Account, listed: Any) -> None:
        self.account = account
        self.varies = listed is not None and not isinstance(listed.prices, ModelPrice)
        self.price: _LinearPrice | None = None
        self._listed = listed
        self._prices: dict[int, _LinearPrice | None] = {}
        if not self.varies:
            self.price = _linear(listed and listed.prices, account.price)

    def at(self, unix: float) -> _LinearPrice | None:
        """The price at Unix second *unix*."""
        found = self._listed.get_prices(datetime.fromtimestamp(unix, UTC))
        key = id(found)  # the list keeps each for as long as it lives itself
        if key not in self._prices:
            self._prices[key] = _linear(found, self.account.price)
        return self._prices[key]


class _Rates(NamedTuple):
    """US dollars for a request, and for each token of a kind."""

    request: Decimal
    plain: Decimal
    cached: Decimal
    written: Decimal
    written_1h: Decimal
    output: Decimal


class _LinearPrice(NamedTuple):
    """
    Attributes:
        starts: counts of input tokens above each of which other rates hold, for the
            whole request.
        rates: one more than there are starts.
    """

    starts: tuple[int, ...]
    rates: tuple[_Rates, ...]

    def cost_usd(self, usage: Usage) -> float:
        """US dollars; parts of *usage* that exceed their whole are cut to it."""
        whole = usage.input_tokens or 0
        cached = usage.cached_tokens or 0
        written = usage.cache_write_tokens or 0
        written_1h = usage.cache_write_1h_tokens or 0
        if cached > whole:
            cached = whole
        if written > whole - cached:
            written = whole - cached
        if written_1h > written:
            written_1h = written
        rates = self.rates[bisect_left(self.starts, whole)]
        return float(
            rates.request
            + rates.plain * (whole - cached - written)
            + rates.cached * cached
            + rates.written * (written - written_1h)
            + rates.written_1h * written_1h
            + rates.output * (usage.output_tokens or 0)
        )


def _linear(listed: ModelPrice | None, own: Price) -> _LinearPrice | None:
    """*listed* with the account's *own* numbers; None when a needed one is missing."""
    price = _override(listed, own)
    if price is None:
        return None
    tiered = [one for one in vars(price).values() if isinstance(one, TieredPrices)]
    starts = sorted({tier.start for one in tiered for tier in one.tiers})
    counts = [0, *(start + 1 for start in starts)]
    return _LinearPrice(tuple(starts), tuple(_rates(_flat(price, n)) for n in counts))


def _flat(price: ModelPrice, input_tokens: int) -> ModelPrice:
    """*price* as it is for so many *input_tokens*, without tiers."""
    numbers = dict(vars(price))
    for name, value in numbers.items():
        if isinstance(value, TieredPrices):
            reached = [t.price for t in value.tiers if input_tokens > t.start]
            numbers[name] = reached[-1] if reached else value.base
    return ModelPrice(**numbers)


def _rates(price: ModelPrice) -> _Rates:
    """What the library computes for one token of each of KINDS, and for none."""

    def asked(**tokens: int) -> Decimal:
        return price.calc_price(PricedUsage(**tokens))["total_price"]

    request = asked(input_tokens=0, output_tokens=0)
    return _Rates(request, *((asked(**kind) - request) / MILLION for kind in KINDS))


def _override(listed: ModelPrice | None, own: Price) -> ModelPrice | None:
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
