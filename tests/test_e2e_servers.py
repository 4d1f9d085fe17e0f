"""
The real Codex and Claude Code on a strict server of each dialect.

Each server refuses, with the vendor's own words, what that vendor refuses; one daemon
serves them all, and what their dialects are it finds out by the models' names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import clients, plays, strict
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, Play, ScriptedUpstream
from tests.kit.settings import account, key_of, user

pytestmark = pytest.mark.timeout(240)

MODELS = {
    "gemini": "gemini-3-pro",
    "deepseek": "deepseek-chat",
    "qwen": "qwen3.5-plus",
    "glm": "glm-5",
    "kimi": "kimi-k2",
    "mistral": "devstral-2512",
    "vllm": "local-vllm",
    "ollama": "local-ollama",
}
NAMED = ("vllm", "ollama")  # no model's name tells these
AT_ONCE = 2  # clients beside one another; the machine may have no more cores
SHELL = Answer(tool=Tool("exec_command", {"cmd": "echo from the tool"}))
BASH = Answer(
    tool=Tool("Bash", {"command": "echo from the tool", "description": "echo"})
)


def served(dialect: str, play: Play, refused: list[str]) -> Play:
    """*play*, if the dialect's server takes the request."""

    async def judged(exchange: Exchange) -> None:
        body = exchange.request.json
        words = strict.refusal("chat", dialect, body)
        if not words:
            return await play(exchange)
        refused.append(f"{dialect}: {words}")
        error = {"error": {"message": words, "type": "invalid_request_error"}}
        return await exchange.reply(400, json.dumps(error).encode())

    return judged


def calls_a_tool(said: Answer) -> Play:
    """A tool call first, and the answer once its result has come."""

    async def play(exchange: Exchange) -> None:
        roles = [turn["role"] for turn in exchange.request.json["messages"]]
        wanted = bool(exchange.request.json.get("tools")) and "tool" not in roles
        await (plays.ok(said) if wanted else plays.ok())(exchange)

    return play


def accounts(upstream: ScriptedUpstream) -> list[Any]:
    rows = []
    for dialect, model in MODELS.items():
        named = {"dialect": dialect} if dialect in NAMED else {}
        rows.append(account(upstream, f"chat-{dialect}", models=[model], **named))
    return rows


async def each(ask: Callable[[str, str], Awaitable[Any]]) -> dict[str, Any]:
    """What *ask* gives for each dialect and its model, a few at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(dialect: str, model: str) -> tuple[str, Any]:
        async with room:
            return dialect, await ask(dialect, model)

    return dict(await asyncio.gather(*(one(*pair) for pair in MODELS.items())))


async def prepared(
    serve: Serve, upstream: ScriptedUpstream, tool: Answer
) -> tuple[Gateway, list[str]]:
    refused: list[str] = []
    for dialect in MODELS:
        play = served(dialect, calls_a_tool(tool), refused)
        upstream.always(play, account=f"chat-{dialect}")
    users = [user("alice", max_concurrent=20)]
    gateway = await serve(daemon=True, accounts=accounts(upstream), users=users)
    return gateway, refused


def tool_results(upstream: ScriptedUpstream, dialect: str) -> list[str]:
    turns = upstream.received(f"chat-{dialect}")[-1].json["messages"]
    return [str(turn["content"]) for turn in turns if turn["role"] == "tool"]


@clients.needs_codex
async def test_codex_uses_a_tool_on_each_server(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway, refused = await prepared(serve, upstream, SHELL)

    async def ask(dialect: str, model: str) -> clients.CodexRun:
        folder = tmp_path / dialect
        folder.mkdir()
        key = key_of("alice")
        return await clients.codex(
            folder, gateway.base_url, key, model=model, timeout_s=100.0
        )

    runs = await each(ask)

    assert [] == refused
    outcomes = {
        name: (run.status, run.answers, run.errors) for name, run in runs.items()
    }
    assert {name: (0, ["All is well."], []) for name in MODELS} == {
        name: (status, answers, [e for e in errors if "metadata" not in e])
        for name, (status, answers, errors) in outcomes.items()
    }
    for dialect in MODELS:
        assert "from the tool" in tool_results(upstream, dialect)[0], dialect


@clients.needs_claude
async def test_claude_code_uses_a_tool_on_each_server(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway, refused = await prepared(serve, upstream, BASH)

    async def ask(dialect: str, model: str) -> clients.ClaudeRun:
        folder = tmp_path / dialect
        folder.mkdir()
        key = key_of("alice")
        return await clients.claude(
            folder, gateway.base_url, key, model=model, tools="Bash", timeout_s=100.0
        )

    runs = await each(ask)

    assert [] == refused
    assert {name: (0, "All is well.", 0) for name in MODELS} == {
        name: (run.status, run.answer, run.retries) for name, run in runs.items()
    }
    for dialect in MODELS:
        assert "from the tool" in tool_results(upstream, dialect)[0], dialect


def spawns_an_agent(exchange: Exchange) -> Answer:
    """The main agent starts one and waits for it; the other one answers."""
    body = exchange.request.json
    turns = body["messages"]
    results = [turn["content"] for turn in turns if turn["role"] == "tool"]
    said = str([turn["content"] for turn in turns if turn["role"] == "user"][-1])
    names = {name.rpartition("__")[2]: name for name in named_tools(body)}
    if "count the files" in said and not results:
        return Answer(pieces=("There are ", "three."))
    if not results:
        task = {"message": "count the files", "agent_type": "default"}
        return Answer(tool=Tool(names["spawn_agent"], task))
    if len(results) == 1:
        ident = json.loads(results[0])["agent_id"]
        wait = {"targets": [ident], "timeout_ms": 30_000}
        return Answer(tool=Tool(names["wait_agent"], wait, "call_2"))
    return Answer()


def named_tools(body: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in body["tools"]]


@clients.needs_codex
async def test_codex_works_with_a_sub_agent_on_a_strict_server(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Its tools stand in a namespace; what the other agent said comes back."""
    refused: list[str] = []

    async def play(exchange: Exchange) -> None:
        await plays.ok(spawns_an_agent(exchange))(exchange)

    upstream.always(served("qwen", play, refused))
    row = account(upstream, "chat-qwen", models=["qwen*"])
    gateway = await serve(daemon=True, accounts=[row])

    run = await clients.codex(
        tmp_path, gateway.base_url, key_of("alice"), model="qwen3.5-plus"
    )

    assert ([], 0) == (refused, run.status), run.errors
    assert "All is well." == run.answers[-1]
    last = upstream.received()[-1].json["messages"]
    results = [str(turn["content"]) for turn in last if turn["role"] == "tool"]
    assert "There are three." in results[1]
