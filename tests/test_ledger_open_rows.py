"""Rows written ahead: only for what is still open, and never lost."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from gateway.ledger import open_rows as ahead_module
from gateway.ledger.ledger import Ledger
from gateway.ledger.open_rows import OpenRowBuffer
from gateway.ledger.writer import Grouped, LedgerWriter
from gateway.record import AttemptRecord, Record
from tests.ledger_places import (  # noqa: F401
    NOON,
    OpenLedger,
    Place,
    open_ledger_fixture,
    record_of,
    sqlite_place_fixture,
    written,
)

OUTCOMES = "SELECT request_id, outcome FROM request ORDER BY request_id"


@pytest.fixture(name="never_due")
def never_due_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ledger is quiet, and nothing that has begun is due by itself."""
    monkeypatch.setattr(ahead_module, "OPEN_WITHIN_S", 1000.0)
    monkeypatch.setattr("gateway.ledger.ledger.JOIN_AFTER_S", 1e9)


@pytest.fixture(name="batches")
def batches_fixture(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of the requests that each transaction wrote."""
    seen: list[list[str]] = []
    whole = LedgerWriter._execute

    def noted(writer: LedgerWriter, grouped: Grouped) -> None:
        requests, *_ = grouped.values()
        seen.append([rows.request[0] for rows in requests.values()])
        whole(writer, grouped)

    monkeypatch.setattr(LedgerWriter, "_execute", noted)
    return seen


async def test_a_short_request_is_written_once_as_it_ended(
    sqlite_place: Place,
    open_ledger: OpenLedger,
    never_due: None,
    batches: list[list[str]],
) -> None:
    ledger = await open_ledger(sqlite_place)
    first, second = record_of("a"), record_of("b")
    for record in (first, second):
        ledger.begin(record)
    assert 2 == ledger.waiting

    await ledger.close(first)
    ledger.add(second)
    await written(ledger)

    assert [["a"], ["b"]] == batches
    assert [("a", "ok"), ("b", "ok")] == sqlite_place.rows(OUTCOMES)


async def test_a_lone_request_is_written_ahead_at_once(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "OPEN_WITHIN_S", 1000.0)
    ledger = await open_ledger(sqlite_place)

    ledger.begin(record_of("a"))
    await written(ledger)

    assert [("a", "open")] == sqlite_place.rows(OUTCOMES)


async def test_a_lone_request_is_sent_before_its_row_is_made(
    sqlite_place: Place,
    open_ledger: OpenLedger,
    monkeypatch: pytest.MonkeyPatch,
    batches: list[list[str]],
) -> None:
    monkeypatch.setattr(ahead_module, "OPEN_WITHIN_S", 1000.0)
    monkeypatch.setattr("gateway.ledger.ledger.JOIN_AFTER_S", -1.0)  # it is quiet
    ledger = await open_ledger(sqlite_place)
    ledger.begin(record_of("a"))
    assert 1 == len(ledger._open_rows.records)
    await asyncio.sleep(0)
    assert 0 == len(ledger._open_rows.records)
    await written(ledger)

    ended = record_of("b")
    ledger.begin(ended)
    await ledger.close(ended)  # before the row that was to be written ahead
    await asyncio.sleep(0)
    await written(ledger)
    assert [["a"], ["b"]] == batches


async def test_what_stays_open_goes_along_with_the_next_ending(
    sqlite_place: Place,
    open_ledger: OpenLedger,
    never_due: None,
    batches: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = await open_ledger(sqlite_place)
    for name in ("b", "c"):
        ledger.begin(record_of(name))
    in_a_while(ledger, monkeypatch)

    await ledger.close(record_of("a"))

    assert ["a", "b", "c"] == sorted(name for batch in batches for name in batch)
    assert [("a", "ok"), ("b", "open"), ("c", "open")] == sqlite_place.rows(OUTCOMES)
    assert 0 == ledger.waiting


def in_a_while(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun so far is as old as what may go along."""
    take = OpenRowBuffer.take

    def later(self: OpenRowBuffer, now: float) -> list[Record]:
        return take(self, now + 1.0)

    monkeypatch.setattr(OpenRowBuffer, "take", later)


async def test_what_stays_open_is_written_without_any_ending(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.ledger.JOIN_AFTER_S", 1e9)
    ledger = await open_ledger(sqlite_place)

    for number in range(20):
        ledger.begin(record_of(f"{number}"))
        await asyncio.sleep(0.005)
    await written(ledger)

    assert [("open", 20)] == sqlite_place.rows(
        "SELECT outcome, count(*) FROM request GROUP BY outcome"
    )


async def test_a_second_attempt_is_written_ahead_too(
    sqlite_place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(sqlite_place)
    record = record_of("a", attempts=[AttemptRecord(1, "openai-1", NOON)])
    ledger.begin(record)
    await written(ledger)
    record.attempts.append(AttemptRecord(2, "openai-2", NOON + 1))

    ledger.begin(record)
    await written(ledger)

    assert [(1,), (2,)] == sqlite_place.rows("SELECT n FROM attempt ORDER BY n")


async def test_stopping_writes_what_has_begun(
    sqlite_place: Place, never_due: None
) -> None:
    ledger = await sqlite_place.open()
    for name in ("a", "b"):
        ledger.begin(record_of(name))

    await ledger.stop()
    with capture_logs() as logs:
        await (await sqlite_place.open()).stop()

    assert [("a", "failed"), ("b", "failed")] == sqlite_place.rows(OUTCOMES)
    assert [2] == [line.get("closed_as_crashed") for line in logs]


async def test_ahead_has_a_timer_only_while_something_is_open() -> None:
    due: list[list[Record]] = []
    open_rows = OpenRowBuffer(due.append)
    record = record_of("a")

    open_rows.begin(record, time.monotonic())
    open_rows.begin(record, time.monotonic())
    assert 1 == len(open_rows.records)
    open_rows.drop(record)
    open_rows.drop(record)
    while open_rows._timer is not None:
        await asyncio.sleep(0.005)

    assert 0 == len(open_rows.records)
    assert [] == due


async def test_only_what_is_old_enough_is_taken() -> None:
    open_rows = OpenRowBuffer(lambda records: None)
    old, young = record_of("old"), record_of("young")
    open_rows.begin(old, time.monotonic())
    began_at, _ = open_rows.records[id(old)]
    open_rows.records[id(young)] = began_at + 1.0, young

    assert [] == open_rows.take(began_at, 0.5)
    assert [old] == open_rows.take(began_at + 0.75, 0.5)
    assert [young] == open_rows.finish()
