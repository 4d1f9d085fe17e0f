"""What the page computes before it draws: figures, plots, bars, sentences, forms."""

from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.admin.page import gateway, plots, text, usage, waterfall
from gateway.endpoints.admin.page.forms import (
    FormError,
    expires_at,
    user_body,
)
from gateway.endpoints.admin.page.health import totals, verdict
from gateway.endpoints.admin.page.looks import LOOKS, look
from gateway.ledger.report import RequestHistory
from gateway.ledger.spans import Span, spans_of
from gateway.record import TimelineMark

# --- figures --------------------------------------------------------------------------


def spaced(value: str) -> str:
    return value.replace(text.THIN, " ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1234567, "1 234 567"),
        (999.6, "1 000"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (True, "–"),
        ("7", "–"),
    ],
)
def test_numbers_have_groups_and_unknown_is_a_dash(value: Any, shown: str) -> None:
    assert shown == spaced(text.number(value))


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (0, "0 ms"),
        (0.26, "0.3 ms"),
        (31, "31 ms"),
        (12_400, "12.4 s"),
        (61_000, "1 min 1 s"),
        (7_500_000, "2 h 5 min"),
        (90_000_000, "1 d 1 h"),
        (None, "–"),
    ],
)
def test_time_spans_have_the_unit_that_fits(ms: Any, shown: str) -> None:
    assert shown == spaced(text.milliseconds(ms))


@pytest.mark.parametrize(
    ("part", "shown"),
    [(1, "100 %"), (0.99996, "99.9 %"), (0.5, "50.0 %"), (0, "0 %"), (None, "–")],
)
def test_nearly_all_is_not_all(part: Any, shown: str) -> None:
    assert shown == spaced(text.share(part))


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 28, 1, 2, 3, tzinfo=UTC),
        datetime(2026, 11, 28, 1, 2, 3),
        "2026-11-28T01:02:03Z",
        "2026-11-28T03:02:03+02:00",
        1_795_827_723,
    ],
)
def test_moments_are_shown_in_utc(value: Any) -> None:
    found = text.moment(value)

    assert found is not None
    assert ("2026-11-28T01:02:03Z", "2026-11-28 01:02:03") == (found.iso, found.utc)


@pytest.mark.parametrize("value", [None, "", "yesterday", 1e300, math.nan, object()])
def test_what_is_no_moment_is_none(value: Any) -> None:
    assert text.moment(value) is None


def test_every_state_differs_in_its_word() -> None:
    pairs = {(one.word, one.shape) for one in LOOKS.values()}

    assert len({word for word, _ in pairs}) == len(pairs)
    assert ("strange", "dot") == look("strange")[:2]


# --- plots ----------------------------------------------------------------------------

amounts = st.floats(0, 1e12, allow_nan=False)


@given(st.lists(st.tuples(amounts, amounts, amounts), min_size=1, max_size=40))
def test_bars_stay_in_their_frame_and_show_their_share(
    rows: list[tuple[float, float, float]],
) -> None:
    labels = [str(n) for n in range(len(rows))]
    series = [plots.Series(f"s{n}", [row[n] for row in rows]) for n in range(3)]

    drawn = plots.stacked_bars(labels, series)

    assert drawn.top * (1 + 1e-8) >= max(map(math.fsum, rows))
    for one in drawn.rectangles:
        assert 0 <= one.x and one.x + one.width <= plots.WIDTH + 1e-6
        assert -1e-6 <= one.y and one.y + one.height <= plots.HEIGHT + 1e-6
    heights = math.fsum(one.height for one in drawn.rectangles)
    total = math.fsum(map(math.fsum, rows))
    assert math.isclose(
        heights, total / drawn.top * plots.HEIGHT, rel_tol=1e-6, abs_tol=1e-9
    )


def test_a_plot_has_six_series_at_most_and_loses_nothing() -> None:
    series = [plots.Series(f"s{n}", [n, n]) for n in range(1, 31)]

    kept = plots.merged(series)

    assert ["s30", "s29", "s28", "s27", "s26", "others"] == [one.name for one in kept]
    assert 2 * sum(range(1, 31)) == sum(v or 0 for one in kept for v in one.values)


def test_a_line_is_broken_where_nothing_is_known() -> None:
    drawn = plots.lines(list("abcde"), [plots.Series("x", [1, 2, None, 4, None])])

    [line] = drawn.lines
    assert (1, 1) == (len(line.points), len(line.dots))
    assert 5 == drawn.top


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.1, 2), (51, 100), (math.nan, 1)]
)
def test_the_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert math.isclose(top, plots.nice_top(value))


# --- the waterfall --------------------------------------------------------------------


def mark(at_ms: float, event: str, **facts: Any) -> TimelineMark:
    return TimelineMark(at_ms / 1000, event, facts)


def spans(marks: list[TimelineMark]) -> list[Span]:
    return spans_of(RequestHistory({"user": "alice"}, [], marks))


STORY = [
    mark(0, "received", path="/v1/responses"),
    mark(1, "authenticated", user="alice"),
    mark(10, "queued", scope="user", position=2, expected_s=9.5),
    mark(7000, "chosen", tiers=[["a"]], rejected=[["c", "rate_limited"]]),
    mark(7001, "queued", scope="account", position=1, expected_s=4.0),
    mark(9000, "granted", account="a"),
    mark(9001, "connecting", account="a"),
    mark(9031, "attempt_failed", account="a", code="upstream_reset", detail=""),
    mark(9032, "chosen", tiers=[["b"]], rejected=[["a", "tried"]]),
    mark(9033, "granted", account="b"),
    mark(9034, "connecting", account="b"),
    mark(9300, "head", status=200),
    mark(9400, "first_event"),
    mark(9900, "first_output"),
    mark(12_000, "terminal", outcome="ok", keepalives=3),
]


def test_a_story_becomes_bars() -> None:
    found = waterfall.lanes(spans(STORY), 12.0)

    assert [
        ("Arrives", 0, 10),
        ("Waits: user alice", 10, 7000),
        ("Waits: an account", 7001, 9000),
        ("a", 9000, 9031),
        ("b", 9033, 12_000),
    ] == [(lane.name, lane.begin_ms, lane.end_ms) for lane in found]
    assert ["w-failed"] == [part.style for part in found[3].parts]
    assert ["w-connect", "w-think", "w-stream"] == [p.style for p in found[4].parts]


events = st.sampled_from(
    (
        *("received", "queued", "chosen", "granted", "connecting", "head"),
        *("first_output", "attempt_failed", "terminal", "client_left", "odd"),
    )
)


@given(st.lists(st.tuples(st.floats(0, 1e7), events), max_size=120))
def test_any_timeline_becomes_bars_in_their_frame(
    steps: list[tuple[float, str]],
) -> None:
    marks = [mark(at, event) for at, event in sorted(steps, key=lambda one: one[0])]

    found = waterfall.lanes(spans(marks), 0.0)

    assert len(found) <= waterfall.MAX_LANES
    for lane in found:
        assert lane.ms >= 0
        for part in lane.parts:
            assert 0 <= part.x and part.x + part.width <= waterfall.WIDTH + 1e-6


# --- health ---------------------------------------------------------------------------


def hour(**facts: Any) -> dict[str, Any]:
    zero = dict(requests=0, well=0, counted=0, client=0, gateway=0, upstream=0)
    return {**zero, "queue_p95": None, **facts}


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "nothing"),
        ({"counted": 1000, "well": 1000}, "well"),
        ({"counted": 1000, "well": 900, "upstream": 99, "gateway": 1}, "them"),
        ({"counted": 1000, "well": 900, "upstream": 1, "gateway": 99}, "us"),
        ({"counted": 1000, "well": 900, "upstream": 50, "gateway": 50}, "both"),
    ],
)
def test_us_or_them(facts: dict[str, Any], state: str) -> None:
    hours = [hour(**facts)]

    assert state == verdict(totals(hours), [], hours)["state"]


def test_an_account_that_stands_out_is_named() -> None:
    hours = [hour(counted=100, well=90, upstream=10)]
    rows = [
        {"name": "good", "attempts": 50, "failed": 0},
        {"name": "poor", "attempts": 50, "failed": 10},
        {"name": "seldom", "attempts": 1, "failed": 1},
    ]

    said = " ".join(verdict(totals(hours), rows, hours)["sentences"])

    assert "poor stands out: 20.0" in said


# --- usage ----------------------------------------------------------------------------


def test_a_spreadsheet_takes_no_text_for_a_formula() -> None:
    names = ["=1+1", "@x", "-2", "+3", "\tx", "plain", 'a,"b"\n']
    rows = [{"model": name, "requests": 1, "cost_usd": -0.5} for name in names]

    found = list(csv.DictReader(io.StringIO(usage.as_csv(["model"], rows))))

    assert [f"'{n}" for n in names[:5]] + names[5:] == [row["model"] for row in found]
    assert {"-0.5"} == {row["cost_usd"] for row in found}


def test_an_empty_csv_has_its_head() -> None:
    assert usage.as_csv(["day"], []).startswith("day,requests,")


@pytest.mark.parametrize(
    ("given_keys", "by"),
    [
        ([], ["day", "user"]),
        (["user", "day"], ["day", "user"]),
        (["model", "nonsense"], ["model"]),
    ],
)
def test_the_day_comes_first(given_keys: list[str], by: list[str]) -> None:
    assert by == usage.chosen_keys(given_keys)


# --- forms ----------------------------------------------------------------------------


def test_an_empty_field_of_a_new_user_is_left_out() -> None:
    form = {"name": " eve ", "max_concurrent": "3", "budget.usd_per_day": "1,5"}

    assert {
        "name": "eve",
        "max_concurrent": 3,
        "budget": {"usd_per_day": 1.5},
    } == user_body({**form, "max_queued": " "}, changed=False)


def test_an_empty_field_of_a_changed_user_takes_its_limit_away() -> None:
    body = user_body({"max_concurrent": "", "max_queued": "7"}, changed=True)

    assert (None, 7) == (body["max_concurrent"], body["max_queued"])
    assert 0 == body["budget"]["usd_per_day"] and "name" not in body


@pytest.mark.parametrize("wrong", ["x", "1.5", "--1", "1e3"])
def test_a_number_that_is_none_is_named(wrong: str) -> None:
    with pytest.raises(FormError) as raised:
        user_body({"name": "eve", "max_concurrent": wrong}, changed=False)

    assert "max_concurrent" == raised.value.field


def test_a_key_may_expire() -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)

    assert "2026-12-05T00:00:00+00:00" == expires_at("7", now)
    assert expires_at("", now) is expires_at("9" * 9, now) is expires_at("x", now)


# --- the config -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("limits.max_queued", "20"),
        ("user.a.b.max_concurrent", "3"),
        ("user.a.budget.usd_per_day", "5.0"),
        ("user.a.b", "there"),
        ("user.gone", "–"),
        ("account.o.models", '["gpt-*", "a\\"b"]'),
        ("account.o.headers", "–"),
        ("admin", "–"),
        ("limits.nothing.below", "–"),
    ],
)
def test_a_changed_key_is_found_in_the_config(path: str, shown: str) -> None:
    config = {
        "limits": {"max_queued": 20},
        "user": [
            {"name": "a", "budget": {"usd_per_day": 5.0}},
            {"name": "a.b", "max_concurrent": 3},
        ],
        "account": [{"name": "o", "models": ["gpt-*", 'a"b'], "headers": {}}],
        "admin": None,
    }

    assert shown == gateway.value_at(config, path)


def test_the_config_is_shown_table_by_table() -> None:
    sections = gateway.sections_of(
        {"limits": {"max_queued": 2}, "user": [{"name": "a", "budget": {"x": 1.5}}]}
    )

    assert [
        ("[limits]", [{"name": "max_queued", "value": "2"}]),
        ("[[user]] a", [{"name": "budget.x", "value": "1.5"}]),
    ] == [(one["title"], one["rows"]) for one in sections]
