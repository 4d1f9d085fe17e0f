"""
The one writer of a ledger, in its own thread.

Rule 1: everything that has arrived goes into one transaction (group commit), so a
        hundred endings at once cost one flush to the disk.
Rule 2: an entry that somebody waits for is written at once; the others may linger a
        few milliseconds, and what is overtaken meanwhile is not written at all.
Rule 3: what cannot be written is kept and tried again; the retry is the probe that
        finds out that the trouble is over. An entry that the database would never
        take is rejected alone.

    queue ──▶ collect ──▶ commit ──▶ done ──▶ report to the event loop
                 ▲           │
                 └─ trouble ◀┘   wait, reconnect, try again
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from gateway.ledger.database import Database, reason
from gateway.ledger.statement import Statement

LINGER_S = 0.02
IDLE_S = 60.0  # between two looks for rows that are too old
# An event loop that computes gives the interpreter away for an instant at each turn,
# and whoever waits for it begins to wait anew: with Python's own 5 ms the writer of a
# saturated gateway stood still for seconds; with this, 99 of 100 endings wait less
# than 11 ms, and the loop loses 1 % (100 endings a second, measured 2026-11).
SWITCH_S = 0.0001
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
POISON = (DataError, IntegrityError, ArithmeticError, TypeError, ValueError)

Purge = Callable[[Connection], bool]
"""Remove a few rows that are too old; whether there may be more."""


class Write(NamedTuple):
    """One row for one statement; *key* says which row, so a later one overtakes."""

    statement: Statement
    key: Hashable
    values: dict[str, Any]


Grouped = dict[Statement, dict[Hashable, dict[str, Any]]]


@dataclass(slots=True, eq=False)
class Entry:
    """What is written together, and who waits for it."""

    writes: tuple[Write, ...]
    put_at: float = 0.0  # monotonic seconds
    waiter: asyncio.Future[None] | None = None


@dataclass(slots=True)
class Report:
    """What the writer tells the event loop."""

    done: list[Entry]
    rejected: list[tuple[Entry, str]]
    trouble: str = ""  # "" = the ledger works
    commit_s: float = 0.0


class Writer:
    """
    The thread and its queue.

    Args:
        report: called in the writer's thread after every try; must not block.
        purge: called when nothing else is to do.
    """

    def __init__(
        self, database: Database, purge: Purge, report: Callable[[Report], None]
    ) -> None:
        self._database = database
        self._purge = purge
        self._report = report
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._batch: list[Entry] = []
        self._stopping = False
        self._retry_at = 0.0
        self._retry_s = RETRY_FIRST_S
        self._purge_at = 0.0
        self._thread = threading.Thread(
            target=self._run, name="ledger-writer", daemon=True
        )

    def start(self) -> None:
        """Begin to write; from here on this process's threads take turns quickly."""
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Have *entry* written; called from the event loop."""
        self._queue.put(entry)

    def finish(self, timeout_s: float) -> int:
        """Write what is left, end the thread; how many entries could not be written."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            # Not before: a driver does not survive two threads on one connection.
            self._database.dispose()
        return len(self._batch) + self._queue.qsize()

    def _run(self) -> None:
        while not self._stopping:
            self._collect()
            if self._batch:
                self._flush()
            else:
                self._keep_tidy()

    def _collect(self) -> None:
        """Wait for something to write, and take all of it."""
        urgent = False
        while not urgent and not self._stopping:
            try:
                entry = self._queue.get(timeout=self._patience())
            except queue.Empty:
                break
            urgent = self._take(entry) and not self._retry_at
        while not self._queue.empty():
            self._take(self._queue.get())

    def _take(self, entry: Entry | None) -> bool:
        """Put *entry* to the batch; whether somebody waits for it."""
        if entry is None:
            self._stopping = True
            return True
        self._batch.append(entry)
        return entry.waiter is not None

    def _patience(self) -> float:
        """Seconds until something has to be done even if nothing arrives."""
        if self._retry_at:
            until = self._retry_at
        elif self._batch:
            until = self._batch[0].put_at + LINGER_S
        else:
            until = self._purge_at
        return max(0.0, until - time.monotonic())

    def _flush(self) -> None:
        started = time.monotonic()
        try:
            rejected = self._commit_batch()
        # Whatever a driver raises, the one writer must outlive it.
        except Exception as exc:
            self._retry_at = time.monotonic() + self._trouble(exc)
            return
        refused = {id(entry) for entry, _ in rejected}
        done = [entry for entry in self._batch if id(entry) not in refused]
        self._batch = []
        self._retry_at = 0.0
        self._retry_s = RETRY_FIRST_S
        self._report(Report(done, rejected, "", time.monotonic() - started))

    def _commit_batch(self) -> list[tuple[Entry, str]]:
        """Write the batch; the entries that the database will never take."""
        try:
            self._commit(self._batch)
            return []
        except Exception as exc:
            if not is_poison(exc):
                raise
        rejected = []
        for entry in self._batch:
            try:
                self._commit([entry])
            except Exception as exc:
                if not is_poison(exc):
                    raise
                rejected.append((entry, reason(exc)))
        return rejected

    def _commit(self, entries: list[Entry]) -> None:
        """Write *entries* in one transaction; a lost connection is made anew once."""
        grouped: Grouped = {}
        for entry in entries:
            for statement, key, values in entry.writes:
                grouped.setdefault(statement, {})[key] = values
        try:
            self._execute(grouped)
        except DBAPIError as exc:
            if not exc.connection_invalidated:
                raise
            self._database.reset()
            self._execute(grouped)

    def _execute(self, grouped: Grouped) -> None:
        with self._database.write() as connection:
            for statement, rows in grouped.items():
                statement.run(connection, rows.values())

    def _trouble(self, exc: Exception) -> float:
        """Tell of *exc*; seconds until the next try."""
        self._database.reset()
        wait_s = self._retry_s
        self._retry_s = min(wait_s * 2, RETRY_MAX_S)
        self._report(Report([], [], reason(exc)))
        return wait_s

    def _keep_tidy(self) -> None:
        """Purge, which also finds out in quiet hours whether the ledger works."""
        if time.monotonic() < self._purge_at:
            return
        try:
            with self._database.write() as connection:
                more = self._purge(connection)
        except Exception as exc:
            self._purge_at = time.monotonic() + self._trouble(exc)
            return
        self._purge_at = 0.0 if more else time.monotonic() + IDLE_S
        self._retry_s = RETRY_FIRST_S
        self._report(Report([], []))


def is_poison(exc: Exception) -> bool:
    """Whether it is the row's own fault, which no second try would mend."""
    if isinstance(exc, StatementError) and not isinstance(exc, DBAPIError):
        return True  # raised while the values were made ready
    return isinstance(exc, POISON)
