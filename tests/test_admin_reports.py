"""``/api/v1/usage`` and ``/api/v1/health`` of a gateway that has served."""

from __future__ import annotations

from pathlib import Path

from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import plays, settings
from tests.kit.admin import over_unix
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream


async def served(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.next(plays.ok(), plays.status(400))
    await gateway.client("alice").ask("responses", "responses-a")
    await gateway.client("bob").ask("chat", "chat-a")
    await gateway.log.wait_events("request.finished", 2)
    ledger = components_of(gateway.inside.app).ledger
    await gateway.log.wait_for(lambda: not ledger.waiting, "rows are not written")


async def test_sums_and_hours(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(admin=settings.ADMIN)
    await served(gateway, upstream)

    async with over_unix(tmp_path) as operator:
        sums = await operator.get("/usage?by=user,model")
        none = await operator.get("/usage?until=2026-01-01")
        hours = await operator.get("/health?since=3h")
        today = await operator.get("/health")

    rows = {(row["user"], row["model"]): row for row in sums["data"]}
    assert {("alice", "responses-a"), ("bob", "chat-a")} == set(rows)
    assert (1, 1) == (
        rows["alice", "responses-a"]["ok"],
        rows["bob", "chat-a"]["failed"],
    )
    assert {"data": []} == none
    assert (4, 25) == (len(hours["data"]), len(today["data"]))
    busy = [hour for hour in hours["data"] if hour["requests"]]
    assert 2 == sum(hour["requests"] for hour in busy)
    assert 1 == sum(hour["failures"]["origin"]["client"] for hour in busy)
    assert {1.0} == {hour["well_share"] for hour in busy if hour["counted"]}


async def test_questions_that_make_no_sense(serve: Serve, tmp_path: Path) -> None:
    await serve(admin=settings.ADMIN)

    async with over_unix(tmp_path) as operator:
        for path, field in (
            ("/usage?by=nonsense", "by"),
            ("/usage?until=soon", "until"),
            ("/health?since=99d", "since"),
            ("/health?since=x", "since"),
        ):
            reply = await operator.ask("GET", path)
            assert (400, field) == (reply.status, reply.json["error"]["field"])
