"""
The one writer of a ledger, in its own thread.

Rule 1: everything that has arrived goes into one transaction (group commit), so a
        hundred endings at once cost one flush to the disk.
Rule 2: an urgent entry is written at once, but the writer has an interval: at most one
        transaction each few milliseconds, fewer when many wait for each, so that they
        share it. The others may linger. A row that a later one replaces meanwhile is
        not written at all.
Rule 3: what cannot be written is kept and retried with backoff; the retry is the probe
        that finds out that the database works again. An entry that the database will
        never take is rejected alone.
Rule 4: the thread takes the interpreter from the event loop as rarely as it can: it
        is woken only for what it waits for, and it sleeps through its interval.
Rule 5: rows that are too old are removed a few at a time while the writer is idle; if
        it is not for a while, between two transactions.

    entries ──▶ collect ──▶ commit ──▶ done ──▶ report to the event loop
                   ▲           │
                   └─ failure ◀┘   backoff, reconnect, retry
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection

from gateway.ledger.database import Database, driver_of, reason
from gateway.ledger.statement import CoreStatement, Upsert
from gateway.wake_event import WakeEvent

LONE_EVERY_S = 0.001  # behind a transaction for which one waited: nothing was shared
COMMIT_EVERY_S = 0.004
BUSY_EVERY_S = 0.01  # behind a transaction for which MANY waited
MANY = 4
LINGER_S = 0.02
PURGE_EVERY_S = 60.0  # between two searches for rows that are too old
PURGE_WAIT_S = 5.0  # how long such a search waits until the writer is idle
PURGE_SHARE = 0.1  # of a busy writer's time, at most
# A busy event loop releases the interpreter for an instant in each iteration, and a
# thread that waits for it starts to wait anew: with Python's own 5 ms the writer of a
# saturated gateway waited for seconds; with this, 99 of 100 endings wait less than
# 11 ms, and the loop loses 1 % (100 endings a second, measured 2026-11).
SWITCH_S = 0.0001
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0

Purge = Callable[[Connection], bool]
"""Remove a few rows that are too old; whether there may be more."""


class RowWrite(NamedTuple):
    """One row for one statement; a later one with the same *key* replaces it."""

    statement: Upsert | CoreStatement
    key: Hashable
    values: Any


Grouped = dict[Upsert | CoreStatement, dict[Hashable, Any]]


@dataclass(slots=True, eq=False)
class LedgerEntry:
    """Rows that are written together, and the future that waits for them."""

    writes: tuple[RowWrite, ...]
    urgent: bool = False  # a request waits
    put_at: float = 0.0  # monotonic seconds
    waiter: asyncio.Future[None] | None = None


@dataclass(slots=True)
class WriteReport:
    """The result of one try, for the event loop."""

    done: list[LedgerEntry]
    rejected: list[tuple[LedgerEntry, str]]
    failure: str = ""  # "" = the ledger works


def _pause_s(waited: int) -> float:
    """The time between the begin of a transaction for which *waited* and the next."""
    if waited == 1:
        return LONE_EVERY_S
    return COMMIT_EVERY_S if waited < MANY else BUSY_EVERY_S


class WakeOn(IntEnum):
    """Which entries wake the thread."""

    NONE = 0
    URGENT = 1
    ANY = 2


class LedgerWriter:
    """
    The thread and its queue.

    Args:
        report: called in the writer's thread after every try; must not block.
        purge: called while there is nothing to write, and now and then between writes.
    """

    def __init__(
        self, database: Database, purge: Purge, report: Callable[[WriteReport], None]
    ) -> None:
        self._database = database
        self._purge = purge
        self._report = report
        self._incoming: deque[LedgerEntry] = deque()
        self._wake = WakeEvent()
        self._wake_on = WakeOn.NONE
        self._batch: list[LedgerEntry] = []
        self._urgent = 0  # how many in the batch are
        self._stopping = False
        self._next_at = 0.0  # the earliest moment for the next transaction
        self._retry_at = 0.0
        self._retry_s = RETRY_FIRST_S
        self._purge_at = 0.0
        self._purge_late_at = time.monotonic() + PURGE_WAIT_S
        self._thread = threading.Thread(
            target=self._run, name="ledger-writer", daemon=True
        )

    def start(self) -> None:
        """Begin to write; from here on this process switches threads quickly."""
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        self._thread.start()

    def put(self, *entries: LedgerEntry) -> None:
        """
        Queue *entries*, of which only the last may be urgent; called on the event loop.
        """
        # First the entries, then the check: the thread does it the other way round, so
        # one of the two always sees the other.
        self._incoming.extend(entries)
        wake_on = self._wake_on
        if wake_on and (entries[-1].urgent or wake_on is WakeOn.ANY):
            self._wake_on = WakeOn.NONE
            self._wake.set()

    def finish(self, timeout_s: float) -> int:
        """Write what is left, end the thread; returns how many entries are lost."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            # Not before: a driver does not allow two threads on one connection.
            self._database.dispose()
        return len(self._batch) + len(self._incoming)

    def _run(self) -> None:
        while not self._stopping:
            self._collect()
            if self._batch:
                self._flush()
                if not self._batch and time.monotonic() >= self._purge_late_at:
                    self._purge_some()
            elif time.monotonic() >= self._purge_at:
                self._purge_some()
        self._take()
        if self._batch:
            self._flush()

    def _collect(self) -> None:
        """Wait until something has to be done; take all that has arrived."""
        while not self._stopping:
            self._take()
            until, wake_on = self._next_action()
            wait_s = until - time.monotonic()
            if wait_s <= 0:
                return
            self._sleep(wait_s, wake_on)

    def _take(self) -> None:
        incoming, batch = self._incoming, self._batch
        while incoming:
            entry = incoming.popleft()
            batch.append(entry)
            self._urgent += entry.urgent

    def _next_action(self) -> tuple[float, WakeOn]:
        """When the next action is due, and which entries make it due at once."""
        if self._retry_at:
            return self._retry_at, WakeOn.NONE
        if self._urgent:
            return self._next_at, WakeOn.NONE
        if self._batch:
            return self._batch[0].put_at + LINGER_S, WakeOn.URGENT
        return self._purge_at, WakeOn.ANY

    def _sleep(self, seconds: float, wake_on: WakeOn) -> None:
        self._wake_on = wake_on
        if not (wake_on and self._incoming):
            self._wake.wait(seconds)
        self._wake_on = WakeOn.NONE

    def _flush(self) -> None:
        began_at = time.monotonic()
        try:
            rejected = self._commit_batch()
        # The one writer must survive every exception of a driver.
        except Exception as exc:
            self._retry_at = time.monotonic() + self._fail(exc)
            return
        done = self._batch
        if rejected:
            refused = {id(entry) for entry, _ in rejected}
            done = [entry for entry in done if id(entry) not in refused]
        self._batch = []
        self._next_at = began_at + _pause_s(self._urgent)
        self._urgent = 0
        self._retry_at = 0.0
        self._retry_s = RETRY_FIRST_S
        self._report(WriteReport(done, rejected))

    def _commit_batch(self) -> list[tuple[LedgerEntry, str]]:
        """Write the batch; returns the entries that the database will never take."""
        try:
            self._commit(self._batch)
            return []
        except Exception as exc:
            if not self._database.is_poison(exc):
                raise
        rejected = []
        for entry in self._batch:
            try:
                self._commit([entry])
            except Exception as exc:
                if not self._database.is_poison(exc):
                    raise
                rejected.append((entry, reason(exc)))
        return rejected

    def _commit(self, entries: list[LedgerEntry]) -> None:
        """Write *entries* in one transaction; a lost connection is replaced once."""
        grouped: Grouped = {}
        for entry in entries:
            for statement, key, values in entry.writes:
                if statement in grouped:
                    grouped[statement][key] = values
                else:
                    grouped[statement] = {key: values}
        try:
            self._execute(grouped)
        except Exception as exc:
            if not self._database.is_lost(exc):
                raise
            self._database.reset()
            self._execute(grouped)

    def _execute(self, grouped: Grouped) -> None:
        if any(isinstance(statement, CoreStatement) for statement in grouped):
            with self._database.write() as connection:
                driver = driver_of(connection)
                for statement, rows in grouped.items():
                    if isinstance(statement, CoreStatement):
                        statement.run(connection, rows.values())
                        continue
                    for text, values in statement.calls(rows.values()):
                        driver.execute(text, values)
            return
        self._database.flush(
            [
                call
                for statement, rows in grouped.items()
                for call in statement.calls(rows.values())  # type: ignore[union-attr]
            ]
        )

    def _fail(self, exc: Exception) -> float:
        """Report *exc*; returns the seconds until the next try."""
        self._database.reset()
        wait_s = self._retry_s
        self._retry_s = min(wait_s * 2, RETRY_MAX_S)
        self._report(WriteReport([], [], reason(exc)))
        return wait_s

    def _purge_some(self) -> None:
        """
        Purge a little, which also finds out in idle hours whether the ledger works.
        The next time is at once where more is left, but for the pauses that a busy
        writer needs.
        """
        began_at = time.monotonic()
        try:
            with self._database.write() as connection:
                more = self._purge(connection)
        except Exception as exc:
            self._purge_at = time.monotonic() + self._fail(exc)
            self._purge_late_at = self._purge_at + PURGE_WAIT_S
            return
        now = time.monotonic()
        self._purge_at = 0.0 if more else now + PURGE_EVERY_S
        pause_s = (now - began_at) * (1 / PURGE_SHARE - 1)
        self._purge_late_at = now + (pause_s if more else PURGE_EVERY_S + PURGE_WAIT_S)
        self._retry_s = RETRY_FIRST_S
        self._report(WriteReport([], []))
