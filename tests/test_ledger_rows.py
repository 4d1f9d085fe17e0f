"""A record as rows: bounded, and every text and number fits into a database."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest
from sqlalchemy import Table

from gateway.ledger import rows
from gateway.ledger.rows import Row, marks_json, plain, read_marks, rows_of
from gateway.ledger.statement import moment
from gateway.ledger.tables import attempt, request, timeline
from gateway.record import AttemptRecord, Record, TimelineMark
from tests.ledger_places import NOON, record_of


def named(table: Table, row: Row) -> dict[str, Any]:
    return dict(zip((c.name for c in table.columns), row, strict=True))


def test_a_row_has_the_order_of_its_table() -> None:
    record = record_of("9c-1", response_id="resp_1", dropped=("store", "user"))
    rows = rows_of(record)

    own = {f.name for f in fields(Record)} - {"usage", "attempts", "dropped"}
    whole = named(request, rows.request)
    columns = {name: value for name, value in whole.items() if name in own}
    assert columns == {name: getattr(record, name) for name in columns} | {
        "started_at": moment(NOON)
    }
    assert {**whole, **asdict(record.usage)} == whole
    assert (1, "store,user", "9c1") == (
        whole["attempts"],
        whole["dropped"],
        whole["plain_id"],
    )
    assert {
        **{"request_id": "9c-1", "request_started_at": moment(NOON), "n": 1},
        **{"account": "openai-1", "started_at": moment(NOON + 0.5)},
        **{"ended_at": moment(NOON + 2), "status": 200, "error_code": ""},
    } == named(attempt, rows.attempts[0])
    assert {
        **{"request_id": "9c-1", "started_at": moment(NOON)},
        "marks": '[[0.25,"authenticated",{"user":"alice"}]]',
    } == named(timeline, rows.timeline)


def test_a_request_that_was_not_recorded_keeps_its_usage() -> None:
    unrecorded = named(request, rows_of(record_of()).as_unrecorded().request)

    assert ("failed", "gateway", "ledger_unavailable") == (
        unrecorded["outcome"],
        unrecorded["origin"],
        unrecorded["error_code"],
    )
    assert (100, 50, 0.25) == (
        unrecorded["input_tokens"],
        unrecorded["output_tokens"],
        unrecorded["cost_usd"],
    )


def test_rows_do_not_change_when_the_record_does() -> None:
    record = record_of(attempts=[AttemptRecord(1, "a", NOON)])
    taken = rows_of(record, is_open=True)
    record.set_outcome("failed", "upstream", "upstream_cut")
    record.attempts[0].status = 500
    record.mark(200.0, "later")

    assert "open" == named(request, taken.request)["outcome"]
    assert 0 == named(attempt, taken.attempts[0])["status"]
    assert "later" not in named(timeline, taken.timeline)["marks"]


def test_a_long_timeline_keeps_its_beginning_and_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows, "MAX_MARKS", 4)
    marks = [TimelineMark(float(n), f"event-{n}", {}) for n in range(10)]

    kept = read_marks(marks_json(marks))

    events = ["event-0", "event-1", "…", "event-8", "event-9"]
    assert events == [mark.event for mark in kept]
    assert {"left_out": 6} == kept[2].facts


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({"n": 1, "list": [["a", "b"]]}, None, id="plain"),
        pytest.param({"tuple": ("a", 1)}, {"tuple": ["a", 1]}, id="tuple"),
        pytest.param({"error": ValueError("no")}, {"error": "no"}, id="any-object"),
        pytest.param({"half": "\ud800"}, None, id="half-a-surrogate-pair"),
        pytest.param({"huge": 10**40}, None, id="more-than-64-bits"),
        pytest.param({3: "number as key"}, {"3": "number as key"}, id="odd-key"),
    ],
)
def test_any_fact_can_be_kept(
    facts: dict[object, object], expected: dict[str, object] | None
) -> None:
    marks = [TimelineMark(0.25, "chosen", facts)]  # type: ignore[arg-type]

    [kept] = read_marks(marks_json(marks))

    assert (0.25, "chosen", expected or facts) == kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("gpt-5", "gpt-5", id="as-it-is"),
        pytest.param("a\0b", "ab", id="nul"),
        pytest.param("a\ud800b", "a?b", id="half-a-surrogate-pair"),
        pytest.param("ключ🗝", "ключ🗝", id="not-ascii"),
        pytest.param("x" * 600, "x" * 512, id="too-long"),
    ],
)
def test_a_text_fits(text: str, expected: str) -> None:
    assert expected == plain(text)


@pytest.mark.parametrize(
    ("unix_s", "expected"),
    [
        pytest.param(NOON + 0.25, "2026-11-24 12:00:00.250000", id="now"),
        pytest.param(NOON + 0.9999997, "2026-11-24 12:00:01.000000", id="nearly"),
        pytest.param(-5.0, "1970-01-01 00:00:00.000000", id="before-all-clocks"),
        pytest.param(1e15, "2096-10-02 07:06:40.000000", id="after-all-clocks"),
    ],
)
def test_a_moment_is_in_the_years_that_a_database_knows(
    unix_s: float, expected: str
) -> None:
    assert expected == moment(unix_s)
