"""Known prices are right, unknown ones are None, and nothing asks the network."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import data_snapshot
from genai_prices.data import providers
from genai_prices.types import ModelPrice, TieredPrices

from gateway.accounting import prices as prices_module
from gateway.accounting.prices import Prices
from gateway.config.schema import Account, Price
from gateway.usage import Usage

WHEN = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
MILLION = 1_000_000


@pytest.fixture
def unknown() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def prices(unknown: list[tuple[str, str]]) -> Prices:
    return Prices(lambda account, model: unknown.append((account, model)))


def account(base_url: str = "http://127.0.0.1:9/v1", **price: float) -> Account:
    return Account(name="main", base_url=base_url, price=Price(**price))


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        pytest.param("gpt-5", Usage(MILLION, 0, 0, 0, 0), 1.25, id="input"),
        pytest.param("gpt-5", Usage(0, 0, 0, 0, MILLION, 9), 10.0, id="output"),
        pytest.param("gpt-5", Usage(MILLION, MILLION, 0, 0, 0), 0.125, id="cached"),
        pytest.param(
            "claude-sonnet-4-5",
            Usage(100_000, 0, 100_000, 0, 0),
            0.375,
            id="cache-write-for-five-minutes",
        ),
        pytest.param(
            "claude-sonnet-4-5",
            Usage(100_000, 0, 100_000, 100_000, 0),
            0.6,
            id="cache-write-for-an-hour",
        ),
        pytest.param(
            "claude-sonnet-4-5",
            Usage(MILLION, 0, 0, 0, 0),
            6.0,
            id="a-long-context-costs-more",
        ),
        pytest.param("gpt-5", Usage(MILLION), 1.25, id="output-not-reported"),
        pytest.param("gpt-5", Usage(), None, id="nothing-reported"),
        pytest.param("gpt-5", Usage(0, 0, 0, 0, 0, 0), 0.0, id="nothing-used"),
        pytest.param(
            "gpt-5",
            Usage(MILLION, 2 * MILLION, MILLION, MILLION, 0),
            0.125,
            id="parts-above-their-whole",
        ),
    ],
)
def test_what_the_list_says(
    prices: Prices, model: str, usage: Usage, expected: float | None
) -> None:
    assert expected == pytest.approx(prices.cost_usd(account(), model, usage, WHEN))


# Part of the output tokens, at their price.
SAME_PRICE = {"reasoning_tokens"}


@pytest.mark.parametrize(
    "kind", [one.name for one in fields(Usage) if one.name not in SAME_PRICE]
)
def test_no_kind_of_token_is_left_out(prices: Prices, kind: str) -> None:
    """A new field of ``Usage`` needs a rate of its own, or a line above."""
    before = Usage(1000, 0, 500, 0, 1000, 0)
    after = replace(before, **{kind: getattr(before, kind) + 100})

    costs = {
        prices.cost_usd(account(), "claude-sonnet-4-5", usage, WHEN)
        for usage in (before, after)
    }
    assert len(costs) == 2


def of_library(price: ModelPrice, usage: Usage) -> float:
    """What the library itself makes of *usage*, which must be reported in full."""
    counted = PricedUsage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
    )
    return float(price.calc_price(counted)["total_price"])


def listed() -> Iterator[tuple[str, Any]]:
    """Every model of the list, with its name there."""
    for provider in providers:
        yield from ((f"{provider.id}/{one.id}", one) for one in provider.models)


def offered(prices: Prices, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """*prices* finds this *model* of the list whatever it is asked for."""
    monkeypatch.setattr(prices, "_find", lambda base_url, name: model)


def counts(price: ModelPrice) -> Iterator[Usage]:
    """Some usages, among them each side of each tier."""
    tiered = [one for one in vars(price).values() if isinstance(one, TieredPrices)]
    starts = {tier.start for one in tiered for tier in one.tiers}
    for whole in (0, 1, 999, *starts, *(start + 1 for start in starts)):
        yield Usage(whole, whole // 3, whole // 5, whole // 7, 12_345)


@pytest.mark.parametrize("part", range(8))
def test_every_cost_is_the_librarys_own_to_the_last_digit(
    prices: Prices, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """A part of the list only: all of it takes many seconds."""
    differing = []
    models = [one for one in listed() if isinstance(one[1].prices, ModelPrice)]
    for name, model in models[part * 7 :: 56]:
        offered(prices, model, monkeypatch)
        for usage in counts(model.prices):
            cost = prices.cost_usd(account(), name, usage, WHEN)
            if cost != of_library(model.prices, usage):
                differing.append((name, usage, cost))

    assert [] == differing


def test_a_price_that_varies_is_the_one_of_its_moment(
    prices: Prices, monkeypatch: pytest.MonkeyPatch
) -> None:
    differing, seen = [], set()
    usage = Usage(1000, 100, 50, 20, 500)
    for name, model in listed():
        if isinstance(model.prices, ModelPrice):
            continue
        offered(prices, model, monkeypatch)
        for moment in (datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, 3)):
            for hour in (0, 6, 12, 18):
                when = moment.replace(hour=hour, tzinfo=UTC)
                price = model.get_prices(when)
                cost = prices.cost_usd(account(), name, usage, when.timestamp())
                seen.add((name, cost))
                if cost != of_library(price, usage):
                    differing.append((name, when, cost))

    assert [] == differing
    assert len(seen) > len({name for name, _ in seen})


@pytest.mark.parametrize(
    ("tokens", "expected"), [(200_000, 0.6), (200_001, 1.200006)], ids=["at", "above"]
)
def test_a_tier_begins_above_its_start(
    prices: Prices, tokens: int, expected: float
) -> None:
    usage = Usage(tokens, 0, 0, 0, 0)

    assert expected == prices.cost_usd(account(), "claude-sonnet-4-5", usage, WHEN)


def test_a_changed_account_has_its_new_price_at_once(prices: Prices) -> None:
    usage = Usage(MILLION, 0, 0, 0, 0)
    accounts = [account(input=1.0), account(input=2.0), account()]

    costs = [prices.cost_usd(one, "gpt-5", usage, WHEN) for one in accounts]

    assert [1.0, 2.0, 1.25] == costs


def test_an_unknown_price_is_none_and_reported_once(
    prices: Prices, unknown: list[tuple[str, str]]
) -> None:
    usage = Usage(5, 0, 0, 0, 5)
    costs = [prices.cost_usd(account(), "house-model", usage, WHEN) for _ in range(3)]

    assert [None] * 3 == costs
    assert [("main", "house-model")] == unknown


def test_a_known_provider_sells_only_what_its_list_says(prices: Prices) -> None:
    usage = Usage(MILLION, 0, 0, 0, 0)
    openai = account("https://api.openai.com/v1")

    assert 1.25 == prices.cost_usd(openai, "gpt-5", usage, WHEN)
    assert prices.cost_usd(openai, "claude-sonnet-4-5", usage, WHEN) is None


@pytest.mark.parametrize(
    ("model", "own", "expected"),
    [
        pytest.param("house", {"input": 1, "output": 2}, 3.0, id="not-in-the-list"),
        pytest.param("house", {"input": 1}, None, id="half-a-price-is-none"),
        pytest.param("gpt-5", {"output": 1}, 1.8, id="the-rest-is-the-list's"),
        pytest.param("gpt-5", {"input": 0, "cached": 0, "output": 0}, 0.0, id="free"),
        pytest.param(
            "house", {"input": 1, "cached": 0.5, "output": 2}, 2.8, id="cached"
        ),
        pytest.param(
            "house", {"input": 1, "cache_write": 3, "output": 2}, 3.8, id="cache-write"
        ),
    ],
)
def test_an_accounts_own_price_comes_first(
    prices: Prices, model: str, own: dict[str, float], expected: float | None
) -> None:
    usage = Usage(MILLION, 400_000, 400_000, 100_000, MILLION)

    cost = prices.cost_usd(account(**own), model, usage, WHEN)

    assert expected == pytest.approx(cost)


def test_the_trial_account_is_free(
    prices: Prices, unknown: list[tuple[str, str]]
) -> None:
    cost = prices.cost_usd(account("embedded:"), "trial", Usage(5, 0, 0, 0, 5), WHEN)

    assert 0.0 == cost
    assert [] == unknown


def test_names_that_clients_make_up_are_not_remembered_for_ever(
    prices: Prices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices_module, "MAX_REMEMBERED", 10)
    for number in range(100):
        prices.cost_usd(account(), f"made-up-{number}", Usage(1, 0, 0, 0, 1), WHEN)

    remembered = [prices._models, prices._reported, prices._list._provider_misses]
    assert max(map(len, remembered)) <= 22


def test_no_price_is_ever_fetched(
    prices: Prices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a connection of ours nor by what another part of it fetched."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    fetched = data_snapshot.DataSnapshot(providers=[], from_auto_update=True)
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", fetched)

    cost = prices.cost_usd(account(), "gpt-5", Usage(MILLION, 0, 0, 0, 0), WHEN)

    assert 1.25 == cost


PRICED = """
import sys
from gateway.accounting.price_data import UNUSED, providers
from gateway.accounting.prices import _linear
from gateway.config.schema import Price
from genai_prices.types import ModelPrice

print(*(name for name in UNUSED if name in sys.modules))
for provider in providers:
    for model in provider.models:
        listed = model.prices
        if not isinstance(listed, ModelPrice):
            listed = listed[0].prices
        print(provider.id, model.id, model.match, _linear(listed, Price()))
"""


def test_a_price_is_the_same_without_what_its_library_does_not_need_for_it() -> None:
    """A new version of the library may need more of what is left out."""
    lean, whole = [
        subprocess.run(
            [sys.executable, "-c", before + PRICED],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for before in ("", "import pydantic, httpx2\n")
    ]

    assert (lean[0], whole[0]) == ("", "pydantic httpx2")
    assert len(lean) > 500
    assert lean[1:] == whole[1:]
