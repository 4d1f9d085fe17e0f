"""Codex in a queue for long: it waits, shows the wait, and finishes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import clients, plays
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, key_of, user

pytestmark = [clients.needs_codex, pytest.mark.timeout(60)]

MODEL = "gpt-5.5"
WAIT_S = 10.0
IDLE_MS = 3000
"""Codex gives up after so long without an event: comments alone would not do."""


async def test_codex_waits_through_a_long_queue_and_finishes(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Its idle timer is far shorter than the wait; the status keeps it alive."""
    gateway = await serve(
        daemon=True,
        accounts=[account(upstream, "responses", models=["gpt-*"])],
        users=[user("alice", max_concurrent=1)],
        limits={"ping_interval_s": 1.0, "queue_timeout_s": 50.0},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("responses", MODEL))
    await upstream.wait_for(1)
    codex = {"user-agent": "codex_exec/0.50", "originator": "codex_exec"}
    watched = asyncio.create_task(
        gateway.client().ask("responses", MODEL, headers=codex)
    )
    running = asyncio.create_task(
        clients.codex(
            tmp_path,
            gateway.base_url,
            key_of("alice"),
            stream_idle_timeout_ms=IDLE_MS,
            stream_max_retries=0,
        )
    )
    await gateway.daemon.waiting("alice", 2)
    await asyncio.sleep(WAIT_S)
    gate.set()
    await holder
    run, reply = await running, await watched

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    assert run.seconds >= WAIT_S
    lines = await gateway.log.wait_events(
        "request.finished", 2, client="codex", outcome="ok"
    )
    assert 2 == len(lines) and max(line["queue_ms"] for line in lines) > WAIT_S * 900
    shown = re.findall(rb"\*\*Waiting in queue \((\d+) s, 0 ahead", reply.body)
    assert len(shown) >= WAIT_S / 2 and int(shown[-1]) >= WAIT_S - 2


async def test_codex_comes_back_after_the_three_seconds_of_retry_after(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        daemon=True,
        accounts=[account(upstream, "responses", models=["gpt-*"])],
        limits={"ping_interval_s": 0.2},
    )
    upstream.next(plays.status(429, headers={"retry-after": "3"}, after_s=0.6))

    run = await clients.codex(tmp_path, gateway.base_url, key_of("alice"))

    assert (0, ["All is well."], 1) == (run.status, run.answers, run.reconnects)
    match = re.search(r"try again in (\d+)s", run.errors[0])
    assert match
    first, second = upstream.received()
    assert second.at - first.at - 0.6 >= int(match[1]) - 0.1
