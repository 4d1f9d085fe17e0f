"""The real Codex CLI in front of the real daemon, whose account speaks websocket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import clients
from tests.kit.answer import Answer, Tool
from tests.kit.settings import key_of
from tests.kit.socket_account import over_sockets
from tests.kit.socket_upstream import SocketUpstream, begun, closes, ok

pytestmark = [clients.needs_codex, pytest.mark.timeout(120)]

SHELL = Answer(tool=Tool("exec_command", {"cmd": "echo from the tool"}))


@pytest.mark.parametrize("websocket", [False, True], ids=["post", "websocket"])
async def test_a_tool_round_trip_sends_only_the_tool_s_output(
    serve: Serve, sockets: SocketUpstream, tmp_path: Path, websocket: bool
) -> None:
    """On one socket; the last turn's is lost before its output, unseen."""
    account = over_sockets(sockets, models=["gpt-*"])
    gateway = await serve(daemon=True, accounts=[account])
    sockets.next(ok(SHELL), ok(interval_s=0.01))

    run = await clients.codex(
        tmp_path, gateway.base_url, key_of("alice"), supports_websockets=websocket
    )
    sockets.next(begun(2, closes(1012)))
    again = await clients.codex(
        tmp_path,
        gateway.base_url,
        key_of("alice"),
        "and now?",
        resume=run.thread,
        supports_websockets=websocket,
    )

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
