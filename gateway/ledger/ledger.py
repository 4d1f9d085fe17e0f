"""
The ledger as the daemon sees it: rows ahead, closed rows, and whether it works.

Rule 1: ``close`` returns when the row is durable, so a successful ending may follow
        it; nothing else here is waited for. What ends soon after it began is written
        once, as it ended.
Rule 2: what was sent upstream may have cost money, so its row is never dropped; a
        refusal's row is, while the ledger does not work and too many wait.
Rule 3: one state says whether requests may be taken: ``healthy``, with a ``reason``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import Connection, update
from sqlalchemy.exc import SQLAlchemyError

from gateway.config import schema as config
from gateway.errors import GatewayError
from gateway.ledger.database import Database, LedgerError, reason
from gateway.ledger.open_rows import RIDE_AFTER_S, OpenRowBuffer
from gateway.ledger.retention import Retention
from gateway.ledger.rows import RequestRows, rows_of
from gateway.ledger.tables import attempt, request
from gateway.ledger.timeout_queue import TimeoutQueue, Waiter
from gateway.ledger.writer import LedgerEntry, LedgerWriter, RowWrite, WriteReport
from gateway.record import Record

log = structlog.get_logger()

CLOSE_WAIT_S = 5.0  # longest wait of a terminal: a database may restart meanwhile
STALL_S = 5.0  # a writer that shows no sign for so long is trouble
LAG_WARN_S = 1.0
LAG_LOG_EVERY_S = 10.0
MAX_WAITING = 10_000  # rows of refusals kept while the ledger does not work
STOP_WAIT_S = 10.0

T = TypeVar("T")


class Ledger:
    """
    One record a request, durable.

    Attributes:
        rules: how long what is kept.
        observe: called with the seconds that every closing waited; for the metrics.
    """

    def __init__(self, database: Database, rules: config.LedgerSettings) -> None:
        self.observe: Callable[[float], None] = lambda seconds: None
        self.rules = rules
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._ahead = OpenRowBuffer(self._put_open)
        self._waits = TimeoutQueue(self._overdue)
        self._retention = Retention(rules)
        self._writer = LedgerWriter(database, self._retention.purge, self._from_thread)
        self._waiting = 0
        self._dropped = 0
        self._trouble = ""
        self._put_at = 0.0  # the last entry
        self._heard_at = time.monotonic()
        self._lag_logged_at = 0.0

    @classmethod
    async def open(cls, url: str, base: Path, rules: config.LedgerSettings) -> Ledger:
        """
        Open the ledger at *url* (relative files: from the folder *base*), bring its
        schema up to date, and close what a crash left open.

        Raises:
            LedgerError: it cannot be used; the text is for the operator.
        """
        database = Database(url, base)
        crashed = await asyncio.to_thread(_make_ready, database)
        ledger = cls(database, rules)
        ledger._writer.start()
        if crashed:
            log.warning("ledger.recovered", closed_as_crashed=crashed)
        return ledger

    def replace(self, rules: config.LedgerSettings) -> None:
        """Take up changed times of retention."""
        self.rules = rules
        self._retention.replace(rules)

    @property
    def healthy(self) -> bool:
        """Whether new requests can be recorded."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it is not healthy; for the log and the operator."""
        if self._trouble:
            return self._trouble
        if self._waiting and time.monotonic() - self._heard_at > STALL_S:
            return "the writer does not come forward"
        return ""

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return self._waiting + len(self._ahead.begun)

    def begin(self, record: Record) -> None:
        """
        Have *record* written ahead as ``open``: it is being sent upstream. At once in a
        quiet ledger, else within some 0.08 seconds, and not at all if it ends before.
        """
        quiet = time.monotonic() - self._put_at > RIDE_AFTER_S
        if quiet and not self._ahead.begun:
            self._put_open([record])
        else:
            self._ahead.begin(record)

    async def close(self, record: Record) -> None:
        """
        Write *record* as it ended; afterwards it is durable. Doing so again with
        later facts is no second request.

        Raises:
            GatewayError: "ledger_unavailable" when that could not be had in time;
                the row is then kept as that failure, and written when it can be.
        """
        self._ahead.drop(record)
        rows = rows_of(record)
        try:
            await self._written(self._entry(rows))
        except GatewayError:
            self._put(self._entry(rows.as_undone()))
            raise

    def add(self, record: Record) -> None:
        """Write *record* as it ended, with nobody waiting for it."""
        self._ahead.drop(record)
        rows = rows_of(record)
        if not rows.sent and self._waiting >= MAX_WAITING:
            self._dropped += 1
            return
        self._put(self._entry(rows))

    async def write(self, *writes: RowWrite) -> None:
        """
        Write rows of other tables, durably.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        await self._written(LedgerEntry(writes))

    def write_soon(self, writes: Iterable[RowWrite]) -> None:
        """Write rows of other tables, with nobody waiting for them."""
        self._put(LedgerEntry(tuple(writes)))

    async def read(self, question: Callable[[Connection], T]) -> T:
        """The answer to *question*, asked in a thread beside the writer."""

        def ask() -> T:
            with self._database.read() as connection:
                return question(connection)

        return await asyncio.to_thread(ask)

    @property
    def database(self) -> Database:
        """Where it is; it compiles statements."""
        return self._database

    async def stop(self) -> None:
        """Write what is left, and close the database."""
        if left := self._ahead.finish():
            self._put_open(left)
        lost = await asyncio.to_thread(self._writer.finish, STOP_WAIT_S)
        if lost:
            log.error("ledger.lost", entries=lost, detail=self._trouble)

    def _put_open(self, records: list[Record]) -> None:
        """Write *records* ahead, now."""
        entries = self._open(records)
        entries[-1].urgent = True
        self._put(*entries)

    def _open(self, records: list[Record]) -> list[LedgerEntry]:
        return [self._entry(rows_of(one, is_open=True)) for one in records]

    def _entry(self, rows: RequestRows) -> LedgerEntry:
        return LedgerEntry((RowWrite(self._database.requests, rows.request[:2], rows),))

    def _put(self, *entries: LedgerEntry) -> None:
        """Have *entries* written; if the last is urgent, what is due goes along."""
        now = self._put_at = time.monotonic()
        if self._ahead.begun and entries[-1].urgent:
            entries = *self._open(self._ahead.take(now)), *entries
        for entry in entries:
            entry.put_at = now
        if not self._waiting:
            self._heard_at = now
        self._waiting += len(entries)
        self._writer.put(*entries)

    def _written(self, entry: LedgerEntry) -> Waiter:
        """Put *entry*; what is awaited is done when it is durable."""
        entry.urgent = True
        entry.waiter = waiter = self._waits.make(CLOSE_WAIT_S)
        self._put(entry)
        return waiter

    def _overdue(self) -> GatewayError:
        detail = self.reason or "no commit in time"
        return GatewayError("ledger_unavailable", detail=detail)

    def _from_thread(self, report: WriteReport) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody is left to hear
            self._loop.call_soon_threadsafe(self._heard, report)

    def _heard(self, report: WriteReport) -> None:
        self._heard_at = time.monotonic()
        self._waiting -= len(report.done) + len(report.rejected)
        for entry in report.done:
            waiter = entry.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
                self.observe(self._heard_at - entry.put_at)
        for entry, detail in report.rejected:
            log.error("ledger.rejected", detail=detail)
            if entry.waiter is not None and not entry.waiter.done():
                failure = GatewayError("ledger_unavailable", detail=detail)
                entry.waiter.set_exception(failure)
        self._waits.forget_done()
        self._note_health(report.trouble)
        if report.done:
            self._note_lag(self._heard_at - report.done[0].put_at, len(report.done))

    def _note_health(self, trouble: str) -> None:
        if trouble and not self._trouble:
            log.error("ledger.failed", detail=trouble, waiting=self._waiting)
        if self._trouble and not trouble:
            log.info("ledger.healed", dropped=self._dropped)
            self._dropped = 0
        self._trouble = trouble

    def _note_lag(self, waited_s: float, entries: int) -> None:
        recently = self._heard_at - self._lag_logged_at < LAG_LOG_EVERY_S
        if waited_s > LAG_WARN_S and not recently:
            self._lag_logged_at = self._heard_at
            log.warning(
                "ledger.lagging",
                waited_s=round(waited_s, 3),
                written=entries,
                waiting=self._waiting,
            )


def _make_ready(database: Database) -> int:
    """Bring the schema up to date; how many requests a crash had left open."""
    try:
        database.prepare()
        return _close_crashed(database)
    except SQLAlchemyError as exc:
        database.dispose()
        raise LedgerError(f"ledger {database}: {reason(exc)}") from exc
    except LedgerError:
        database.dispose()
        raise


def _close_crashed(database: Database) -> int:
    """Close what the last process left open; how many requests that were."""
    is_open = request.c.outcome == "open"
    with database.write() as connection:
        connection.execute(
            update(attempt)
            .where(attempt.c.ended_at.is_(None), attempt.c.error_code == "")
            .where(attempt.c.request_id == request.c.request_id)
            .where(attempt.c.request_started_at == request.c.started_at)
            .where(is_open)
            .values(error_code="crashed")
        )
        closed = connection.execute(
            update(request)
            .where(is_open)
            .values(outcome="failed", origin="gateway", error_code="crashed")
        )
    return closed.rowcount
