"""Hours of health: well or not, whose fault, which account, and percentiles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.ledger.health import MAX_HOURS, HourOfHealth, by_hour
from gateway.ledger.ledger import Ledger
from gateway.record import AttemptRecord, Record
from tests.ledger_places import (  # noqa: F401
    NOON,
    OpenLedger,
    Place,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    record_of,
    sqlite_place_fixture,
    written,
)

HOUR = 3600.0


def moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


async def hours(ledger: Ledger, since: float, until: float) -> list[HourOfHealth]:
    ask = moment(since), moment(until)
    return await ledger.read(lambda connection: by_hour(connection, *ask))


def ended(outcome: str, origin: str = "", code: str = "", **fields: Any) -> Record:
    record = record_of(**fields)
    record.set_outcome(outcome, origin, code)
    return record


def tries(*codes: str, at: float = NOON) -> list[AttemptRecord]:
    """An attempt at ``a1`` with the first code, at ``a2`` with the next …"""
    return [
        AttemptRecord(n, f"a{n}", at, at + 1, 200, code)
        for n, code in enumerate(codes, 1)
    ]


async def test_an_hour_says_how_well_it_was_and_whose_fault_it_was_not(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    for record in (
        ended("ok", attempts=tries("upstream_reset", "")),
        ended("incomplete", attempts=tries("")),
        ended("failed", "upstream", "upstream_cut", attempts=tries("upstream_cut")),
        ended("refused", "gateway", "queue_full", attempts=[]),
        ended("failed", "client", "invalid_request", attempts=tries("passed_on")),
        ended("client_gone", "client", "client_gone", attempts=tries("")),
    ):
        ledger.add(record)
    ledger.begin(record_of(request_id="still-open", attempts=tries("")))
    await written(ledger)

    [one] = await hours(ledger, NOON + 60, NOON + 120)

    assert moment(NOON) == one.hour
    assert (6, 2, 4, 0.5) == (one.requests, one.well, one.counted, one.well_share)
    assert {"client": 1, "gateway": 1, "upstream": 1} == one.origin
    assert {"upstream_cut": 1, "queue_full": 1, "invalid_request": 1} == one.code
    assert {"a1": 2, "a2": 0} == one.failed
    assert {"a1": 6, "a2": 1} == one.attempts


async def test_percentiles_are_values_that_were_measured(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    for n in range(1, 101):
        ledger.add(record_of(first_event_ms=float(n), queue_ms=None))
    ledger.add(record_of(first_event_ms=7.0, queue_ms=3.0, started_at=NOON + HOUR))
    await written(ledger)

    first, second = await hours(ledger, NOON, NOON + HOUR)

    assert {"p50": 50.0, "p95": 95.0, "p99": 99.0} == first.first_event
    assert {"p50": None, "p95": None, "p99": None} == first.queue
    assert {"p50": 7.0, "p95": 7.0, "p99": 7.0} == second.first_event
    assert {"p50": 3.0, "p95": 3.0, "p99": 3.0} == second.queue


async def test_hours_without_requests_are_there_and_their_number_is_bounded(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)

    three = await hours(ledger, NOON, NOON + 2 * HOUR)
    many = await hours(ledger, NOON - 9999 * HOUR, NOON)

    assert [moment(NOON) + timedelta(hours=n) for n in range(3)] == [
        one.hour for one in three
    ]
    assert {(0, None)} == {(one.requests, one.well_share) for one in three}
    assert (MAX_HOURS, moment(NOON)) == (len(many), many[-1].hour)
