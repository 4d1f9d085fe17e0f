"""What is too old is removed, and nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.config import schema as config
from gateway.ledger import retention
from gateway.ledger.response_store import ResponseStore, StoredTurn
from tests.ledger_places import (  # noqa: F401
    OpenLedger,
    Place,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    record_of,
    sqlite_place_fixture,
)

DAY = 86400.0
COUNTS = (
    "SELECT (SELECT count(*) FROM request), (SELECT count(*) FROM attempt),"
    " (SELECT count(*) FROM timeline), (SELECT count(*) FROM response)"
)


async def fill(place: Place, ages: list[float]) -> None:
    """Requests of these ages in days, written while nothing was too old."""
    ledger = await place.open(retention_days=0, trace_retention_days=0)
    for number, days in enumerate(ages):
        ledger.add(record_of(f"request-{number}", started_at=time.time() - days * DAY))
    await ResponseStore(ledger).store(StoredTurn("resp_1", "alice", "openai-1", b"{}"))
    await ledger.stop()


async def counts_become(place: Place, expected: tuple[int, ...]) -> None:
    async with asyncio.timeout(10):
        while [expected] != place.rows(COUNTS):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        pytest.param(
            {"retention_days": 30, "trace_retention_days": 5}, (3, 3, 2, 1), id="both"
        ),
        pytest.param(
            {"retention_days": 5, "trace_retention_days": 30},
            (2, 2, 2, 1),
            id="a-trace-goes-with-its-request",
        ),
        pytest.param(
            {"retention_days": 30, "trace_retention_days": 0},
            (3, 3, 3, 1),
            id="a-trace-stays-with-its-request",
        ),
    ],
)
async def test_old_rows_go(
    place: Place,
    open_ledger: OpenLedger,
    monkeypatch: pytest.MonkeyPatch,
    rules: dict[str, int],
    left: tuple[int, ...],
) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    await fill(place, [0, 1, 10, 40, 50, 60, 70, 80])

    await open_ledger(place, **rules)

    await counts_become(place, left)


async def test_stored_responses_go_when_their_time_is_over(
    place: Place, open_ledger: OpenLedger
) -> None:
    await fill(place, [0])
    place.execute("UPDATE response SET expires_at = '2026-01-01 00:00:00+00:00'")

    await open_ledger(place)

    await counts_become(place, (1, 1, 1, 0))


async def test_a_rule_that_always_finds_more_does_not_keep_the_others_from_theirs(
    place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where rows grow too old as quickly as they are removed."""
    monkeypatch.setattr(retention, "STEP", 0)  # every step counts as a full one
    rules = retention.Retention(config.LedgerSettings())
    seen: list[str] = []
    monkeypatch.setattr(
        retention.Connection,
        "execute",
        lambda self, statement, *rest: seen.append(statement.table.name) or Removed(),
    )
    monkeypatch.setattr(
        retention.response_rows, "purge", lambda *given: seen.append("response") or 0
    )
    connection = object.__new__(retention.Connection)

    assert all(rules.purge(connection) for _ in range(10))

    assert {"timeline", "attempt", "request", "response"} == set(seen)


class Removed:
    rowcount = 1
