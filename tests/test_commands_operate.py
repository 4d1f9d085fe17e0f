"""The commands of an operator, beside a real daemon."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from tests.conftest import Serve
from tests.kit import settings
from tests.kit.gateway import Gateway
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream


async def command(folder: Path, *words: str) -> tuple[int, str, str]:
    """``gateway WORDS`` for the config in *folder*: its status, stdout and stderr."""

    def run() -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([*words, "--config", str(folder / "config.toml")])
        return status, out.getvalue(), err.getvalue()

    return await asyncio.to_thread(run)


def write_config(folder: Path, **config: Any) -> None:
    given = {"admin": settings.ADMIN, **config}
    text = settings.config_text(
        listen=["127.0.0.1:8080"], accounts=[settings.TRIAL], **given
    )
    (folder / "config.toml").write_text(text)


@pytest.fixture
async def gateway(serve: Serve, tmp_path: Path) -> Gateway:
    write_config(tmp_path)
    return await serve(admin=settings.ADMIN, limits={"max_concurrent": 1})


async def test_requests_are_listed_and_ended(
    gateway: Gateway, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    nothing = await command(tmp_path, "request", "list")
    async with holding(gateway.client(), upstream):
        task = asyncio.create_task(gateway.client().ask("chat", "chat-b"))
        await gateway.inside.waiting("alice", 1)
        listed = await command(tmp_path, "request", "list")
        waiting = await command(
            tmp_path, "request", "list", "--state", "waiting", "--json"
        )
        [row] = json.loads(waiting[1])["data"]
        story = await command(tmp_path, "trace", row["request_id"])
        ended = await command(tmp_path, "request", "end", row["request_id"])
        reply = await task
    again = await command(tmp_path, "request", "end", row["request_id"])
    failed = await command(tmp_path, "request", "list", "--outcome", "refused")

    assert (0, "No requests.\n", "") == nothing
    assert 0 == listed[0]
    assert "responses-hold" in listed[1] and "waiting" in listed[1]
    assert "\x1b" not in listed[1]
    assert 0 == story[0] and "state     waiting" in story[1]
    assert "Has waited" in story[1] and "It still waits." in story[1]
    assert (0, 503) == (ended[0], reply.status)
    assert (1, "") == again[:2]
    assert again[2] == "gateway: No request that waits or runs has this id\n"
    assert "ended_by_operator" in failed[1]


async def test_accounts_are_listed_paused_and_resumed(
    gateway: Gateway, tmp_path: Path
) -> None:
    listed = await command(tmp_path, "account", "list")
    paused = await command(tmp_path, "account", "pause", "chat")
    shown = await command(tmp_path, "account", "list")
    resumed = await command(tmp_path, "account", "resume", "chat", "--json")
    reset = await command(tmp_path, "account", "reset", "chat")
    unknown = await command(tmp_path, "account", "pause", "none", "--json")

    assert 0 == listed[0] and "ready" in listed[1]
    assert (0, "chat is paused\n", "") == paused
    assert "by unix:" in shown[1]
    assert "ready" == json.loads(resumed[1])["state"]
    assert (0, "chat is ready\n", "") == reset
    assert 1 == unknown[0]
    assert "not_found" == json.loads(unknown[1])["error"]["code"]


async def test_a_reload_prints_what_changed_or_every_mistake(
    serve: Serve, tmp_path: Path
) -> None:
    gateway = await serve(daemon=True, admin=settings.ADMIN)
    nothing = await command(tmp_path, "reload")
    gateway.daemon.configure(admin=settings.ADMIN, limits={"max_queued": 7})
    changed = await command(tmp_path, "reload")
    gateway.daemon.configure(admin=settings.ADMIN, limits={"max_queue": 7})
    mistaken = await command(tmp_path, "reload")

    assert (0, "Nothing has changed.\n", "") == nothing
    assert (0, "changed         limits.max_queued\n") == changed[:2]
    assert 2 == mistaken[0]
    assert mistaken[1].startswith("limits.max_queue: unknown key")


@pytest.mark.parametrize(
    "words", [("request", "list"), ("account", "list"), ("reload",), ("restart",)]
)
async def test_a_daemon_that_is_not_there_is_one_line(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    write_config(tmp_path)
    status, out, err = await command(tmp_path, *words)

    assert (1, "") == (status, out)
    assert err.startswith("gateway: the daemon does not answer at ")
    assert 1 == err.count("\n")


@pytest.mark.parametrize(
    ("config", "status", "said"),
    [
        pytest.param({"admin": None}, 1, "has no [admin]", id="no-admin-side"),
        pytest.param(
            {"admin": {"listen": ["127.0.0.1:1"]}, "users": ()},
            1,
            "admin.token is not set",
            id="throwaway-token",
        ),
        pytest.param(
            {"admin": {"listen": ["127.0.0.1:1"], "token": "env:NO_SUCH_NAME"}},
            2,
            "admin.token: the environment variable NO_SUCH_NAME",
            id="token-that-is-not-there",
        ),
    ],
)
async def test_a_config_that_leads_to_no_daemon_is_explained(
    tmp_path: Path, config: dict[str, Any], status: int, said: str
) -> None:
    write_config(tmp_path, **config)
    found = await command(tmp_path, "account", "list")

    assert status == found[0]
    assert said in found[2]


async def test_tcp_is_used_where_there_is_no_socket(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [address] = [
        one for one in gateway.inside.admin.addresses if not one.startswith("unix:")
    ]
    monkeypatch.setenv("TEST_ADMIN_TOKEN", settings.ADMIN_TOKEN)
    write_config(tmp_path, admin={"listen": [address], "token": "env:TEST_ADMIN_TOKEN"})
    right = await command(tmp_path, "account", "list")
    monkeypatch.setenv("TEST_ADMIN_TOKEN", "wrong")
    wrong = await command(tmp_path, "account", "list")

    assert 0 == right[0]
    assert (1, "gateway: This is not the admin token\n") == (wrong[0], wrong[2])
