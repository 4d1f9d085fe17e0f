"""Known prices are right, unknown ones are None, and nothing asks the network."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import data_snapshot

from gateway import prices as prices_module
from gateway.config import Account, Price
from gateway.prices import Prices
from gateway.usage import Usage

WHEN = datetime(2026, 11, 24, tzinfo=UTC)
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
        pytest.param("gpt-5", Usage(MILLION), 1.25, id="output-not-told"),
        pytest.param("gpt-5", Usage(), None, id="nothing-told"),
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


def test_an_unknown_price_is_none_and_told_once(
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

    remembered = [prices._found, prices._told, prices._list._provider_misses]
    assert max(map(len, remembered)) <= 22


def test_no_price_is_ever_fetched(
    prices: Prices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a connection of ours, and not by taking up what somebody else fetched."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    fetched = data_snapshot.DataSnapshot(providers=[], from_auto_update=True)
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", fetched)

    cost = prices.cost_usd(account(), "gpt-5", Usage(MILLION, 0, 0, 0, 0), WHEN)

    assert 1.25 == cost
