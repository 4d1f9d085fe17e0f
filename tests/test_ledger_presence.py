"""Rows that are open are closed once their process has ended, and never before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ledger_places import (  # noqa: F401
    OpenLedger,
    Place,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    sqlite_place_fixture,
)

CHILD = """
import asyncio, os, sys, time
from pathlib import Path
from gateway.config import schema as config
from gateway.ledger.ledger import Ledger
from gateway.record import AttemptRecord, Record

async def main(url, base):
    ledger = await Ledger.open(url, Path(base), config.LedgerSettings())
    now = time.time()
    for number in range(3):
        record = Record(f"open-{number}", now, time.monotonic(), user="alice")
        record.attempts.append(AttemptRecord(1, "openai-1", now))
        ledger.begin(record)
    while ledger.waiting:
        await asyncio.sleep(0.01)
    os.write(1, (ledger.node + "\\n").encode())
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""
STATES = "SELECT outcome, origin, error_code FROM request ORDER BY request_id"
OPEN = [("open", "", "")] * 3
CRASHED = [("failed", "gateway", "crashed")] * 3


@contextmanager
def other_process(place: Place) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process with three open rows, and the name of its node."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, place.url, str(place.base)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert child.stdout
    with child, child.stdout as out:
        try:
            yield child, out.readline().decode().strip()
        finally:
            child.kill()


async def test_the_rows_of_a_process_that_lives_stay_open(
    place: Place, open_ledger: OpenLedger
) -> None:
    with other_process(place) as (child, node):
        ours = await open_ledger(place)
        assert node and node != ours.node
        assert OPEN == place.rows(STATES)
        assert sorted((node, ours.node)) == await ours.alive()
        child.kill()
        child.wait()
    async with asyncio.timeout(10):
        while [ours.node] != await ours.alive():
            await asyncio.sleep(0.01)
    await ours.bury(node)
    assert CRASHED == place.rows(STATES)
    await ours.bury(node)  # twice is the same as once


async def test_the_next_start_closes_what_is_left_of_a_dead_one(
    place: Place, open_ledger: OpenLedger
) -> None:
    with other_process(place) as (child, node):
        child.kill()
        child.wait()
    async with asyncio.timeout(10):  # a server notices the end of a client soon
        while place.rows(STATES) != CRASHED:
            await (await open_ledger(place)).stop()
