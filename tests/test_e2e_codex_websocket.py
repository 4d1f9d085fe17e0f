"""
The real Codex CLI over a websocket.

The daemon is a process where that matters, else it runs in this one.
Every story is the newest version's; the older one, which most users still have, goes
through those that a version may see otherwise.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import clients, plays
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, key_of, user

pytestmark = [clients.needs_codex, pytest.mark.timeout(120)]

MODEL = "gpt-5.5"
SHELL = Answer(tool=Tool("exec_command", {"cmd": "echo from the tool"}))
SERVED = {"models": ["gpt-*"]}
FAST_PINGS = {"ping_interval_s": 0.2}


QUOTA = {"x-codex-primary-used-percent": "42", "x-codex-primary-window-minutes": "300"}
each_version = pytest.mark.parametrize("version", clients.CODEX)


async def ask(
    gateway: Gateway, folder: Path, version: str = "newest", **options: Any
) -> clients.CodexRun:
    options = {"supports_websockets": True, "version": version, **options}
    return await clients.codex(folder, gateway.base_url, key_of("alice"), **options)


@pytest.mark.parametrize(
    ("protocol", "version"),
    [
        ("responses", "newest"),
        ("responses", "0.169"),
        ("chat", "newest"),
        ("messages", "newest"),
    ],
)
async def test_a_tool_round_trip_with_incremental_input(
    serve: Serve,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    protocol: str,
    version: str,
) -> None:
    """What the account says of its quota is in Codex's usage meter, as over HTTP."""
    whole = (protocol, version) == ("responses", "newest")
    rows = [account(upstream, protocol, **SERVED)]
    gateway = await serve(daemon=whole, accounts=rows)
    upstream.next(plays.ok(SHELL, headers=QUOTA), plays.ok(interval_s=0.02))

    run = await ask(gateway, tmp_path, version)

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    if protocol == "responses":
        assert 42.0 == run.quotas["primary"]["used_percent"]
    assert "from the tool\n" == run.commands[0]["aggregated_output"]
    first, second = upstream.received()
    assert b"say something" in first.body and b"say something" in second.body
    assert b"from the tool" in second.body
    lines = await gateway.log.wait_events("request.finished", 2)
    assert {("ok", "codex")} == {(line["outcome"], line["client"]) for line in lines}
    (opened,) = gateway.log.events("websocket.opened")
    assert {opened["connection_id"]} == {line["connection_id"] for line in lines}
    (closed,) = await gateway.log.wait_events("websocket.closed")
    assert 2 == closed["responses"]


async def test_a_wait_shows_its_place_and_ends_well(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        accounts=[account(upstream, "responses", **SERVED)],
        users=[user("alice", max_concurrent=1)],
        limits={**FAST_PINGS, "queue_timeout_s": 30.0},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate), plays.ok(SHELL))
    holder = asyncio.create_task(gateway.client().ask("responses", MODEL))
    await upstream.wait_for(1)
    running = asyncio.create_task(ask(gateway, tmp_path, stream_idle_timeout_ms=1000))
    await gateway.inside.waiting("alice", 1)

    def has_waited() -> bool:
        """Longer than Codex waits without a text frame."""
        return max(keepalives_of(gateway)) * FAST_PINGS["ping_interval_s"] > 1.2

    await gateway.log.wait_for(has_waited, "no place was shown")
    gate.set()
    await holder
    run = await running

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    lines = await gateway.log.wait_events("request.finished", 2, client="codex")
    assert max(line["queue_ms"] for line in lines) > 1200
    assert b"rs_queue" not in upstream.received()[-1].body


def keepalives_of(gateway: Gateway) -> list[int]:
    """How often each response that waits on a websocket has shown its place."""
    open_ = components_of(gateway.inside.app).websockets._open.values()
    running = [scope for one in open_ for scope, *_ in one._running.values()]
    return [scope.answer.keepalives for scope in running if scope.answer]


async def test_a_queue_time_out_shows_the_gateways_sentence(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        accounts=[account(upstream, "responses", **SERVED)],
        users=[user("alice", max_concurrent=1)],
        limits={**FAST_PINGS, "queue_timeout_s": 0.5},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("responses", MODEL))
    await upstream.wait_for(1)
    run = await ask(gateway, tmp_path, stream_max_retries=0)
    gate.set()
    await holder

    assert 1 == run.status
    assert any("Concurrency limit exceeded for user" in one for one in run.errors)
    lines = await gateway.log.wait_events("request.finished", client="codex")
    assert "queue_timeout" == lines[0]["error_code"] and lines[0]["connection_id"]


@each_version
async def test_an_account_that_dies_mid_stream_is_asked_again(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, version: str
) -> None:
    """Codex opens a new websocket, and sends the conversation whole."""
    gateway = await serve(accounts=[account(upstream, "responses", **SERVED)])
    upstream.next(plays.ok(SHELL), plays.cut(2))

    run = await ask(gateway, tmp_path, version)

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    assert b"from the tool" in upstream.received()[-1].body
    lines = await gateway.log.wait_events("request.finished", 3)
    assert ["ok", "failed", "ok"] == [line["outcome"] for line in lines]
    assert all(line["connection_id"] for line in lines)


@each_version
async def test_what_is_larger_than_a_message_ends_with_the_limit(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, version: str
) -> None:
    """The newest goes to HTTP by itself; the older one once the socket was closed."""
    gateway = await serve(
        accounts=[account(upstream, "responses", **SERVED)],
        server={"max_body_bytes": 2000},
    )

    run = await ask(gateway, tmp_path, version, stream_max_retries=0)

    assert 1 == run.status
    assert "larger than 2000 bytes" in run.errors[-1]
    assert not upstream.received()
    closed = await gateway.log.wait_events("websocket.closed")
    sent = {line["close_code"] for line in closed}
    assert (1009 in sent) == (version == "0.169")


async def test_an_old_websocket_is_replaced_between_two_responses(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        accounts=[account(upstream, "responses", **SERVED)],
        server={"websocket_max_age_s": 0.4},
    )
    slow = Answer(tool=Tool("exec_command", {"cmd": "sleep 0.6; echo from the tool"}))
    upstream.next(plays.ok(slow))

    run = await ask(gateway, tmp_path)

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    assert b"say something" in upstream.received()[1].body
    closed = await gateway.log.wait_events("websocket.closed", 2)
    assert 1000 == closed[0]["close_code"]


async def test_a_ctrl_c_frees_the_slot(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        accounts=[account(upstream, "responses", **SERVED)],
        users=[user("alice", max_concurrent=1)],
        upstream={"client_gone_drain_s": 0.0},
    )
    upstream.next(plays.silence(1))
    running = asyncio.create_task(ask(gateway, tmp_path))
    await upstream.wait_for(1)
    running.cancel()
    await upstream.idle()
    reply = await gateway.client().ask("responses", MODEL)

    assert [] == reply.queued
    lines = await gateway.log.wait_events("request.finished", client="codex")
    assert ("client_gone", "client") == (lines[0]["outcome"], lines[0]["origin"])
    (closed,) = await gateway.log.wait_events("websocket.closed")
    assert 1006 == closed["close_code"]
