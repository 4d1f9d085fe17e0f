"""The real Claude Code in front of the real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import answers, clients, plays
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import TRIAL, account, key_of, user

pytestmark = [clients.needs_claude, pytest.mark.timeout(120)]

MODEL = "claude-test"
SERVED = {"models": ["claude-*"]}


async def ask(gateway: Gateway, folder: Path, **options: object) -> clients.ClaudeRun:
    options.setdefault("model", MODEL)
    return await clients.claude(
        folder, gateway.base_url, key_of("alice"), **options  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_turn_on_an_account_of_each_protocol(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, protocol: str
) -> None:
    gateway = await serve(daemon=True, accounts=[account(upstream, protocol, **SERVED)])

    run = await ask(gateway, tmp_path)

    assert (0, "All is well.", 0) == (run.status, run.answer, run.retries)
    lines = await gateway.log.wait_events("request.finished", protocol="messages")
    assert {("ok", "claude-code")} == {
        (line["outcome"], line["client"]) for line in lines
    }
    assert {run.result["session_id"]} == {line["session"] for line in lines}


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_tool_round_trip(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, protocol: str
) -> None:
    gateway = await serve(daemon=True, accounts=[account(upstream, protocol, **SERVED)])
    shell = Answer(
        tool=Tool("Bash", {"command": "echo from the tool", "description": "echo"})
    )
    upstream.next(plays.ok(shell), plays.ok())

    run = await ask(gateway, tmp_path, tools="Bash")

    assert (0, "All is well.") == (run.status, run.answer)
    assert b"from the tool" in upstream.received()[1].body
    assert b"call_1" in upstream.received()[1].body


async def test_a_turn_on_the_trial_account(serve: Serve, tmp_path: Path) -> None:
    gateway = await serve(daemon=True, accounts=[TRIAL])

    run = await ask(gateway, tmp_path, model="trial")

    assert 0 == run.status
    assert "say something" in run.answer


async def test_a_cut_stream_is_asked_again_and_finishes(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Partial text, then the end of the body: never taken for the whole answer."""
    gateway = await serve(
        daemon=True, accounts=[account(upstream, "messages", **SERVED)]
    )
    upstream.next(plays.eof(2))

    run = await ask(gateway, tmp_path)

    assert (0, "All is well.") == (run.status, run.answer)
    lines = await gateway.log.wait_events("request.finished", 2, protocol="messages")
    assert ["failed", "ok"] == [line["outcome"] for line in lines]


async def test_an_upstream_that_keeps_dying_is_reported_as_it_is(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        daemon=True, accounts=[account(upstream, "messages", **SERVED)]
    )
    upstream.always(plays.cut(None))

    run = await ask(gateway, tmp_path, max_retries=1)

    assert run.result["is_error"]
    assert "The upstream broke the connection" in run.answer
    assert "request id: " in run.answer


async def test_a_full_queue_is_reported_as_it_is(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Its stream is refused inside, its repeat outside of a stream: that it shows."""
    gateway = await serve(
        daemon=True,
        accounts=[account(upstream, "messages", **SERVED)],
        users=[user("alice", max_concurrent=1)],
        limits={"ping_interval_s": 0.1, "queue_timeout_s": 0.3},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("messages", MODEL))
    await upstream.wait_for(1)
    run = await ask(gateway, tmp_path, max_retries=0)
    gate.set()
    await holder

    assert run.result["is_error"]
    assert "Concurrency limit exceeded for user (1 of 1 running" in run.answer


async def test_an_overload_of_the_first_account_is_not_noticed(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    rows = [account(upstream, f"messages-{n}", priority=n, **SERVED) for n in (1, 2)]
    gateway = await serve(daemon=True, accounts=rows)
    upstream.always(plays.failed("overloaded_error", deltas=0), account="messages-1")

    run = await ask(gateway, tmp_path)

    assert (0, "All is well.", 0) == (run.status, run.answer, run.retries)
    assert 1 == len(await gateway.log.wait_events("attempt.failed"))


async def test_an_unknown_key_is_reported_at_once(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """A 401 that is not final would be tried for three minutes."""
    gateway = await serve(
        daemon=True, accounts=[account(upstream, "messages", **SERVED)]
    )

    run = await clients.claude(
        tmp_path, gateway.base_url, "gw-wrong", model=MODEL, max_retries=5
    )

    assert run.result["is_error"]
    assert "This API key is not known" in run.answer
    assert 0 == run.retries


async def test_twenty_tool_calls_stay_on_one_account(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Four equal accounts, one conversation: one of them is asked."""
    rows = [account(upstream, f"messages-{n}", **SERVED) for n in range(4)]
    gateway = await serve(daemon=True, accounts=rows)
    calls = [
        Answer(
            tool=Tool(
                "Bash", {"command": f"echo {n}", "description": "e"}, f"toolu_{n}"
            )
        )
        for n in range(19)
    ]
    upstream.next(*map(plays.ok, calls), plays.ok())

    run = await ask(gateway, tmp_path, tools="Bash")

    assert (0, "All is well.") == (run.status, run.answer)
    assert 20 == len(upstream.received())
    assert 1 == len({request.account for request in upstream.received()})
