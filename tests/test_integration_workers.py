"""
The processes of a gateway: what happens when one of them dies or stands still.

Real daemons, before an upstream that the test scripts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from pathlib import Path

from tests.conftest import Serve
from tests.kit import answers, endings, plays, seen
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream


def crashed(folder: Path) -> list[str]:
    """The requests that the ledger says a crash has ended."""
    with sqlite3.connect(folder / "gateway.db") as connection:
        rows = connection.execute(
            "SELECT request_id FROM request WHERE error_code = 'crashed'"
        ).fetchall()
    connection.close()
    return [one for one, in rows]


async def open_stream(gateway: Gateway, protocol: str = "chat") -> asyncio.Task[object]:
    """A request that has its first output, and never ends by itself."""
    client = gateway.client()
    asked = len(client.asked)
    asking = asyncio.create_task(client.ask(protocol, f"{protocol}-x"))
    async with asyncio.timeout(10):
        while len(client.asked) == asked:
            await asyncio.sleep(0.005)
    await seen.output(client.asked[-1])
    return asking


async def test_a_worker_that_dies_is_replaced_and_no_client_is_refused(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(daemon=True)
    client = gateway.client()
    upstream.next(plays.silence(1))
    cut = await open_stream(gateway)
    lost = client.asked.pop()  # it has no canonical line: its process is gone
    dead = gateway.daemon.worker_pid
    await asyncio.sleep(0.1)  # its row is written ahead
    os.kill(dead, signal.SIGKILL)
    replies = await asyncio.gather(
        *(client.ask(one, f"{one}-x") for one in answers.PROTOCOLS)
    )
    await cut
    [recovered] = await gateway.log.wait_events("ledger.recovered")

    for protocol, reply in zip(answers.PROTOCOLS, replies):
        endings.whole(protocol, reply)
    [ended] = gateway.log.events("worker.ended")
    assert (dead, "crashed", 9) == (ended["pid"], ended["reason"], ended["signal"])
    assert 2 == len(gateway.log.events("worker.started"))
    assert 1 == recovered["closed_as_crashed"]
    assert [lost] == crashed(tmp_path)
    assert 0 == await gateway.daemon.stop()


async def test_without_its_parent_a_worker_finishes_and_takes_nothing_new(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(daemon=True)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with gateway.client().open("chat", "chat-x") as response:
        await response.content.readany()
        gateway.daemon.process.kill()
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", gateway.daemon.port
                    )
                except ConnectionError:
                    break
                writer.close()
                await asyncio.sleep(0.01)
        gate.set()
        rest = await response.content.read()

    assert b"[DONE]" in rest
    assert -signal.SIGKILL == await gateway.daemon.exited()  # its log has ended, too
    assert [] == crashed(tmp_path)
    assert "ok" == gateway.log.finished(gateway.client().asked[0])["outcome"]
