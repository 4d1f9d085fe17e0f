"""The real Codex CLI in front of the real daemon."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import clients, plays
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import TRIAL, account, key_of, user

pytestmark = [clients.needs_codex, pytest.mark.timeout(120)]

MODEL = "gpt-5.5"
SHELL = Answer(tool=Tool("exec_command", {"cmd": "echo from the tool"}))
SERVED = {"models": ["gpt-*"]}
FAST_PINGS = {"ping_interval_s": 0.2}


def first_and_second(upstream: ScriptedUpstream) -> list[object]:
    return [account(upstream, f"responses-{n}", priority=n, **SERVED) for n in (1, 2)]


async def ask(gateway: Gateway, folder: Path, **options: object) -> clients.CodexRun:
    return await clients.codex(
        folder, gateway.base_url, key_of("alice"), **options  # type: ignore[arg-type]
    )


async def test_a_conversation_and_a_tool_on_the_trial_account(
    serve: Serve, tmp_path: Path
) -> None:
    """What a newcomer sees, without any key: words, a tool, a second turn."""
    gateway = await serve(daemon=True, accounts=[{**TRIAL, "models": ["*"]}])

    first = await ask(gateway, tmp_path, prompt="please call the tool")
    second = await ask(gateway, tmp_path, prompt="and now?", resume=first.thread)

    assert (0, 0) == (first.status, second.status)
    assert first.commands and first.answers and second.answers
    assert [] == first.errors + second.errors
    lines = await gateway.log.wait_events("request.finished", 3)
    assert {("ok", "codex")} == {(line["outcome"], line["client"]) for line in lines}
    assert {first.thread} == {line["session"] for line in lines}


async def test_a_turn_and_a_tool_round_trip(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        daemon=True, accounts=[account(upstream, "responses", **SERVED)]
    )
    upstream.next(plays.ok(SHELL), plays.ok(interval_s=0.02))

    run = await ask(gateway, tmp_path)

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    assert "from the tool\n" == run.commands[0]["aggregated_output"]
    outputs = [
        item
        for item in upstream.received()[1].json["input"]
        if item["type"] == "function_call_output"
    ]
    assert ["call_1"] == [item["call_id"] for item in outputs]
    lines = await gateway.log.wait_events("request.finished", 2)
    assert ["ok", "ok"] == [line["outcome"] for line in lines]


@pytest.mark.parametrize("protocol", ["chat", "messages"])
async def test_a_tool_round_trip_and_a_second_turn_on_another_protocol(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, protocol: str
) -> None:
    gateway = await serve(daemon=True, accounts=[account(upstream, protocol, **SERVED)])
    upstream.next(plays.ok(SHELL), plays.ok(), plays.ok(Answer(pieces=("Again.",))))

    first = await ask(gateway, tmp_path)
    second = await ask(gateway, tmp_path, prompt="and now?", resume=first.thread)

    assert (0, ["All is well."], []) == (first.status, first.answers, first.errors)
    assert "from the tool\n" == first.commands[0]["aggregated_output"]
    assert (0, ["Again."]) == (second.status, second.answers)
    assert b"All is well." in upstream.received()[2].body


async def test_a_queue_time_out_shows_the_gateways_sentence(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Not "stream closed before response.completed"."""
    gateway = await serve(
        daemon=True,
        accounts=[account(upstream, "responses", **SERVED)],
        users=[user("alice", max_concurrent=1)],
        limits={**FAST_PINGS, "queue_timeout_s": 1.0},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("responses", MODEL))
    await upstream.wait_for(1)
    run = await ask(gateway, tmp_path, stream_max_retries=0)
    gate.set()
    await holder

    assert 1 == run.status
    message = run.errors[-1]
    assert "Concurrency limit exceeded for user (1 of 1 running" in message
    assert "stream closed" not in message
    request_id = message.rpartition("(request id: ")[2].rstrip(")")
    line = await gateway.log.wait_finished(request_id)
    assert ("queue_timeout", "codex") == (line["error_code"], line["client"])
    gateway.log.explains(request_id)


async def test_a_wait_in_the_queue_ends_well(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Comments, status lines and data events of the wait disturb nothing."""
    gateway = await serve(
        daemon=True,
        accounts=[account(upstream, "responses", **SERVED)],
        users=[user("alice", max_concurrent=1)],
        limits={**FAST_PINGS, "queue_timeout_s": 30.0},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("responses", MODEL))
    await upstream.wait_for(1)
    running = asyncio.create_task(ask(gateway, tmp_path))
    await gateway.daemon.waiting("alice", 1)
    await asyncio.sleep(2.5)
    gate.set()
    await holder
    first = await running
    second = await ask(gateway, tmp_path, prompt="and now?", resume=first.thread)

    assert (0, ["All is well."], []) == (first.status, first.answers, first.errors)
    assert 0 == second.status
    line = (await gateway.log.wait_events("request.finished", client="codex"))[0]
    assert line["queue_ms"] > 2000
    history = upstream.received()[-1].body
    assert b"Waiting in queue" not in history and b"rs_queue" not in history


BREAKS = [
    pytest.param(plays.cut(2), id="cut"),
    pytest.param(plays.reset(2), id="reset"),
    pytest.param(plays.eof(2), id="eof"),
    pytest.param(plays.half_event(2), id="half-event"),
]


@pytest.mark.parametrize("play", BREAKS)
async def test_an_upstream_that_dies_mid_stream_is_asked_again(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, play: object
) -> None:
    gateway = await serve(
        daemon=True, accounts=[account(upstream, "responses", **SERVED)]
    )
    upstream.next(play)  # type: ignore[arg-type]

    run = await ask(gateway, tmp_path)

    assert (0, ["All is well."], 1) == (run.status, run.answers, run.reconnects)
    assert "The upstream" in run.errors[0] and "request id: " in run.errors[0]
    lines = await gateway.log.wait_events("request.finished", 2)
    assert ["failed", "ok"] == [line["outcome"] for line in lines]


async def test_an_upstream_that_keeps_dying_is_reported_as_it_is(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        daemon=True, accounts=[account(upstream, "responses", **SERVED)]
    )
    upstream.always(plays.cut(2))

    run = await ask(gateway, tmp_path, stream_max_retries=1)

    assert 1 == run.status
    assert "closed the stream before it finished (request id: " in run.errors[-1]


@pytest.mark.parametrize("after_s", [0.0, 0.7], ids=["header", "in-stream"])
async def test_it_obeys_retry_after_and_finishes(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, after_s: float
) -> None:
    """By the header, or, once keepalives are out, by ``try again in 3s``."""
    gateway = await serve(
        daemon=True,
        accounts=[account(upstream, "responses", **SERVED)],
        limits=FAST_PINGS,
    )
    wait = {"retry-after": "3"}
    upstream.next(plays.status(429, headers=wait, after_s=after_s))

    run = await ask(gateway, tmp_path)

    assert (0, ["All is well."], 1) == (run.status, run.answers, run.reconnects)
    match = re.search(r"try again in (\d+)s", run.errors[0])
    assert bool(match) == bool(after_s)
    wait_s = int(match[1]) if match else 3
    first, second = upstream.received()
    assert 3 <= wait_s <= 5  # the account's own 3 s, and a little against stampedes
    assert second.at - first.at - after_s >= wait_s - 0.1


async def test_an_overload_of_the_first_account_is_not_noticed(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(daemon=True, accounts=first_and_second(upstream))
    upstream.always(
        plays.failed("server_is_overloaded", deltas=0), account="responses-1"
    )

    run = await ask(gateway, tmp_path)

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    (line,) = await gateway.log.wait_events("request.finished")
    assert ("ok", 2, "responses-2") == (
        line["outcome"],
        line["attempts"],
        line["account"],
    )


async def test_an_unknown_key_is_reported(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        daemon=True, accounts=[account(upstream, "responses", **SERVED)]
    )

    run = await clients.codex(
        tmp_path, gateway.base_url, "gw-wrong", stream_max_retries=0
    )

    assert 1 == run.status
    assert "This API key is not known" in run.errors[-1]


async def test_a_model_that_no_account_serves_is_reported_at_once(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(daemon=True)

    run = await ask(gateway, tmp_path)

    assert (1, 0) == (run.status, run.reconnects)
    assert "No account serves" in run.errors[-1]


async def test_twenty_turns_stay_on_one_account(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """One turn of twenty tool calls: four equal accounts, one of them is asked."""
    rows = [account(upstream, f"responses-{n}", **SERVED) for n in range(4)]
    gateway = await serve(daemon=True, accounts=rows)
    upstream.next(*[plays.ok(SHELL)] * 19, plays.ok())

    run = await ask(gateway, tmp_path)

    assert (0, ["All is well."], 19) == (run.status, run.answers, len(run.commands))
    assert 20 == len(upstream.received())
    assert 1 == len({request.account for request in upstream.received()})


async def test_a_ctrl_c_frees_the_slot(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(
        daemon=True,
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
    line = (await asyncio.wait_for(_gone(gateway), 5))[0]
    assert ("client_gone", "client") == (line["outcome"], line["origin"])


async def _gone(gateway: Gateway) -> list[dict[str, object]]:
    await gateway.log.wait_for(
        lambda: gateway.log.events("request.finished", client="codex"), "no record"
    )
    return gateway.log.events("request.finished", client="codex")
