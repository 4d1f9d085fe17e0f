"""Accounts as the operator sees them; pause, resume and reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.daemon.app import components_of
from gateway.ledger import account_changes
from tests.conftest import Serve
from tests.kit import answers, endings, plays, settings
from tests.kit.admin import AdminClient, over_unix
from tests.kit.gateway import Gateway
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream

ONE_SLOT = {"max_concurrent": 1}


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[AdminClient]:
    async with over_unix(tmp_path) as client:
        yield client


async def start(serve: Serve, upstream: ScriptedUpstream, *names: str) -> Gateway:
    accounts = [
        settings.account(upstream, name, **ONE_SLOT, priority=number)
        for number, name in enumerate(names)
    ]
    return await serve(admin=settings.ADMIN, accounts=accounts)


async def act(operator: AdminClient, name: str, action: str) -> dict[str, Any]:
    reply = await operator.ask("POST", f"/accounts/{name}/{action}")
    assert 200 == reply.status, reply.json
    found: dict[str, Any] = reply.json
    return found


async def test_a_quiet_account_is_ready(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    await start(serve, upstream, "chat-1", "chat-2")
    listed = (await operator.get("/accounts"))["data"]
    one = await operator.get("/accounts/chat-1")

    assert ["chat-1", "chat-2"] == [row["name"] for row in listed]
    assert ("ready", "", None, 0, 0.0, 0) == tuple(
        one[name]
        for name in ("state", "reason", "until", "waiting", "wait_s", "sessions")
    )
    assert {"in_use": 0, "limit": 1} == one["slots"]
    assert "sk-" not in str(listed)
    assert 404 == (await operator.ask("GET", "/accounts/none")).status
    for action in ("pause", "resume", "reset"):
        assert 404 == (await operator.ask("POST", f"/accounts/none/{action}")).status


async def test_it_says_who_has_its_slots_and_how_long_one_more_would_wait(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream, "chat-1")
    gate = asyncio.Event()
    upstream.always(plays.held(gate))
    tasks = [
        asyncio.create_task(gateway.client(user).ask("chat", "chat-x"))
        for user in ("alice", "bob")
    ]
    async with asyncio.timeout(10):
        while not (one := await operator.get("/accounts/chat-1"))["waiting"]:
            await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(*tasks)

    assert {"in_use": 1, "limit": 1} == one["slots"]
    assert [1] == [holder["requests"] for holder in one["holders"]]
    assert one["wait_s"] > 0


async def test_a_cooldown_is_shown_with_its_reason_and_is_reset(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream, "chat-1", "chat-2")
    upstream.next(plays.status(429, headers={"retry-after": "50"}), account="chat-1")
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))
    cooling = await operator.get("/accounts/chat-1")
    reset = await act(operator, "chat-1", "reset")

    assert ("cooling", "rate_limited") == (cooling["state"], cooling["reason"])
    assert 40 < cooling["returns_in_s"] < 60 and cooling["until"].endswith("Z")
    assert 1 == cooling["failures_last_hour"] == sum(cooling["failures"].values())
    assert ("ready", "", []) == (reset["state"], reset["reason"], reset["outages"])
    [change] = gateway.log.events("admin.changed")
    assert ("account.chat-1", "cooling", "ready") == (
        change["what"],
        change["before"],
        change["after"],
    )


async def test_a_paused_account_is_asked_no_more_until_it_is_resumed(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream, "chat-1", "chat-2")
    paused = await act(operator, "chat-1", "pause")
    await act(operator, "chat-1", "pause")  # again: nothing happens
    for _ in range(4):
        endings.whole("chat", await gateway.client().ask("chat", "chat-x"))

    assert ("paused", "paused") == (paused["state"], paused["reason"])
    assert paused["paused_by"].startswith("unix:") and paused["paused_at"]
    assert ["chat-2"] * 4 == [one.account for one in upstream.received()]
    await act(operator, "chat-2", "pause")
    resumed = await act(operator, "chat-1", "resume")
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))

    assert "ready" == resumed["state"]
    assert "chat-1" == upstream.received()[-1].account
    log = gateway.log
    assert 2 == len(log.events("account.paused"))
    assert 1 == len(log.events("account.resumed", account="chat-1"))
    assert 3 == len(log.events("admin.changed"))


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_when_every_fitting_account_is_paused_the_client_reads_it(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await start(serve, upstream, f"{protocol}-1", f"{protocol}-2")
    for number in (1, 2):
        await act(operator, f"{protocol}-{number}", "pause")
    reply = await gateway.client().ask(protocol, f"{protocol}-x")
    seen = endings.before(protocol, reply)

    assert 503 == reply.status
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert "operator has paused every account" in seen.message
    if protocol == "messages":
        assert "api_error" == seen.type
    else:
        assert "accounts_paused" == seen.code
    line = await gateway.finished(reply)
    assert ("refused", "accounts_paused") == (line["outcome"], line["error_code"])
    async with gateway.session.get(f"{gateway.base_url}/readyz") as response:
        assert 503 == response.status
        states = (await response.json())["accounts"]
        assert {"available": False, "reason": "paused"} == states[f"{protocol}-1"]


async def test_a_pause_moves_those_that_wait_and_leaves_those_that_run(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream, "chat-1")
    async with holding(gateway.client("bob"), upstream, "chat-hold"):
        task = asyncio.create_task(gateway.client().ask("chat", "chat-x"))
        await gateway.inside.log.wait_for(
            lambda: any(
                (one.name, one.waiting) == ("chat-1", 1)
                for one in components_of(gateway.inside.app).registry.counts("account")
            ),
            "nothing waits",
        )
        await act(operator, "chat-1", "pause")
        reply = await task

    assert "accounts_paused" in str(endings.before("chat", reply).code)


async def test_a_pause_outlives_a_restart(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    first = await start(serve, upstream, "chat-1", "chat-2")
    await act(operator, "chat-1", "pause")
    second = await serve(
        accounts=[settings.account(upstream, name) for name in ("chat-1", "chat-2")]
    )
    endings.whole("chat", await second.client().ask("chat", "chat-x"))

    assert "chat-2" == upstream.received()[-1].account
    assert not first.log.events("account.resumed")


async def test_what_another_process_changed_is_taken_up(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream, "chat-1")
    parts = components_of(gateway.inside.app)
    upstream.next(plays.status(429, headers={"retry-after": "50"}))
    await gateway.client().ask("chat", "chat-x")

    def elsewhere(connection: Any) -> None:
        from datetime import UTC, datetime

        now = datetime.now(UTC)
        account_changes.reset(connection, "chat-1", now)
        account_changes.pause(connection, "chat-1", now, "token")

    await parts.ledger.change(elsewhere)
    await parts.live_accounts.refresh()
    one = await operator.get("/accounts/chat-1")

    assert ("paused", "token", []) == (one["state"], one["paused_by"], one["outages"])


# --- a test of an account -------------------------------------------------------------


async def probed(operator: AdminClient, name: str, **body: str) -> dict[str, Any]:
    reply = await operator.ask("POST", f"/accounts/{name}/test", json=body)
    assert 200 == reply.status, reply.json
    found: dict[str, Any] = reply.json
    return found


def failing(result: dict[str, Any]) -> str:
    """The first step that failed; the later ones must not have been reached."""
    bad = [one for one in result["steps"] if not one["ok"]]
    assert {"not reached"} >= {one["detail"] for one in bad[1:]}
    return str(bad[0]["step"]) if bad else ""


STEPS = ["name", "connect", "tls", "key", "model", "first_event", "ending", "usage"]


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_an_account_is_tested_step_by_step(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await start(serve, upstream, f"{protocol}-1")
    await act(operator, f"{protocol}-1", "pause")  # it is asked all the same
    result = await probed(operator, f"{protocol}-1", model=f"{protocol}-x")
    line = await gateway.log.wait_finished(result["request_id"])
    detail = await operator.get(f"/requests/{result['request_id']}")

    assert ("", True) == (failing(result), result["ok"])
    assert STEPS == [one["step"] for one in result["steps"]]
    assert ("operator", "ok", f"{protocol}-1") == (
        line["user"],
        line["outcome"],
        line["account"],
    )
    assert "operator" == detail["user"]
    assert {"in_use": 0, "limit": 1} == (await operator.get(f"/accounts/{protocol}-1"))[
        "slots"
    ]


async def test_the_embedded_account_can_be_tested(
    serve: Serve, operator: AdminClient
) -> None:
    await serve(admin=settings.ADMIN, accounts=[settings.TRIAL])
    result = await probed(operator, "trial")

    assert ("trial", "") == (result["model"], failing(result))


@pytest.mark.parametrize(
    ("play", "step"),
    [
        pytest.param(plays.status(401), "key", id="key-refused"),
        pytest.param(
            plays.status(404, {"error": {"code": "model_not_found", "message": "no"}}),
            "model",
            id="no-such-model",
        ),
        pytest.param(plays.eof(-1), "first_event", id="empty"),
        pytest.param(plays.cut(2), "ending", id="cut"),
    ],
)
async def test_the_step_that_fails_is_named(
    serve: Serve,
    operator: AdminClient,
    upstream: ScriptedUpstream,
    play: Any,
    step: str,
) -> None:
    gateway = await start(serve, upstream, "chat-1")
    upstream.always(play)
    result = await probed(operator, "chat-1", model="chat-x")

    assert (step, False) == (failing(result), result["ok"])
    line = await gateway.log.wait_finished(result["request_id"])
    assert "failed" == line["outcome"]


async def test_a_server_that_is_not_there_fails_at_its_step(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    await start(serve, upstream, "chat-1")
    await upstream.stop()
    refused = await probed(operator, "chat-1", model="chat-x")
    await upstream.start()
    unnamed = await operator.ask("POST", "/accounts/chat-1/test")

    assert "connect" == failing(refused)
    assert (400, "model") == (unnamed.status, unnamed.json["error"]["field"])
