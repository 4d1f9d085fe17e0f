"""The config and reloads, as the admin API answers them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.config.parse import parse
from gateway.endpoints.admin.settings import MASK, shown
from tests.conftest import Serve
from tests.kit import settings
from tests.kit.admin import AdminClient, over_unix
from tests.kit.page import PlainBrowser
from tests.kit.scripted import ScriptedUpstream


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[AdminClient]:
    async with over_unix(tmp_path) as client:
        yield client


async def test_the_config_is_shown_without_a_secret(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    account = settings.account(
        upstream, "chat", headers={"x-team": "env:TEST_KEY_CHAT", "x-b": "open"}
    )
    await serve(admin=settings.ADMIN, accounts=[account])
    config = await operator.get("/config")

    assert 10.0 == config["limits"]["queue_timeout_s"]
    assert MASK == config["admin"]["token"]
    assert MASK == config["account"][0]["api_key"]
    assert {"x-team": MASK, "x-b": MASK} == config["account"][0]["headers"]
    assert [8, 8] == [len(user["key_sha256"][0]) for user in config["user"]]
    for secret in ("sk-chat", settings.ADMIN_TOKEN, "open"):
        assert secret not in str(config)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://u:pw@h/db", f"postgresql://u:{MASK}@h/db"),
        ("postgresql://u@h/db?password=pw", "postgresql://u@h/db"),
        ("sqlite:///gateway.db", "sqlite:///gateway.db"),
    ],
)
def test_a_password_in_the_ledgers_address_is_masked(url: str, wanted: str) -> None:
    text = settings.config_text(
        listen=["127.0.0.1:1"], accounts=[settings.TRIAL], ledger={"url": url}
    )

    assert wanted == shown(parse(text, lambda name: ""))["ledger"]["url"]


async def test_a_reload_answers_with_what_changed_or_with_every_mistake(
    serve: Serve, operator: AdminClient
) -> None:
    gateway = await serve(daemon=True, admin=settings.ADMIN)
    daemon = gateway.daemon
    daemon.configure(
        admin=settings.ADMIN,
        limits={"max_queued": 7},
        server={"log_level": "debug"},
    )
    reply = await operator.ask("POST", "/reload")
    page = PlainBrowser(operator.session, operator.base_url)
    daemon.configure(admin=settings.ADMIN, limits={"max_queued": 8})
    shown_change = await page.send("/gateway/reload")
    daemon.configure(admin=settings.ADMIN, limits={"max_queue": 7, "max_queued": "x"})
    refused = await operator.ask("POST", "/reload")
    shown_mistakes = await page.send("/gateway/reload")
    shown_limit = (await operator.get("/config"))["limits"]["max_queued"]

    assert (200, ["limits.max_queued"], ["server.log_level"]) == (
        reply.status,
        reply.json["changed"],
        reply.json["restart_needed"],
    )
    assert (422, "invalid_config") == (refused.status, refused.code)
    assert {"limits.max_queue", "limits.max_queued"} == {
        one["path"] for one in refused.json["error"]["mistakes"]
    }
    assert "limits.max_queued 7 8" in shown_change.text
    assert "limits.max_queue unknown key" in shown_mistakes.text
    assert "The config was not taken up" in shown_mistakes.text
    assert 8 == shown_limit
    assert 2 == len(await gateway.log.wait_events("admin.changed", 2, what="config"))


async def test_the_status_is_that_of_the_gateway_not_of_a_worker(
    serve: Serve, operator: AdminClient
) -> None:
    """The main process, and its start, stay the same over a restart."""
    gateway = await serve(daemon=True, admin=settings.ADMIN)
    first = await operator.get("/status")
    page = PlainBrowser(operator.session, operator.base_url)
    restarted = await page.send("/gateway/restart")
    await gateway.log.wait_events("worker.ended", 1)
    second = await operator.get("/status")

    assert "New workers serve" in restarted.text
    for status in (first, second):
        [worker] = status["processes"]
        assert (1, 1, "serving", 0) == (
            status["workers"],
            status["nodes"],
            worker["state"],
            worker["worker"],
        )
        assert gateway.daemon.pid == status["pid"] != worker["pid"]
        assert worker["node"] and worker["uptime_s"] <= status["uptime_s"]
    assert first["started_at"] == second["started_at"]
    assert first["processes"][0]["pid"] != second["processes"][0]["pid"]


async def test_without_a_parent_there_is_no_reload(
    serve: Serve, operator: AdminClient
) -> None:
    await serve(admin=settings.ADMIN)
    for action in ("reload", "restart"):
        reply = await operator.ask("POST", f"/{action}")
        assert (503, "not_available") == (reply.status, reply.code)
