"""One run: the crowd asks, the faults come, the judge reads what was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos.crowd import Crowd
from tests.chaos.faults import play_fault
from tests.chaos.journal import Journal
from tests.chaos.judge import ledger_rows
from tests.chaos.schedule import Fault
from tests.chaos.stage import CLIENTS, PREFIX, Stage, stage
from tests.kit.nodes import keys_left

EMPTY_S = 10.0  # for the last slots of the run to be given back


async def run(
    folder: Path,
    faults: Sequence[Fault],
    *,
    seconds: float,
    seed: int,
    nodes: int = 4,
    workers: int = 1,
    say: Callable[[str], object] = lambda line: None,
) -> Journal:
    """What was seen in a run of *seconds* with *faults*."""
    journal = Journal(processes=nodes * workers)
    parts = {"nodes": nodes, "workers": workers, "seed": seed}
    async with stage(folder, journal, **parts) as made:
        urls = [daemon.base_url for daemon in made.daemons]
        crowd = Crowd(urls, journal, CLIENTS, seed)
        journal.begin = time.monotonic()
        asking = asyncio.create_task(crowd.run())
        looking = asyncio.create_task(made.look())
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(_later(made, fault, journal, say))
            group.create_task(asyncio.sleep(seconds))
        journal.end = time.monotonic()
        crowd.stop()
        await asking
        looking.cancel()
        journal.left_behind = await _left_behind(made)
    await _collect(made, journal)
    return journal


async def _later(
    made: Stage, fault: Fault, journal: Journal, say: Callable[[str], object]
) -> None:
    await asyncio.sleep(fault.at_s)
    say(fault.shown)
    journal.windows.append(await play_fault(made, fault))


async def _left_behind(made: Stage) -> list[str]:
    """What the engine still holds of requests, although none runs."""
    until = time.monotonic() + EMPTY_S
    while left := await keys_left(made.engine.url, PREFIX):
        if time.monotonic() > until:
            return [f"in the engine: {', '.join(sorted(left))}"]
        await asyncio.sleep(0.1)
    return []


async def _collect(made: Stage, journal: Journal) -> None:
    """The ledger and the logs, once every process has ended."""
    for daemon in [*made.daemons, *made.past]:
        with suppress(TimeoutError):
            await daemon.exited(5.0)
        (daemon.folder / f"log-{daemon.pid}.jsonl").write_text(
            "\n".join(daemon.log.text)
        )
        if daemon.stderr:
            journal.left_behind.append(f"on stderr: {daemon.stderr[-500:]}")
        for line in daemon.log.lines:
            if line.get("event") == "request.finished":
                journal.finished[line["request_id"]] += 1
            if line.get("event") == "request.crashed":
                journal.left_behind.append(f"a mistake in the code: {line}")
    journal.rows = ledger_rows(made.folder / "gateway.db")
