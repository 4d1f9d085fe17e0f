"""The real clients run straight at the scripted upstream, without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit import clients, plays
from tests.kit.answer import Answer, Tool
from tests.kit.scripted import ScriptedUpstream

SHELL = Answer(tool=Tool("exec_command", {"cmd": "echo from the tool"}))


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(default=plays.ok()) as server:
        yield server


@clients.needs_codex
async def test_codex_holds_a_tool_round_trip_and_tells_failures(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.next(plays.ok(SHELL), plays.cut(1), plays.ok())

    run = await clients.codex(tmp_path, upstream.base_url(), "k")

    assert 0 == run.status
    assert ["All is well."] == run.answers
    assert "from the tool\n" == run.commands[0]["aggregated_output"]
    assert 1 == run.reconnects
    assert 3 == len(upstream.received())


@clients.needs_claude
async def test_claude_code_holds_a_turn(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    run = await clients.claude(tmp_path, upstream.base_url(), "k", model="m")

    assert 0 == run.status
    assert "All is well." == run.answer
    assert "k" == upstream.received()[0].key


@clients.needs_node_sdks
@pytest.mark.parametrize(
    "client", ["responses", "responsesHelper", "chat", "messages", "messagesHelper"]
)
async def test_node_sdks_read_answers_and_raise_errors(
    upstream: ScriptedUpstream, client: str
) -> None:
    upstream.always(plays.status(400), model="bad")
    path = "" if client.startswith("messages") else "/v1"

    outcomes = await clients.node(client, upstream.base_url() + path, "k", "m", "bad")

    assert "All is well." == outcomes["m"]["text"]
    assert outcomes["m"]["terminal"] and not outcomes["m"]["error"]
    assert 400 == outcomes["bad"]["error"]["status"]
