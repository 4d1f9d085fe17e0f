"""When the writer writes, what wakes it, and how many rows go into one statement."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from sqlalchemy.dialects import sqlite

from gateway.ledger import statement
from gateway.ledger import writer as writer_module
from gateway.ledger.database import Database
from gateway.ledger.request_upsert import SqliteRequestUpsert
from gateway.ledger.rows import rows_of
from gateway.ledger.statement import MultiRowUpsert
from gateway.ledger.tables import account_state
from gateway.ledger.writer import (
    BUSY_EVERY_S,
    COMMIT_EVERY_S,
    LINGER_S,
    LONE_EVERY_S,
    MANY,
    PURGE_EVERY_S,
    PURGE_SHARE,
    PURGE_WAIT_S,
    LedgerEntry,
    LedgerWriter,
    WakeOn,
)
from gateway.record import AttemptRecord
from gateway.wake_event import WakeEvent
from tests.ledger_places import (  # noqa: F401
    NOON,
    OpenLedger,
    Place,
    open_ledger_fixture,
    record_of,
    sqlite_place_fixture,
)

URGENT = LedgerEntry((), urgent=True, put_at=100.0)
LATER = LedgerEntry((), put_at=50.0)


@pytest.fixture(name="writer")
def writer_fixture(sqlite_place: Place) -> LedgerWriter:
    """One whose thread does not run."""
    database = Database(sqlite_place.url, sqlite_place.base)
    return LedgerWriter(database, lambda connection: False, lambda report: None)


@pytest.mark.parametrize("rings", [0, 1, 2])
def test_an_event_wakes_once_and_the_shortest_wait_ends(rings: int) -> None:
    """A wait without an end would need an event, which a busy thread does not get."""
    event = WakeEvent()
    for _ in range(rings):
        event.set()

    def sleep() -> None:
        if rings:
            event.wait(3600.0)
        for _ in range(1000):
            event.wait(1e-9)

    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    sleeper.join(10.0)

    assert not sleeper.is_alive()


def test_an_event_wakes_the_thread_that_waits() -> None:
    event = WakeEvent()
    sleeper = threading.Thread(target=event.wait, args=(3600.0,), daemon=True)
    sleeper.start()

    event.set()
    sleeper.join(10.0)

    assert not sleeper.is_alive()


@pytest.mark.parametrize(
    ("entries", "retry_at", "until", "wake_on"),
    [
        pytest.param([], 0.0, 7.0, WakeOn.ANY, id="idle-until-the-purge"),
        pytest.param([LATER], 0.0, 50 + LINGER_S, WakeOn.URGENT, id="lingering"),
        pytest.param([URGENT], 0.0, 94.0, WakeOn.NONE, id="pulse"),
        pytest.param([LATER, URGENT], 0.0, 94.0, WakeOn.NONE, id="both"),
        pytest.param([URGENT], 120.0, 120.0, WakeOn.NONE, id="retrying"),
    ],
)
def test_how_long_the_writer_waits_and_for_what(
    writer: LedgerWriter,
    entries: list[LedgerEntry],
    retry_at: float,
    until: float,
    wake_on: WakeOn,
) -> None:
    writer._next_at, writer._purge_at, writer._retry_at = 94.0, 7.0, retry_at
    for entry in entries:
        writer.put(entry)
    writer._take()

    assert (until, wake_on) == writer._next_action()


@pytest.mark.parametrize(
    ("waiting", "every_s"),
    [
        (0, COMMIT_EVERY_S),
        (1, LONE_EVERY_S),
        (2, COMMIT_EVERY_S),
        (MANY - 1, COMMIT_EVERY_S),
        (MANY, BUSY_EVERY_S),
    ],
)
def test_the_pulse_is_slower_where_many_share_it(
    writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch, waiting: int, every_s: float
) -> None:
    monkeypatch.setattr(writer_module, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(writer, "_commit_batch", lambda: [])
    writer.put(*[LATER] * 9, *[URGENT] * waiting)
    writer._take()

    writer._flush()

    assert 100.0 + every_s == writer._next_at


@pytest.mark.parametrize(
    ("wake_on", "entries", "rings"),
    [
        pytest.param(WakeOn.NONE, [URGENT], 0, id="asleep"),
        pytest.param(WakeOn.URGENT, [LATER], 0, id="can-wait"),
        pytest.param(WakeOn.URGENT, [URGENT], 1, id="urgent"),
        pytest.param(WakeOn.URGENT, [LATER, URGENT], 1, id="along"),
        pytest.param(WakeOn.ANY, [LATER], 1, id="anything"),
    ],
)
def test_the_thread_is_woken_only_for_what_it_listens_to(
    writer: LedgerWriter,
    monkeypatch: pytest.MonkeyPatch,
    wake_on: WakeOn,
    entries: list[LedgerEntry],
    rings: int,
) -> None:
    woken: list[None] = []
    monkeypatch.setattr(writer._wake, "set", lambda: woken.append(None))
    writer._wake_on = wake_on

    writer.put(*entries)
    writer.put(*entries)

    assert rings == len(woken)


@pytest.mark.parametrize(
    ("rows", "calls"),
    [(0, []), (1, [1]), (2, [2]), (40, [40]), (41, [40, 1]), (95, [40, 40, 15])],
)
def test_many_rows_are_few_calls(rows: int, calls: list[int]) -> None:
    listed = [(f"account-{number}", "[]", "now") for number in range(rows)]

    made = list(MultiRowUpsert(account_state, sqlite.dialect()).calls(listed))

    assert calls == [text.count("(?, ?, ?)") for text, _ in made]
    assert [one for row in listed for one in row] == [
        value for _, values in made for value in values
    ]


@pytest.mark.parametrize("most", [statement.MAX_VARIABLES, 999])
def test_no_statement_has_more_variables_than_sqlite_takes(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(statement, "MAX_VARIABLES", most)
    rows = [rows_of(record_of()) for _ in range(100)]

    made = list(SqliteRequestUpsert(sqlite.dialect()).calls(rows))

    assert 1 < max(len(values) for _, values in made) <= most


async def test_a_request_is_one_statement_and_each_part_in_its_table(
    sqlite_place: Place, open_ledger: OpenLedger
) -> None:
    """Without an attempt, with one, with three: all in one call of the driver."""
    ledger = await open_ledger(sqlite_place)
    tries = [
        AttemptRecord(n, f"account-{n}", NOON, NOON + n, 200 + n) for n in (1, 2, 3)
    ]
    records = [record_of(f"r{n}", attempts=tries[:n]) for n in (0, 1, 3)]
    rows = [rows_of(record) for record in records]

    [call] = ledger.database.requests.calls(rows)
    for record in records:
        ledger.add(record)
        await ledger.close(record)

    assert 5 * len(rows[0].request) < len(call[1])
    assert [("r0", 0), ("r1", 1), ("r3", 3)] == sqlite_place.rows(
        "SELECT request_id, attempts FROM request ORDER BY 1"
    )
    assert [("r1", 1, 201), ("r3", 1, 201), ("r3", 2, 202), ("r3", 3, 203)] == (
        sqlite_place.rows("SELECT request_id, n, status FROM attempt ORDER BY 1, 2")
    )
    assert [(3,)] == sqlite_place.rows("SELECT count(marks) FROM timeline")


async def test_the_view_is_the_writers_alone(
    sqlite_place: Place, open_ledger: OpenLedger
) -> None:
    await open_ledger(sqlite_place)

    assert [] == sqlite_place.rows(
        "SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger')"
    )


@pytest.mark.parametrize(
    ("finds", "pause_s"),
    [
        pytest.param(True, 1.0 / PURGE_SHARE, id="more"),
        pytest.param(False, 1.0 + PURGE_EVERY_S + PURGE_WAIT_S, id="no-more"),
        pytest.param(OSError("disk"), 1.0 + PURGE_WAIT_S, id="failure"),
    ],
)
def test_a_writer_that_never_rests_purges_all_the_same(
    writer: LedgerWriter,
    monkeypatch: pytest.MonkeyPatch,
    finds: bool | Exception,
    pause_s: float,
) -> None:
    """There is always something to write, each time for a second."""
    now = 1000.0
    purged: list[float] = []

    def purge(connection: object) -> bool:
        nonlocal now
        purged.append(now)
        now += 1.0
        if isinstance(finds, Exception):
            raise finds
        return finds

    def collect() -> None:
        nonlocal now
        now += 1.0
        writer._batch.append(LedgerEntry(()))
        writer._stopping = now > 1200.0

    database = SimpleNamespace(write=nullcontext, reset=lambda: None)
    monkeypatch.setattr(writer_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(writer, "_purge_late_at", now + PURGE_WAIT_S)
    monkeypatch.setattr(writer, "_purge", purge)
    monkeypatch.setattr(writer, "_collect", collect)
    monkeypatch.setattr(writer, "_commit", lambda entries: None)
    monkeypatch.setattr(writer, "_database", database)

    writer._run()

    pauses = [later - one for one, later in zip(purged, purged[1:])]
    assert purged[0] == 1000.0 + PURGE_WAIT_S
    assert pauses and all(pause_s <= pause <= pause_s + 3.0 for pause in pauses)
