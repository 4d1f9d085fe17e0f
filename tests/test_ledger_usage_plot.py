"""``gateway usage --plot``: bars that are true, and that fit."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.ledger.bars import bar, lengths, si
from gateway.ledger.report import QuestionError
from gateway.ledger.usage_plot import MAX_PARTS, PlotLook, plot

LOOK = PlotLook(60)


def row(usd: float = 0.0, tokens: int = 0, requests: int = 1, **keys: str) -> Any:
    sums = {"requests": requests, "cost_usd": usd}
    return {**keys, **sums, "input_tokens": tokens, "output_tokens": 0}


def lines(
    rows: list[Any], by: str, measure: str = "", look: PlotLook = LOOK
) -> list[str]:
    return plot(rows, by.split(","), measure, look).plain.split("\n")


def test_the_largest_bar_is_first_and_fills_the_line() -> None:
    title, first, second, third = lines(
        [row(1.0, user="bob"), row(4.0, user="alice"), row(0.0, user="")], "user"
    )

    assert "cost in USD by user" == title
    assert first.startswith("alice  ████") and first.endswith("4.00   80%")
    assert 60 == len(first) == len(second) == len(third)
    assert ("█" * 41 in first, "█" * 10 + "▎ " in second) == (True, True)
    assert "-" == third.split()[0] and "█" not in third and "0.00" in third


def test_days_have_no_gap_and_stay_in_order() -> None:
    _, *bars = lines(
        [row(2.0, day="2026-11-30"), row(9.0, day="2026-11-27")], "day", "cost"
    )

    days = [one.split()[0] for one in bars]
    assert ["2026-11-27", "2026-11-28", "2026-11-29", "2026-11-30"] == days
    assert ["0.00", "0%"] == bars[1].split()[1:]


def test_further_keys_divide_the_bars() -> None:
    rows = [
        row(3.0, user="alice", day="2026-11-27"),
        row(1.0, user="bob", day="2026-11-27"),
        row(2.0, user="bob", day="2026-11-28"),
    ]
    _, first, second, legend = lines(rows, "user,day")

    assert (first.count("█"), first.count("▓")) == (27, 9)
    assert (second.count("█"), second.count("▓")) == (0, 18)
    assert "█ alice 3.00   ▓ bob 3.00" == legend


def test_many_parts_are_six_and_nothing_is_lost() -> None:
    rows = [row(float(n), user="a", model=f"m{n}") for n in range(1, 40)]
    _, _, *legend = lines(rows, "user,model", look=PlotLook(40))

    shown = " ".join(legend).split()
    assert "others" in shown and MAX_PARTS == sum(one in "█▓▒░▞▚" for one in shown)
    assert f"{sum(range(1, 40)):.2f}" in lines(rows, "user,model")[1]


@pytest.mark.parametrize(
    ("rows", "measure", "title"),
    [
        ([row(0.1, user="a")], "", "cost in USD by user"),
        ([row(0.0, 5, user="a")], "", "tokens by user"),
        ([row(0.0, 0, user="a")], "", "requests by user"),
        ([row(0.1, user="a")], "requests", "requests by user"),
    ],
)
def test_what_is_drawn_is_the_first_that_is_not_0(
    rows: list[Any], measure: str, title: str
) -> None:
    assert title == lines(rows, "user", measure)[0]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_the_terminal(width: int, plain: bool) -> None:
    chance = random.Random(7)
    names = ["a", "b" * 64, "carol", "d" * 30]
    rows = [
        row(chance.choice([0.0, 0.004, 12.0, 34567.891]), user=user, model=model)
        for user in names
        for model in names + [f"m{n}" for n in range(9)]
    ]
    found = lines(rows, "user,model", look=PlotLook(width, plain))

    assert max(map(len, found)) <= width
    assert plain == "".join(found).isascii()


def test_a_question_without_bars_says_so() -> None:
    assert ["No requests."] == lines([], "user")
    with pytest.raises(QuestionError, match="--by"):
        plot([row()], [], "", LOOK)
    with pytest.raises(QuestionError, match="--since 400d"):
        lines([row(day="2020-01-01"), row(day="2026-01-01")], "day")


@pytest.mark.parametrize(
    ("value", "drawn", "plain"),
    [(0, "", ""), (8, "████", "####"), (3, "█▌", "##"), (0.001, "▏", "#")],
)
def test_a_bar_has_eighths(value: float, drawn: str, plain: str) -> None:
    assert drawn == bar(value, 8, 4)
    assert plain == bar(value, 8, 4, plain=True)


def test_parts_add_up_to_their_bar() -> None:
    chance = random.Random(3)
    for _ in range(200):
        values = [chance.random() * chance.choice([0, 1, 30]) for _ in range(6)]
        most = sum(values) * chance.uniform(1, 4)
        sizes = lengths(values, most, 50)
        assert all(size >= 0 for size in sizes)
        assert round(sum(values) / most * 50 if most else 0) == sum(sizes)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_600, "1.00M"),
        (4_560_000_000, "4.56G"),
        (7e15, "7000T"),
    ],
)
def test_large_numbers_are_short(number: float, shown: str) -> None:
    assert shown == si(number)
