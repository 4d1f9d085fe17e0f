"""``GET /v1/usage``: a user sees what it may, does and has used, and nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.daemon.app import components_of
from gateway.ledger.ledger import Ledger
from tests.conftest import Serve
from tests.kit import endings, settings
from tests.kit.gateway import Gateway
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream
from tests.ledger_places import written

BUDGET = {"usd_per_day": 5.0, "tokens_per_day": 1000, "requests_per_minute": 60}


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    alice = settings.user("alice", max_concurrent=1, max_queued=7, budget=BUDGET)
    return await serve(users=[alice, settings.user("bob")])


async def asked(
    gateway: Gateway, user: str = "alice", path: str = "/v1/usage"
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {settings.key_of(user)}"}
    async with gateway.session.get(gateway.base_url + path, headers=headers) as reply:
        return reply.status, await reply.json()


async def recorded(gateway: Gateway) -> None:
    ledger: Ledger = components_of(gateway.inside.app).ledger
    await written(ledger)


async def test_limits_budget_and_sums_of_the_user_alone(gateway: Gateway) -> None:
    endings.whole("chat", await gateway.client("alice").ask("chat", "chat-x"))
    endings.whole("chat", await gateway.client("bob").ask("chat", "chat-secret"))
    await recorded(gateway)

    status, found = await asked(gateway)

    assert (200, "alice", 1, 7) == (
        status,
        found["user"],
        found["limits"]["max_concurrent"],
        found["limits"]["max_queued"],
    )
    [row] = found["usage"]
    assert ("chat-x", 1) == (row["model"], row["requests"])
    assert f"{datetime.now(UTC):%Y-%m-%d}" == row["day"]
    tokens = row["input_tokens"] + row["output_tokens"]
    assert tokens > 0
    budget = found["budget"]
    assert (1000, tokens) == (
        budget["tokens_per_day"]["limit"],
        budget["tokens_per_day"]["used"],
    )
    assert {"limit": 60, "used": 1} == budget["requests_per_minute"]
    assert ["chat-secret"] == [
        r["model"] for r in (await asked(gateway, "bob"))[1]["usage"]
    ]


async def test_it_takes_no_slot_and_shows_what_runs_and_waits(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async with holding(gateway.client("alice"), upstream) as gate:
        waiting = asyncio.create_task(gateway.client("alice").ask("chat", "chat-x"))
        await gateway.inside.waiting("alice", 1)

        _, found = await asked(gateway)
        _, other = await asked(gateway, "bob")

        assert (1, 1) == (found["running"], found["waiting"])
        assert {"running", "waiting"} == {one["state"] for one in found["requests"]}
        assert (0, 0, []) == (other["running"], other["waiting"], other["requests"])
        gate.set()
        endings.whole("chat", await waiting)


@pytest.mark.parametrize("path", ["/usage", "/v1/usage/", "/v1/v1/usage"])
async def test_its_other_paths(gateway: Gateway, path: str) -> None:
    assert 200 == (await asked(gateway, path=path))[0]


@pytest.mark.parametrize(
    ("user", "path", "status"),
    [("eve", "/v1/usage", 401), ("alice", "/v1/usage?api_key=gw-x", 400)],
)
async def test_it_needs_a_key_and_not_in_the_address(
    gateway: Gateway, user: str, path: str, status: int
) -> None:
    assert status == (await asked(gateway, user, path))[0]


async def test_asking_often_reads_the_ledger_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger: Ledger = components_of(gateway.inside.app).ledger
    real, reads = ledger.read, 0

    async def counted(question: Any) -> Any:
        nonlocal reads
        reads += getattr(question, "__name__", "") == "<lambda>"
        return await real(question)

    monkeypatch.setattr(ledger, "read", counted)
    statuses = await asyncio.gather(*(asked(gateway) for _ in range(8)))

    assert {200} == {status for status, _ in statuses}
    assert 1 == reads


async def test_a_ledger_that_is_away_is_503(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(question: Any) -> Any:
        raise OSError("away")

    monkeypatch.setattr(components_of(gateway.inside.app).ledger, "read", away)

    status, answer = await asked(gateway)

    assert (503, "ledger_unavailable") == (status, answer["error"]["code"])
