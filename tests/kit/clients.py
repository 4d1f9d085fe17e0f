"""
Real clients, as their users start them: Codex, Claude Code, the vendors' Node SDKs.

Rule 1: nothing leaves the machine: every other host is sent to a closed port, and what
        a client does besides (updates, telemetry, look-ups) is switched off.
Rule 2: each run has a home and a working folder of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

NPM = Path(__file__).parents[2] / ".cache" / "npm"
NODE_SCRIPT = Path(__file__).with_name("node_client.mjs")
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there
KEPT = ("PATH", "LANG", "TMPDIR")

CODEX = {
    version: NPM / "node_modules" / package / "bin/codex.js"
    for version, package in (("0.169", "@openai/codex"), ("newest", "codex-newest"))
}

needs_codex = pytest.mark.skipif(
    not all(path.exists() for path in CODEX.values()),
    reason="Codex is not installed: .ci/setup test",
)
needs_claude = pytest.mark.skipif(
    not (NPM / "node_modules/.bin/claude").exists(),
    reason="Claude Code is not installed: .ci/setup test",
)
needs_node_sdks = pytest.mark.skipif(
    not (NPM / "node_modules/openai").exists(),
    reason="the Node SDKs are not installed: .ci/setup test",
)
needs_node_websockets = pytest.mark.skipif(
    not (NPM / "node_modules/ws").exists(),
    reason="the Node library of websockets is not installed: .ci/setup test",
)

CODEX_CONFIG = """\
model = {model}
model_provider = "gateway"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
analytics.enabled = false
features.plugins = false

[model_providers.gateway]
name = "gateway"
base_url = {base_url}
env_key = "GATEWAY_API_KEY"
wire_api = "responses"
"""


@dataclass
class Run:
    """One run of a command line client; times are seconds since its start."""

    status: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    stderr: str = ""
    seconds: float = 0.0


@dataclass
class CodexRun(Run):
    """
    ``codex exec --json``: one event for each thing that the user sees.

    Attributes:
        quotas: what its usage meter was given last.
    """

    quotas: dict[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> list[str]:
        """Every message of the model, in order."""
        return [str(item["text"]) for item in self._items("agent_message")]

    @property
    def commands(self) -> list[dict[str, Any]]:
        """The commands that the model had it run."""
        return self._items("command_execution")

    @property
    def errors(self) -> list[str]:
        """The failures that the user saw; the last is the turn's own."""
        messages = []
        for event in self.events:
            if event["type"] == "error":
                messages.append(str(event["message"]))
            elif event["type"] == "turn.failed":
                messages.append(str(event["error"]["message"]))
        return messages

    @property
    def thread(self) -> str:
        """The conversation's id, for ``resume``."""
        return next(
            str(e["thread_id"]) for e in self.events if e["type"] == "thread.started"
        )

    @property
    def reconnects(self) -> int:
        return sum(error.startswith("Reconnecting") for error in self.errors)

    def _items(self, kind: str) -> list[dict[str, Any]]:
        items = [e["item"] for e in self.events if e["type"] == "item.completed"]
        return [item for item in items if item["type"] == kind]


@dataclass
class ClaudeRun(Run):
    """``claude -p --output-format stream-json``."""

    @property
    def result(self) -> dict[str, Any]:
        return next(e for e in self.events if e["type"] == "result")

    @property
    def answer(self) -> str:
        return str(self.result["result"])

    @property
    def retries(self) -> int:
        return sum(e.get("subtype") == "api_retry" for e in self.events)


R = TypeVar("R", bound=Run)


async def codex(
    folder: Path,
    base_url: str,
    key: str,
    prompt: str = "say something",
    *,
    model: str = "gpt-5.5",
    resume: str = "",
    version: str = "0.169",
    timeout_s: float = 50.0,
    **provider: Any,
) -> CodexRun:
    """
    One turn of Codex, one of ``CODEX``; *provider* are keys of its
    ``model_providers`` table.

    Runs in the same *folder* share a home, so that one can *resume* another.
    """
    home, work = _folders(folder)
    config = CODEX_CONFIG.format(
        model=json.dumps(model), base_url=json.dumps(f"{base_url}/v1")
    )
    lines = "".join(f"{name} = {json.dumps(v)}\n" for name, v in provider.items())
    (home / "config.toml").write_text(config + lines)
    command = [str(CODEX[version]), "exec"]
    command += ["resume", resume] if resume else ["--color", "never", "-C", str(work)]
    command += ["--skip-git-repo-check", "--json", prompt]
    env = _environment(home) | {"CODEX_HOME": str(home), "GATEWAY_API_KEY": key}
    run = await _run(CodexRun(), command, env, work, timeout_s)
    run.quotas = _quotas(home)
    return run


def _quotas(home: Path) -> dict[str, Any]:
    """The last limits in the file of a session."""
    found: dict[str, Any] = {}
    for path in (home / "sessions").rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            if '"rate_limits"' in line:
                found = json.loads(line)["payload"].get("rate_limits") or found
    return found


async def claude(
    folder: Path,
    base_url: str,
    key: str,
    prompt: str = "say something",
    *,
    model: str,
    tools: str = "",
    max_retries: int = 2,
    timeout_s: float = 50.0,
) -> ClaudeRun:
    """One turn of Claude Code."""
    home, work = _folders(folder)
    command = [str(NPM / "node_modules/.bin/claude"), "-p", prompt]
    command += ["--output-format", "stream-json", "--verbose"]
    command += ["--model", model, "--tools", tools, "--allowedTools", tools or "none"]
    env = _environment(home) | {
        "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": key,
        "CLAUDE_CODE_MAX_RETRIES": str(max_retries),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "IS_SANDBOX": "1",
    }
    return await _run(ClaudeRun(), command, env, work, timeout_s)


async def node(
    client: str, base_url: str, key: str, *models: str, timeout_s: float = 30.0
) -> dict[str, dict[str, Any]]:
    """
    What a Node SDK makes of each model's answer.

    *client* is a function of ``node_client.mjs``. By model: ``text``, ``terminal``
    and ``error`` (``name``, ``message``, ``status``, ``code``) or null.
    """
    job = {"client": client, "baseURL": base_url, "apiKey": key, "models": models}
    command = ["node", str(NODE_SCRIPT), json.dumps(job)]
    env = _environment(NPM) | {"NODE_MODULES": str(NPM / "node_modules")}
    run = await _run(Run(), command, env, NPM, timeout_s)
    assert 0 == run.status, run.stderr
    return {row["model"]: row for row in run.events}


def _folders(folder: Path) -> tuple[Path, Path]:
    home, work = folder / "home", folder / "work"
    home.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    return home, work


def _environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


async def _run(
    run: R, command: list[str], env: dict[str, str], work: Path, timeout_s: float
) -> R:
    """Run *command* to its end, or end it and all its children."""
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        cwd=work,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    run.status, run.stderr = process.returncode, stderr.decode()
    run.seconds = time.monotonic() - begun
    lines = [line for line in stdout.decode().splitlines() if line.startswith("{")]
    run.events = [json.loads(line) for line in lines]
    return run
