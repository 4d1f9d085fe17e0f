"""kill -9 at any moment: what was acknowledged is there, once, and nothing is open."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ledger_places import (  # noqa: F401
    OpenLedger,
    Place,
    open_ledger_fixture,
    sqlite_place_fixture,
)

ROUNDS = 8
STREAMS = 20

CHILD = """
import asyncio, os, random, sys, time
from pathlib import Path
from gateway.config import schema as config
from gateway.ledger.ledger import Ledger
from gateway.record import AttemptRecord, Record

async def stream(ledger, name):
    number = 0
    while True:
        number += 1
        now = time.time()
        record = Record(f"{name}-{number}", now, time.monotonic(), user="alice")
        record.attempts.append(AttemptRecord(1, "openai-1", now))
        ledger.begin(record)
        await asyncio.sleep(random.uniform(0, 0.05))
        record.set_outcome("ok")
        await ledger.close(record)
        os.write(1, f"closed {record.request_id}\\n".encode())

async def main(url, base, run, streams):
    ledger = await Ledger.open(url, Path(base), config.LedgerSettings())
    now = time.time()
    endless = Record(f"{run}-endless", now, time.monotonic(), user="alice")
    endless.attempts.append(AttemptRecord(1, "openai-1", now))
    ledger.begin(endless)
    while ledger.waiting:
        await asyncio.sleep(0.01)
    await asyncio.gather(*(stream(ledger, f"{run}-{n}") for n in range(int(streams))))

asyncio.run(main(*sys.argv[1:]))
"""


def killed(place: Place, run: int, after: int) -> list[str]:
    """Run requests, kill after so many acknowledged ones; the acknowledged ids."""
    command = [sys.executable, "-c", CHILD, place.url, str(place.base), str(run)]
    child = subprocess.Popen(
        [*command, str(STREAMS)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert child.stdout
    with child, child.stdout as out:
        lines = [out.readline() for _ in range(after)]
        child.kill()
        lines += out.readlines()
    assert -9 == child.returncode
    acknowledged = [line.decode() for line in lines if line.startswith(b"closed ")]
    return [line.split()[1] for line in acknowledged if line.endswith("\n")]


@pytest.mark.timeout(120)
async def test_every_acknowledged_ending_survives_kill_9(
    sqlite_place: Place, open_ledger: OpenLedger
) -> None:
    chance = random.Random(11)
    acknowledged = [
        request_id
        for run in range(ROUNDS)
        for request_id in killed(sqlite_place, run, chance.randint(2, 60))
    ]

    await open_ledger(sqlite_place)

    rows = dict(sqlite_place.rows("SELECT request_id, outcome FROM request"))
    [(count,)] = sqlite_place.rows("SELECT count(*) FROM request")
    assert len(rows) == count
    assert len(acknowledged) > ROUNDS
    assert {"ok"} == {rows[request_id] for request_id in acknowledged}
    assert {"ok", "failed"} == set(rows.values())
    assert {"failed"} == {rows[f"{run}-endless"] for run in range(ROUNDS)}
    assert [("crashed",)] == sqlite_place.rows(
        "SELECT DISTINCT error_code FROM request WHERE outcome = 'failed'"
    )
