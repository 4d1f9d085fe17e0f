"""A ledger that cannot be written, is slow, is gone, or belongs to a newer version."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from structlog.testing import capture_logs

from gateway.daemon import worker_handle
from gateway.errors import GatewayError
from gateway.ledger import database as database_module
from gateway.ledger import ledger as ledger_module
from gateway.ledger import writer as writer_module
from gateway.ledger.database import Database, LedgerError
from gateway.ledger.ledger import Ledger
from gateway.ledger.statement import DriverCall, moment
from gateway.ledger.tables import account_state, attempt, response
from gateway.ledger.writer import RowWrite
from gateway.record import AttemptRecord
from tests.ledger_places import (  # noqa: F401
    NOON,
    OpenLedger,
    Place,
    Postgres,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    record_of,
    sqlite_place_fixture,
    written,
)

NEVER = float("inf")
FULL = "database or disk is full"
READ_ONLY = "attempt to write a readonly database"
BY_ID = "SELECT request_id, outcome, error_code FROM request ORDER BY request_id"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait for the end of a failure is shorter."""
    monkeypatch.setattr(ledger_module, "CLOSE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(ledger_module, "STALL_AGAIN_S", 0.02)
    monkeypatch.setattr(ledger_module, "TURN_WRITE_S", 0.0)
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(writer_module, "RETRY_MAX_S", 0.05)
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)


@contextmanager
def sabotage(pragma: str) -> Iterator[None]:
    """While inside, every transaction meets *pragma*, as it would meet a sick disk."""

    def spoil(connection: Connection) -> None:
        connection.exec_driver_sql(pragma)

    whole = Database.flush

    def spoilt(database: Database, calls: Sequence[DriverCall]) -> None:
        whole(database, [(pragma, ()), *calls])

    event.listen(Engine, "begin", spoil)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "flush", spoilt)
        try:
            yield
        finally:
            event.remove(Engine, "begin", spoil)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def healed(ledger: Ledger) -> None:
    await until(lambda: ledger.healthy and not ledger.waiting)


# --- while it runs ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "said"),
    [
        pytest.param("PRAGMA max_page_count = 1", FULL, id="disk-full"),
        pytest.param("PRAGMA query_only = ON", READ_ONLY, id="read-only"),
    ],
)
async def test_what_cannot_be_made_durable_is_never_a_success(
    sqlite_place: Place, open_ledger: OpenLedger, pragma: str, said: str
) -> None:
    ledger = await open_ledger(sqlite_place)
    await ledger.close(record_of("a-good"))

    with capture_logs() as logs:
        with sabotage(pragma):
            big = record_of("b-bad")
            big.mark(101.0, "long", text="x" * 200_000)
            with pytest.raises(GatewayError) as raised:
                await ledger.close(big)
            assert ("ledger_unavailable", 503) == (
                raised.value.code,
                raised.value.status,
            )
            assert not ledger.healthy
            assert said in ledger.reason
        await healed(ledger)
        await ledger.close(record_of("c-good"))

    assert [
        ("a-good", "ok", ""),
        ("b-bad", "failed", "ledger_unavailable"),
        ("c-good", "ok", ""),
    ] == sqlite_place.rows(BY_ID)
    assert ["ledger.failed", "ledger.healed"] == [line["event"] for line in logs]
    assert said in logs[0]["detail"]


async def test_a_lock_that_is_let_go_in_time_fails_no_request(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "CLOSE_TIMEOUT_S", 10.0)
    ledger = await open_ledger(sqlite_place)
    other = sqlite3.connect(sqlite_place.base / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    closing = asyncio.ensure_future(ledger.close(record_of("a")))
    await until(lambda: not ledger.healthy)
    assert "locked" in ledger.reason
    other.execute("ROLLBACK")
    await closing

    other.close()
    assert [("a", "ok", "")] == sqlite_place.rows(BY_ID)
    assert ledger.healthy


STOPPED = """
import os, signal, sys
from pathlib import Path
from gateway.ledger.database import Database

database = Database(sys.argv[1], Path(sys.argv[2]))
database.prepare()
with database.write():
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@contextmanager
def stopped_writer(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, stopped in the middle of a transaction."""
    words = [sys.executable, "-c", STOPPED, place.url, str(place.base)]
    with subprocess.Popen(words, cwd=Path(__file__).parents[1]) as child:
        try:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield child
        finally:
            child.kill()


async def test_a_process_that_is_stopped_while_it_writes_fails_no_request_of_another(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for until its parent has killed it."""
    monkeypatch.setattr(ledger_module, "CLOSE_TIMEOUT_S", 0.02)
    monkeypatch.setattr(ledger_module, "STALL_S", 0.02)
    monkeypatch.setattr(ledger_module, "TURN_LOOK_S", 0.02)
    monkeypatch.setattr(ledger_module, "TURN_WRITE_S", 60.0)
    ledger = await open_ledger(sqlite_place)
    with stopped_writer(sqlite_place) as child:
        closing = asyncio.ensure_future(ledger.close(record_of("a")))
        presence = ledger.database.presence
        await until(lambda: (presence.waits_since or NEVER) < time.monotonic() - 0.1)
        assert ledger.healthy and not closing.done()
        child.kill()
        await closing
        assert presence.waits_since is None and presence.turn_at
        assert ledger._more_s()  # what it waited for is written now
    assert [("a", "ok", "")] == sqlite_place.rows(BY_ID)


async def test_it_is_not_waited_for_without_end(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ledger_module.TURN_S >= worker_handle.SILENCE_S + 3  # until it is killed
    monkeypatch.setattr(ledger_module, "CLOSE_TIMEOUT_S", 0.02)
    monkeypatch.setattr(ledger_module, "STALL_S", 0.02)
    monkeypatch.setattr(ledger_module, "TURN_S", 0.05)
    ledger = await open_ledger(sqlite_place)
    with stopped_writer(sqlite_place):
        with pytest.raises(GatewayError, match="ledger"):
            await ledger.close(record_of("a"))
        await until(lambda: not ledger.healthy)
        assert "the writer does not come forward" == ledger.reason
    await healed(ledger)
    assert [("a", "failed", "ledger_unavailable")] == sqlite_place.rows(BY_ID)


async def test_a_file_that_was_removed_is_made_anew(
    sqlite_place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(sqlite_place)
    await ledger.close(record_of("before"))
    for path in sqlite_place.base.glob("ledger.db*"):
        path.unlink()

    await ledger.close(record_of("after"))

    assert [("after", "ok", "")] == sqlite_place.rows(BY_ID)


async def test_a_folder_that_vanished_and_returned_heals(
    tmp_path: Path, open_ledger: OpenLedger
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    place = Place("sqlite:///disk/ledger.db", tmp_path)
    ledger = await open_ledger(place)
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(GatewayError):
        await ledger.close(record_of("a"))
    assert not ledger.healthy
    (tmp_path / "elsewhere").rename(folder)
    await healed(ledger)

    assert [("a", "failed", "ledger_unavailable")] == place.rows(BY_ID)


def poison_plain(database: Database) -> RowWrite:
    row = {column.name: "r" for column in response.columns}
    row |= {"turns": 1, "total_bytes": 0, "bytes": 0, "body": None}
    when = {"created_at": NOON, "expires_at": NOON}
    return RowWrite(database.plain_upsert(response), "poison", row | when)


def poison_null(database: Database) -> RowWrite:
    row = "a", None, moment(NOON)
    return RowWrite(database.upsert(account_state), "poison", row)


def poison_huge(database: Database) -> RowWrite:
    row = "r", moment(NOON), 10**40, "a", moment(NOON), None, 200, ""
    return RowWrite(database.upsert(attempt), "poison", row)


@pytest.mark.parametrize("make", [poison_plain, poison_null, poison_huge])
async def test_one_row_that_can_never_be_written_harms_no_other(
    place: Place, open_ledger: OpenLedger, make: Callable[[Database], RowWrite]
) -> None:
    ledger = await open_ledger(place)
    closings = [ledger.close(record_of()) for _ in range(5)]

    with capture_logs() as logs:
        *good, bad = await asyncio.gather(
            *closings, ledger.write(make(ledger.database)), return_exceptions=True
        )

    assert [None] * 5 == good
    assert isinstance(bad, GatewayError)
    assert ["ledger.rejected"] == [line["event"] for line in logs]
    assert ledger.healthy
    assert [(5,)] == place.rows("SELECT count(*) FROM request")


async def test_a_connection_that_is_lost_is_made_anew_unnoticed(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    await ledger.close(record_of("a"))
    await until(lambda: ledger._writer._purge_at > 0)  # it uses the connection, too
    driver: Any = ledger.database._driver
    driver.close()

    with capture_logs() as logs:
        await ledger.close(record_of("b"))

    assert [] == logs
    assert [("a", "ok", ""), ("b", "ok", "")] == place.rows(BY_ID)


async def test_a_slow_ledger_is_logged_with_figures(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "LAG_WARN_S", 0.0)
    ledger = await open_ledger(sqlite_place)

    with capture_logs() as logs:
        await ledger.close(record_of())
        await ledger.close(record_of())

    [line] = logs  # the second so soon after the first says nothing new
    assert ("ledger.lagging", "warning") == (line["event"], line["log_level"])
    assert {"waited_s", "written", "waiting"} <= set(line)


async def test_a_writer_that_hangs_is_noticed(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 30.0)
    monkeypatch.setattr(ledger_module, "STALL_S", 0.05)
    ledger = await open_ledger(sqlite_place)
    other = sqlite3.connect(sqlite_place.base / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    ledger.add(record_of())
    monkeypatch.setattr(ledger_module, "STALL_AGAIN_S", 60.0)
    time.sleep(0.1)
    assert ledger.healthy  # this process may have been stopped meanwhile, as it was
    monkeypatch.setattr(ledger_module, "STALL_AGAIN_S", 0.02)
    await until(lambda: not ledger.healthy)
    assert "the writer does not come forward" == ledger.reason
    other.execute("ROLLBACK")
    other.close()
    await healed(ledger)


async def test_refusals_do_not_pile_up_but_what_cost_money_is_kept(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_WAITING", 10)
    ledger = await open_ledger(sqlite_place)

    with capture_logs() as logs:
        with sabotage("PRAGMA query_only = ON"):
            for _ in range(30):
                ledger.add(record_of(attempts=[]))
            assert 10 == ledger.waiting
            for _ in range(30):
                ledger.add(record_of(attempts=[AttemptRecord(1, "a", NOON, NOON)]))
            await until(lambda: not ledger.healthy)
        await healed(ledger)

    assert [(10, 30)] == sqlite_place.rows(
        "SELECT sum(attempts = 0), sum(attempts = 1) FROM request"
    )
    assert [20] == [line["dropped"] for line in logs if "dropped" in line]


async def test_stopping_says_what_could_not_be_written(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await sqlite_place.open()

    with capture_logs() as logs:
        with sabotage("PRAGMA query_only = ON"):
            ledger.add(record_of())
            await until(lambda: not ledger.healthy)
            await ledger.stop()

    assert [("ledger.lost", 1)] == [
        (line["event"], line["entries"]) for line in logs if "entries" in line
    ]


async def test_a_restart_of_postgresql_under_load_loses_and_doubles_nothing(
    postgres: Postgres,
    postgres_place: Place,
    open_ledger: OpenLedger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "CLOSE_TIMEOUT_S", 20.0)
    ledger = await open_ledger(postgres_place)
    acknowledged: list[str] = []
    running = True

    async def load(name: str) -> None:
        number = 0
        while running:
            record = record_of(f"{name}-{number}", started_at=NOON + number)
            number += 1
            ledger.begin(record)
            await asyncio.sleep(0.001)
            await ledger.close(record)
            acknowledged.append(record.request_id)

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c", "d"):
            group.create_task(load(name))
        await until(lambda: len(acknowledged) > 40)
        await asyncio.to_thread(postgres.stop)
        await until(lambda: not ledger.healthy)
        await asyncio.to_thread(postgres.start)
        await healed_by_more(ledger, acknowledged)
        running = False
    await written(ledger)

    rows = postgres_place.rows("SELECT request_id, outcome FROM request")
    assert len(rows) == len(set(rows))
    assert {(name, "ok") for name in acknowledged} == set(rows)


async def healed_by_more(ledger: Ledger, acknowledged: list[str]) -> None:
    before = len(acknowledged)
    await until(lambda: ledger.healthy and len(acknowledged) > before + 40)


# --- at the start -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("sqlite:///none/such/ledger.db", "No such file", id="no-folder"),
        pytest.param("sqlite:///folder", "Is a directory", id="a-folder"),
        pytest.param("sqlite:///text.db", "file is not a database", id="no-database"),
        pytest.param("sqlite:///:memory:", "needs a file", id="memory"),
        pytest.param("mysql://root@localhost/x", "must begin with", id="other-kind"),
        pytest.param("ledger.db", "is not a database URL", id="no-url"),
        pytest.param(
            "postgresql://gateway:hidden@127.0.0.1:1/x", "refused", id="no-server"
        ),
    ],
)
async def test_a_ledger_that_cannot_be_used_is_reported_at_the_start(
    tmp_path: Path, url: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("to whom it may concern\n" * 100)

    with pytest.raises(LedgerError) as raised:
        await Place(url, tmp_path).open()

    assert said in str(raised.value)
    assert "hidden" not in str(raised.value)


async def test_a_read_only_ledger_is_reported_at_the_start(sqlite_place: Place) -> None:
    await (await sqlite_place.open()).stop()
    sqlite_place.execute("UPDATE request SET status = 1")

    with sabotage("PRAGMA query_only = ON"):
        with pytest.raises(LedgerError) as raised:
            await sqlite_place.open()

    assert READ_ONLY in str(raised.value)


async def test_a_newer_schema_is_left_alone(place: Place) -> None:
    place.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(LedgerError, match=r"\(9999\) is newer than this program"):
        await place.open()

    database = Database(place.url, place.base)
    with pytest.raises(LedgerError, match=r"\(9999\) is newer than this program"):
        with database.inspect():
            raise AssertionError("a newer ledger was read")
    database.dispose()
    assert [("9999",)] == place.rows("SELECT version_num FROM alembic_version")


async def test_the_file_is_for_its_owner_alone(sqlite_place: Place) -> None:
    ledger = await sqlite_place.open()
    await ledger.close(record_of())

    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in sqlite_place.base.glob("ledger.db*")
    }
    await ledger.stop()

    assert {0o600} == set(modes.values())
    assert "ledger.db" in modes


async def test_a_relative_path_starts_at_the_config_file(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    await (await sqlite_place.open()).stop()

    assert "ledger.db" in os.listdir(tmp_path) and not os.listdir(elsewhere)
