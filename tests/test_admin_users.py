"""``/api/v1/users``: users and keys of the run time, made and changed by the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.keys import key_sha256
from gateway.daemon.app import components_of
from gateway.ledger import runtime_users
from gateway.ledger.database import LedgerError
from tests.conftest import Serve
from tests.kit import endings, settings
from tests.kit.admin import AdminClient, over_unix
from tests.kit.asking import Client
from tests.kit.gateway import Gateway


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    return await serve(admin=settings.ADMIN)


@pytest.fixture
async def operator(gateway: Gateway, tmp_path: Path) -> AsyncIterator[AdminClient]:
    async with over_unix(tmp_path) as client:
        yield client


async def made(operator: AdminClient, **fields: Any) -> Any:
    reply = await operator.ask("POST", "/users", json={"name": "carol", **fields})
    assert 201 == reply.status, reply.json
    return reply.json


async def made_key(operator: AdminClient, **fields: Any) -> Any:
    reply = await operator.ask("POST", "/users/carol/keys", json=fields)
    assert 201 == reply.status, reply.json
    return reply.json


async def test_a_user_and_a_key_from_making_to_removal(
    gateway: Gateway, operator: AdminClient
) -> None:
    user = await made(operator, max_concurrent=3, budget={"usd_per_day": 5})
    key = await made_key(operator, label="laptop")
    assert ("carol", "runtime", 3) == (user["name"], user["source"], 3)
    assert 5.0 == user["budget"]["usd_per_day"]
    assert "max_concurrent" not in user["inherited"]
    assert key["prefix"] == key_sha256(key["key"])[:8]

    client = Client(gateway.base_url, key["key"], gateway.session)
    endings.whole("chat", await client.ask("chat", "chat-x"))
    listed = (await operator.get("/users/carol"))["keys"]
    assert [(key["prefix"], "laptop")] == [(k["prefix"], k["label"]) for k in listed]
    assert listed[0]["last_used_at"]

    path = f"/users/carol/keys/{key['prefix']}"
    assert 204 == (await operator.ask("DELETE", path)).status
    assert 401 == (await client.ask("chat", "chat-x")).status
    assert 404 == (await operator.ask("DELETE", path)).status
    assert 204 == (await operator.ask("DELETE", "/users/carol")).status
    assert 404 == (await operator.ask("GET", "/users/carol")).status
    changes = await gateway.log.wait_events("admin.changed", 4)
    of_key = f"user.carol.key.{key['prefix']}"
    whats = [one["what"] for one in changes]
    assert ["user.carol", of_key, of_key, "user.carol"] == whats
    assert not [text for text in gateway.log.text if key["key"] in text]


async def test_every_change_is_logged_with_who_before_and_after(
    gateway: Gateway, operator: AdminClient
) -> None:
    await made(operator, max_queued=1)
    await operator.ask("PATCH", "/users/carol", json={"max_queued": 2})

    [added, changed] = await gateway.log.wait_events("admin.changed", 2)
    assert added["who"].startswith("unix:")
    assert {"max_queued": 1, "budget": {}} == changed["before"]
    assert {"max_queued": 2, "budget": {}} == changed["after"]


async def test_a_change_leaves_what_it_does_not_name(
    gateway: Gateway, operator: AdminClient
) -> None:
    budget = {"usd_per_day": 5, "tokens_per_day": 1000}
    await made(operator, max_concurrent=3, max_queued=1, budget=budget)

    change = {"max_concurrent": None, "budget": {"usd_per_day": None}}
    reply = await operator.ask("PATCH", "/users/carol", json=change)

    user = reply.json
    assert (5, 1) == (user["max_concurrent"], user["max_queued"])  # 5 is the default
    assert (0, 1000) == (
        user["budget"]["usd_per_day"],
        user["budget"]["tokens_per_day"],
    )
    cleared = await operator.ask("PATCH", "/users/carol", json={"budget": None})
    assert 0 == cleared.json["budget"]["tokens_per_day"]


async def test_users_of_the_config_are_shown_and_not_changed(
    gateway: Gateway, operator: AdminClient
) -> None:
    listed = (await operator.get("/users"))["data"]
    assert [("alice", "config"), ("bob", "config")] == [
        (one["name"], one["source"]) for one in listed
    ]
    assert [key_sha256(settings.key_of("alice"))[:8]] == [
        key["prefix"] for key in listed[0]["keys"]
    ]
    for method, path, body in (
        ("POST", "/users", {"name": "alice"}),
        ("PATCH", "/users/alice", {"max_queued": 1}),
        ("DELETE", "/users/alice", None),
        ("POST", "/users/alice/keys", {}),
        ("DELETE", "/users/alice/keys/00000000", None),
    ):
        reply = await operator.ask(method, path, json=body)
        assert (409, "user_in_config") == (reply.status, reply.code)


PAST = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/users", {}, 400, "name"),
        ("POST", "/users", {"name": "a b"}, 400, "name"),
        ("POST", "/users", {"name": "operator"}, 400, "name"),
        ("POST", "/users", {"name": "x", "max_concurrent": -1}, 400, "max_concurrent"),
        ("POST", "/users", {"name": "x", "max_queued": 2**31}, 400, "max_queued"),
        ("POST", "/users", {"name": "x", "ping_interval_s": 0}, 400, "ping_interval_s"),
        ("POST", "/users", {"name": "x", "key_sha256": []}, 400, "key_sha256"),
        (
            *("POST", "/users", {"name": "x", "budget": {"usd": 1}}),
            *(400, "budget.usd"),
        ),
        (
            *("PATCH", "/users/carol", {"budget": {"usd_per_day": -1}}),
            *(400, "budget.usd_per_day"),
        ),
        ("PATCH", "/users/carol", {"name": "dave"}, 400, "name"),
        ("POST", "/users/carol/keys", {"expires_at": PAST}, 400, "expires_at"),
        ("POST", "/users/carol/keys", {"expires_at": "soon"}, 400, "expires_at"),
        ("GET", "/users?limit=0", None, 400, "limit"),
        ("POST", "/users", {"name": "carol"}, 409, "user_exists"),
        ("PATCH", "/users/eve", {"max_queued": 1}, 404, "unknown_user"),
        ("DELETE", "/users/%00", None, 404, "unknown_user"),
        ("DELETE", "/users/eve", None, 404, "unknown_user"),
        ("POST", "/users/eve/keys", {}, 404, "unknown_user"),
        ("DELETE", "/users/carol/keys/zz", None, 404, "unknown_key"),
        ("DELETE", "/users/carol/keys/00000000", None, 404, "unknown_key"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    operator: AdminClient,
    method: str,
    path: str,
    body: Any,
    status: int,
    said: str,
) -> None:
    await made(operator)
    before = await operator.get("/users")

    reply = await operator.ask(method, path, json=body)

    error = reply.json["error"]
    assert (status, said) == (reply.status, error.get("field") or error["code"])
    assert before == await operator.get("/users")


async def test_a_long_list_comes_in_parts(operator: AdminClient) -> None:
    await made(operator)

    first = await operator.get("/users?limit=2")
    rest = await operator.get(f"/users?limit=2&after={first['next']}")

    names = [one["name"] for one in [*first["data"], *rest["data"]]]
    assert ["alice", "bob", "carol"] == names
    assert rest["next"] is None


async def test_what_runs_and_is_used_is_shown(
    gateway: Gateway, operator: AdminClient
) -> None:
    await made(operator, budget={"tokens_per_day": 100})
    key = (await made_key(operator))["key"]
    client = Client(gateway.base_url, key, gateway.session)
    endings.whole("chat", await client.ask("chat", "chat-x"))

    user = await operator.get("/users/carol")

    [used] = user["budget_used"]
    assert ("tokens_per_day", 100.0) == (used["budget"], used["limit"])
    assert used["used"] > 0
    assert (0, 0) == (user["running"], user["waiting"])


async def test_a_client_that_leaves_does_not_stop_a_change_half_way(
    gateway: Gateway, operator: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made and logged, or neither."""
    ledger = components_of(gateway.inside.app).ledger
    real, begun, gate = ledger.change, asyncio.Event(), asyncio.Event()

    async def slow(change: Any) -> Any:
        begun.set()
        await gate.wait()
        return await real(change)

    monkeypatch.setattr(ledger, "change", slow)
    asking = asyncio.create_task(operator.ask("POST", "/users", json={"name": "carol"}))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.set()

    await gateway.log.wait_events("admin.changed", what="user.carol")
    assert {"carol"} == await ledger.read(runtime_users.names)


async def test_a_ledger_that_is_away_is_503_and_changes_nothing(
    gateway: Gateway, operator: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise LedgerError("away")

    database = components_of(gateway.inside.app).ledger.database
    monkeypatch.setattr(database, "change", away)

    reply = await operator.ask("POST", "/users", json={"name": "carol"})

    assert (503, "ledger_unavailable") == (reply.status, reply.code)
    assert 404 == (await operator.ask("GET", "/users/carol")).status
