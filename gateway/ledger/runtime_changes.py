"""
What is changed while the gateway runs, seen by every process that has the same ledger.

Rule 1: each kind of change has a version in the database, which a change raises in its
        own transaction. Every process compares the versions twice a second; only a new
        one makes it read more.
Rule 2: the process that makes a change has it before the change is answered.
Rule 3: while the database is away, what is known stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from gateway.ledger.database import reason
from gateway.ledger.ledger import Ledger
from gateway.ledger.statement import insert_into
from gateway.ledger.tables import runtime_version
from gateway.telemetry.structlog_alone import structlog

log = structlog.get_logger()

LOOK_EVERY_S = 0.5

Refresh = Callable[[], Awaitable[object]]

T = TypeVar("T")


class RuntimeChanges:
    """
    Args:
        ledger: in whose database the versions are.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._refresh: dict[str, Refresh] = {}
        self._seen: dict[str, int] = {}
        self._looking = asyncio.Lock()
        self._stale = False
        self._changing: set[asyncio.Task[Any]] = set()

    def watch(self, kind: str, refresh: Refresh) -> None:
        """Await *refresh* at the next look, and when *kind* has another version."""
        self._refresh[kind] = refresh

    async def change(
        self,
        kind: str,
        change: Callable[[Connection], T],
        done: Callable[[T], object] = lambda result: None,
    ) -> T:
        """
        What *change* gives, in a transaction; afterwards it is durable, in force in
        this process, and soon in the others. A caller that is cancelled does not stop
        it half-way.

        Args:
            done: called with the result once it is durable, whatever the caller does.

        Raises:
            GatewayError: "ledger_unavailable"; nothing was changed.
        """
        changing = asyncio.create_task(
            self._change(kind, change, done), name="runtime-change"
        )
        self._changing.add(changing)
        changing.add_done_callback(self._over)
        return await asyncio.shield(changing)

    async def stop(self) -> None:
        """Return when every change has been made."""
        await asyncio.gather(*self._changing, return_exceptions=True)

    def _over(self, changing: asyncio.Task[Any]) -> None:
        self._changing.discard(changing)
        if not changing.cancelled():
            changing.exception()  # its caller may have left

    async def _change(
        self,
        kind: str,
        change: Callable[[Connection], T],
        done: Callable[[T], object],
    ) -> T:
        def apply(connection: Connection) -> T:
            raise_version(connection, kind)  # first: its lock puts changes in order
            return change(connection)

        result = await self._ledger.change(apply)
        done(result)
        with suppress(Exception):  # ``follow`` tries again, and logs it
            await self.look()
        return result

    async def look(self) -> None:
        """
        Refresh what has another version than it had.

        Raises:
            Exception: of the database; what is known stays.
        """
        async with self._looking:
            versions = await self._ledger.read(_versions)
            for kind, refresh in self._refresh.items():
                version = versions.get(kind, 0)
                if version != self._seen.get(kind):
                    await refresh()
                    self._seen[kind] = version

    async def follow(self) -> None:
        """Look now and then, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception as exc:  # whatever a driver raises
                if not self._stale:
                    log.warning("changes.unread", detail=reason(exc))
                self._stale = True
                continue
            if self._stale:
                log.info("changes.read")
            self._stale = False


def _versions(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(runtime_version.c.kind, runtime_version.c.version))
    return {kind: version for kind, version in rows}


def raise_version(connection: Connection, kind: str) -> None:
    """Let every process notice that *kind* is changed by this transaction."""
    insert = insert_into(runtime_version, connection.dialect)
    insert = insert.values(kind=kind, version=1)
    raised = {"version": runtime_version.c.version + 1}
    connection.execute(
        insert.on_conflict_do_update(index_elements=["kind"], set_=raised)
    )
