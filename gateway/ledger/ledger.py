"""
The ledger as the daemon uses it: open rows, closed rows, and its health.

Rule 1: ``close`` returns when the row is durable, so a successful ending may follow
        it; no other write here is waited for. A request that ends soon after it began
        is written once, as it ended.
Rule 2: what was sent upstream may have cost money, so its row is never dropped. A
        refusal's row is, while the ledger does not work and too many wait.
Rule 3: one state says whether requests may be accepted: ``healthy``, with a ``reason``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from gateway.config import schema as config
from gateway.errors import GatewayError
from gateway.ledger.crashed import close_crashed, close_rows_of
from gateway.ledger.database import Database, LedgerError, reason
from gateway.ledger.open_rows import JOIN_AFTER_S, OpenRowBuffer
from gateway.ledger.retention import Retention
from gateway.ledger.rows import RequestRows, rows_of
from gateway.ledger.timeout_queue import TimeoutQueue, Waiter
from gateway.ledger.writer import LedgerEntry, LedgerWriter, RowWrite, WriteReport
from gateway.record import Record
from gateway.telemetry.structlog_alone import structlog

log = structlog.get_logger()

CLOSE_TIMEOUT_S = 5.0  # of a terminal: a database may restart meanwhile
STALL_S = 5.0  # a writer that reports nothing for so long has failed
STALL_AGAIN_S = 1.0  # until it is believed: this process may have been stopped itself
# For the turn of another process, which may be stopped in the middle of its own. Its
# parent kills it after 10 s of silence; the system gives its lock back then.
TURN_S = 15.0
TURN_LOOK_S = 0.5
TURN_WRITE_S = 5.0  # behind it, for the write itself, as long as for any other
LAG_WARN_S = 1.0
LAG_LOG_EVERY_S = 10.0
MAX_WAITING = 10_000  # rows of refusals kept while the ledger does not work
STOP_TIMEOUT_S = 20.0  # longer than TURN_S

T = TypeVar("T")


class Ledger:
    """
    One record a request, durable. Its many methods are what the parts of the daemon
    ask for: rows of requests, rows of other tables, changes, questions.

    Attributes:
        database: where its rows are; it compiles statements for them.
        rules: how long which rows are kept.
        node: the name of this process, in the rows of its requests.
        observe: called with the seconds that every ``close`` waited; for the metrics.
    """

    def __init__(self, database: Database, rules: config.LedgerSettings) -> None:
        self.observe: Callable[[float], None] = lambda seconds: None
        self.rules = rules
        self.database = database
        self.node = database.presence.node
        self._loop = asyncio.get_running_loop()
        self._open_rows = OpenRowBuffer(self._put_open)
        self._timeouts = TimeoutQueue(self._timeout_error, self._more_s)
        self._retention = Retention(rules)
        self._writer = LedgerWriter(
            database, self._retention.purge, self._on_report_in_thread
        )
        self._waiting = 0
        self._dropped = 0
        self._failure = ""
        self._put_at = 0.0  # the last entry
        self._reported_at = time.monotonic()
        self._stall_seen_at: float | None = None
        self._lag_logged_at = 0.0

    @classmethod
    async def open(cls, url: str, base: Path, rules: config.LedgerSettings) -> Ledger:
        """
        Open the ledger at *url* (relative files: from the folder *base*), bring its
        schema up to date, and close what processes left open that have ended.

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
        """Apply changed retention."""
        self.rules = rules
        self._retention.replace(rules)

    @property
    def healthy(self) -> bool:
        """Whether new requests can be recorded."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it is not healthy; for the log and the operator."""
        if self._failure:
            return self._failure
        now = time.monotonic()
        if not self._waiting or now - self._reported_at <= STALL_S or self._more_s():
            self._stall_seen_at = None
        elif self._stall_seen_at is None:
            self._stall_seen_at = now
        elif now - self._stall_seen_at >= STALL_AGAIN_S:
            return "the writer does not come forward"
        return ""

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return self._waiting + len(self._open_rows.records)

    def begin(self, record: Record) -> None:
        """
        Write *record* ahead as ``open``: it is being sent upstream. At once if the
        ledger is idle, else within some 0.08 seconds, and not at all if it ends before.
        """
        now, open_rows = time.monotonic(), self._open_rows
        if now - self._put_at > JOIN_AFTER_S and not open_rows.records:
            self._loop.call_soon(self._put_begun)  # behind the sending itself
        open_rows.begin(record, now)

    async def close(self, record: Record) -> None:
        """
        Write *record* as it ended; afterwards it is durable. Doing so again with
        later facts is no second request.

        Raises:
            GatewayError: "ledger_unavailable" when that could not be had in time;
                the row is then kept as that failure, and written when it can be.
        """
        self._open_rows.drop(record)
        rows = rows_of(record, node=self.node)
        try:
            await self._written(self._entry(rows))
        except GatewayError:
            self._put(self._entry(rows.as_unrecorded()))
            raise

    def add(self, record: Record) -> None:
        """Write *record* as it ended; no caller waits for it."""
        self._open_rows.drop(record)
        rows = rows_of(record, node=self.node)
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
        """Write rows of other tables; no caller waits for them."""
        self._put(LedgerEntry(tuple(writes)))

    async def read(self, question: Callable[[Connection], T]) -> T:
        """The answer to *question*, asked in a thread beside the writer."""

        def ask() -> T:
            with self.database.read() as connection:
                return question(connection)

        return await asyncio.to_thread(ask)

    async def alive(self) -> list[str]:
        """
        The nodes of all processes that use the ledger now, in order; none if it cannot
        say.
        """
        try:
            return await self.read(self.database.presence.alive)
        except (SQLAlchemyError, OSError):
            return []

    async def change(self, change: Callable[[Connection], T]) -> T:
        """
        What *change* gives, in a transaction beside the writer's; then it is durable.

        Raises:
            GatewayError: "ledger_unavailable".
        """

        def apply() -> T:
            with self.database.change() as connection:
                return change(connection)

        try:
            return await asyncio.to_thread(apply)
        except (LedgerError, SQLAlchemyError) as exc:
            raise GatewayError("ledger_unavailable", detail=reason(exc)) from None

    async def bury(self, node: str) -> None:
        """
        Close what *node* has left open, a process that has ended.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        closed = await self.change(lambda connection: close_rows_of(connection, node))
        if closed:
            log.warning("ledger.recovered", closed_as_crashed=closed)

    async def bury_all(self) -> None:
        """
        Close what every process has left open that has ended.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        presence = self.database.presence
        closed = await self.change(
            lambda connection: close_crashed(connection, presence)
        )
        if closed:
            log.warning("ledger.recovered", closed_as_crashed=closed)

    async def stop(self) -> None:
        """Write what is left, and close the database."""
        if left := self._open_rows.finish():
            self._put_open(left)
        lost = await asyncio.to_thread(self._writer.finish, STOP_TIMEOUT_S)
        if lost:
            log.error("ledger.lost", entries=lost, detail=self._failure)

    def _put_begun(self) -> None:
        """Write ahead now what has begun and not ended."""
        if begun := self._open_rows.take(time.monotonic(), 0.0):
            self._put_open(begun)

    def _put_open(self, records: list[Record]) -> None:
        """Write *records* ahead, now."""
        entries = self._open(records)
        entries[-1].urgent = True
        self._put(*entries)

    def _open(self, records: list[Record]) -> list[LedgerEntry]:
        return [self._entry(rows_of(one, True, self.node)) for one in records]

    def _entry(self, rows: RequestRows) -> LedgerEntry:
        return LedgerEntry((RowWrite(self.database.requests, rows.request[:2], rows),))

    def _put(self, *entries: LedgerEntry) -> None:
        """Queue *entries*; if the last is urgent, open rows that are due join it."""
        now = self._put_at = time.monotonic()
        if self._open_rows.records and entries[-1].urgent:
            entries = *self._open(self._open_rows.take(now)), *entries
        for entry in entries:
            entry.put_at = now
        if not self._waiting:
            self._reported_at = now
        self._waiting += len(entries)
        self._writer.put(*entries)

    def _written(self, entry: LedgerEntry) -> Waiter:
        """Put *entry*; the future is done when it is durable."""
        entry.urgent = True
        entry.waiter = waiter = self._timeouts.future(CLOSE_TIMEOUT_S)
        self._put(entry)
        return waiter

    def _more_s(self) -> float:
        """How much longer a write may take because another process has the turn."""
        presence = self.database.presence
        since = presence.waits_since
        until = presence.turn_at + TURN_WRITE_S if since is None else since + TURN_S
        return min(TURN_LOOK_S, max(0.0, until - time.monotonic()))

    def _timeout_error(self) -> GatewayError:
        detail = self.reason or "no commit in time"
        return GatewayError("ledger_unavailable", detail=detail)

    def _on_report_in_thread(self, report: WriteReport) -> None:
        try:
            self._loop.call_soon_threadsafe(self._on_report, report)
        except RuntimeError:
            pass  # the loop has ended

    def _on_report(self, report: WriteReport) -> None:
        self._reported_at = time.monotonic()
        self._waiting -= len(report.done) + len(report.rejected)
        for entry in report.done:
            waiter = entry.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
                self.observe(self._reported_at - entry.put_at)
        for entry, detail in report.rejected:
            log.error("ledger.rejected", detail=detail)
            if entry.waiter is not None and not entry.waiter.done():
                failure = GatewayError("ledger_unavailable", detail=detail)
                entry.waiter.set_exception(failure)
        self._timeouts.discard_done()
        self._note_health(report.failure)
        if report.done:
            self._note_lag(self._reported_at - report.done[0].put_at, len(report.done))

    def _note_health(self, failure: str) -> None:
        if failure and not self._failure:
            log.error("ledger.failed", detail=failure, waiting=self._waiting)
        if self._failure and not failure:
            log.info("ledger.healed", dropped=self._dropped)
            self._dropped = 0
        self._failure = failure

    def _note_lag(self, waited_s: float, entries: int) -> None:
        recently = self._reported_at - self._lag_logged_at < LAG_LOG_EVERY_S
        if waited_s > LAG_WARN_S and not recently:
            self._lag_logged_at = self._reported_at
            log.warning(
                "ledger.lagging",
                waited_s=round(waited_s, 3),
                written=entries,
                waiting=self._waiting,
            )


def _make_ready(database: Database) -> int:
    """Bring the schema up to date, close what a crash left open; returns how many."""
    try:
        database.prepare()
        with database.write() as connection:
            return close_crashed(connection, database.presence)
    except (SQLAlchemyError, OSError) as exc:
        database.dispose()
        raise LedgerError(f"ledger {database}: {reason(exc)}") from exc
    except LedgerError:
        database.dispose()
        raise
