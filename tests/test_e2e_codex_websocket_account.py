"""The real Codex CLI in front of the real daemon, whose account speaks websocket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import clients
from tests.kit.answer import Answer, Tool
from tests.kit.settings import key_of
from tests.kit.socket_account import over_sockets
from tests.kit.socket_upstream import SocketUpstream, begun, closes, gated, ok
from tests.test_integration_restart import restarted

pytestmark = [clients.needs_codex, pytest.mark.timeout(120)]

PATIENT = {"yield_time_ms": 30_000}  # else Codex asks again while the tool runs
SHELL = Answer(tool=Tool("exec_command", {"cmd": "echo from the tool"}))


@pytest.mark.parametrize(
    ("websocket", "version"),
    [(False, "0.169"), (True, "0.169"), (True, "newest")],
    ids=["post", "websocket", "websocket-newest"],
)
async def test_a_tool_round_trip_sends_only_the_tool_s_output(
    serve: Serve,
    sockets: SocketUpstream,
    tmp_path: Path,
    websocket: bool,
    version: str,
) -> None:
    """On one socket; the last turn's is lost before its output, unseen."""
    account = over_sockets(sockets, models=["gpt-*"])
    gateway = await serve(daemon=version == "newest", accounts=[account])
    sockets.next(ok(SHELL), ok(interval_s=0.01))

    options = {"supports_websockets": websocket, "version": version}
    place = (tmp_path, gateway.base_url, key_of("alice"))
    run = await clients.codex(*place, **options)
    sockets.next(begun(2, closes(1012)))
    again = await clients.codex(*place, "and now?", resume=run.thread, **options)

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    assert (0, ["All is well."], []) == (again.status, again.answers, again.errors)
    assert "from the tool\n" == run.commands[0]["aggregated_output"]
    first, second = [ask.json for ask in sockets.asked[:2]]
    assert "previous_response_id" not in first
    assert ["function_call_output"] == [item["type"] for item in second["input"]]
    assert second["previous_response_id"].startswith("resp_")
    assert "say something" in str(sockets.asked[-1].json["input"])
    lines = await gateway.log.wait_events("request.finished", 3)
    assert {("ok", 1)} == {(line["outcome"], line["attempts"]) for line in lines}


@pytest.mark.parametrize("while_", ["it_answers", "a_tool_runs"])
async def test_a_rolling_restart_is_not_noticed(
    serve: Serve, sockets: SocketUpstream, tmp_path: Path, while_: str
) -> None:
    """What runs ends where it began; the session goes on in the new process."""
    account = over_sockets(sockets, models=["gpt-*"])
    gateway = await serve(daemon=True, accounts=[account])
    go, said = asyncio.Event(), tmp_path / "said"
    command = f"touch {said}.1; until [ -e {said}.2 ]; do sleep 0.05; done; echo done"
    shell = ok(Answer(tool=Tool("exec_command", {"cmd": command, **PATIENT})))
    sockets.next(gated(go, shell), ok())
    old = gateway.daemon.worker_pid
    running = asyncio.create_task(
        clients.codex(
            tmp_path,
            gateway.base_url,
            key_of("alice"),
            supports_websockets=True,
            version="newest",
        )
    )
    await gateway.log.wait_for(lambda: bool(sockets.asked), "Codex has not asked")
    if while_ == "it_answers":
        await restarted(gateway.daemon)
        assert old in gateway.daemon.workers, "what runs was not waited for"
    go.set()
    await gateway.log.wait_for(Path(f"{said}.1").exists, "the tool does not run", 30)
    if while_ == "a_tool_runs":
        await restarted(gateway.daemon)
    await gateway.log.wait_events("worker.ended", pid=old)
    Path(f"{said}.2").touch()
    run = await running

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    lines = await gateway.log.wait_events("request.finished", 2)
    assert {("ok", 1)} == {(line["outcome"], line["attempts"]) for line in lines}
    assert 2 == len(sockets.asked) and not sockets.posted
    whole = str(sockets.asked[-1].json["input"])
    assert "say something" in whole and "function_call_output" in whole
    first, second = await gateway.log.wait_events("websocket.closed", 2)
    assert (1001, 1, 1) == (
        *(first["close_code"], first["responses"], second["responses"]),
    )
