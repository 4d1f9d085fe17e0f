"""Real clients on accounts of another protocol: the tools that have no counterpart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import clients, plays
from tests.kit.answer import Answer, Tool
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, key_of

pytestmark = pytest.mark.timeout(120)

PATCH = """\
*** Begin Patch
*** Add File: made.txt
+by the model
*** End Patch
"""


@clients.needs_codex
@pytest.mark.parametrize("protocol", ["chat", "messages"])
async def test_codex_applies_a_patch_that_came_as_a_function_call(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, protocol: str
) -> None:
    """Freeform text inside a wrapped function, then the result on its way back."""
    rows = [account(upstream, protocol, models=["gpt-*"])]
    gateway = await serve(daemon=True, accounts=rows)
    call = Answer(reasoning="A file.", tool=Tool("apply_patch", {"input": PATCH}))
    upstream.next(plays.ok(call), plays.ok())

    run = await clients.codex(tmp_path, gateway.base_url, key_of("alice"))

    assert (0, ["All is well."], []) == (run.status, run.answers, run.errors)
    assert "by the model\n" == (tmp_path / "work" / "made.txt").read_text()
    first, second = upstream.received()
    assert b'"apply_patch"' in first.body
    assert b"*** Add File: made.txt" in second.body and b"call_1" in second.body
    lines = await gateway.log.wait_events("request.finished", 2)
    assert [("ok", protocol)] * 2 == [
        (line["outcome"], line["upstream_protocol"]) for line in lines
    ]


@clients.needs_claude
@pytest.mark.parametrize("protocol", ["responses", "chat"])
async def test_claude_runs_two_tools_in_turn(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, protocol: str
) -> None:
    """Reasoning, a command that works, one that fails, and the answer."""
    rows = [account(upstream, protocol, models=["claude-*"])]
    gateway = await serve(daemon=True, accounts=rows)
    works = {"command": "echo from the tool", "description": "echo"}
    fails = {"command": "cat nowhere", "description": "fail"}
    upstream.next(
        plays.ok(Answer(reasoning="First.", tool=Tool("Bash", works, "call_1"))),
        plays.ok(Answer(reasoning="Then.", tool=Tool("Bash", fails, "call_2"))),
        plays.ok(),
    )

    run = await clients.claude(
        tmp_path,
        gateway.base_url,
        key_of("alice"),
        model="claude-test",
        tools="Bash",
    )

    assert (0, "All is well.", 0) == (run.status, run.answer, run.retries)
    last = upstream.received()[-1].body
    for piece in (b"from the tool", b"No such file", b"call_1", b"call_2"):
        assert piece in last
