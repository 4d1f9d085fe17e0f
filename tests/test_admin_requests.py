"""What the admin API says of requests, and how it ends them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import answers, endings, plays, settings
from tests.kit.admin import AdminClient, over_unix
from tests.kit.asking import PATHS, Reply
from tests.kit.gateway import Gateway
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
ONE = {"max_concurrent": 1, "ping_interval_s": 5.0}
QUICK = {"max_concurrent": 1, "ping_interval_s": 0.02}
CODEX = {"user-agent": "codex_cli_rs/0.171.0", "originator": "codex_cli_rs"}


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[AdminClient]:
    async with over_unix(tmp_path) as client:
        yield client


async def start(serve: Serve, **limits: Any) -> Gateway:
    return await serve(admin=settings.ADMIN, limits=limits or ONE)


async def shown(operator: AdminClient, **facts: object) -> dict[str, Any]:
    """The one live request that says all of *facts*, as soon as it is there."""
    async with asyncio.timeout(10):
        while True:
            rows = (await operator.get("/requests"))["data"]
            for row in rows:
                if facts.items() <= row.items():
                    found: dict[str, Any] = row
                    return found
            await asyncio.sleep(0.01)


async def ended(operator: AdminClient, **facts: object) -> dict[str, Any]:
    """End the request that says *facts*; what it was."""
    row = await shown(operator, **facts)
    reply = await operator.ask("DELETE", f"/requests/{row['request_id']}")
    assert 202 == reply.status, reply.json
    return row


async def explained(gateway: Gateway, reply: Reply) -> None:
    line = await gateway.explained(reply)
    assert ("ended_by_operator", "gateway") == (line["error_code"], line["origin"])


# --- what is seen ---------------------------------------------------------------------


async def test_what_runs_and_waits_is_listed_with_its_place(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve)
    async with holding(gateway.client(), upstream):
        running = await shown(operator, state="running")
        waiting = asyncio.create_task(gateway.client().ask("chat", "chat-b"))
        row = await shown(operator, state="waiting", phase="queued_user")
        listed = await operator.get("/requests?state=waiting&user=alice")
        status = await operator.get("/status")
        other = await operator.get("/requests?state=running&user=bob")

    endings.whole("chat", await waiting)
    assert ("responses", "responses-hold", "alice") == (
        running["account"],
        running["model"],
        running["user"],
    )
    assert running["received_bytes"] > 0
    assert (1, "chat-b") == (row["position"], row["model"])
    assert row["wait_s"] > 0
    assert [row["request_id"]] == [one["request_id"] for one in listed["data"]]
    assert (1, 1) == (status["running"], status["waiting"])
    assert [] == other["data"]


async def test_what_has_ended_is_listed_newest_first_in_pages(
    serve: Serve, operator: AdminClient
) -> None:
    gateway = await start(serve)
    client = gateway.client()
    asked = [(await client.ask("chat", f"chat-{n}")).request_id for n in range(5)]
    seen: list[str] = []
    path = "/requests?state=ended&limit=2"
    following = ""
    while True:
        page = await operator.get(path + following)
        seen += [row["request_id"] for row in page["data"]]
        if not page.get("next"):
            break
        following = f"&next={page['next']}"

    assert asked[::-1] == seen
    rows = (await operator.get("/requests?state=ended&limit=1&outcome=ok"))["data"]
    assert ("ended", "ok", "alice") == tuple(
        rows[0][name] for name in ("state", "outcome", "user")
    )
    assert rows[0]["output_tokens"] and rows[0]["started_at"].endswith("Z")


async def test_what_the_ledger_never_keeps_is_listed_all_the_same(
    serve: Serve, operator: AdminClient
) -> None:
    gateway = await start(serve)
    reply = await gateway.client().ask("chat", "chat-x", key="unknown-key")
    rows = (await operator.get("/requests?state=ended&outcome=refused"))["data"]
    detail = await operator.get(f"/requests/{reply.request_id}")

    assert [reply.request_id] == [row["request_id"] for row in rows]
    assert "unknown_key" == detail["error_code"]


@pytest.mark.parametrize("written", [False, True], ids=["in-memory", "in-the-ledger"])
async def test_any_id_leads_to_the_request_with_its_timeline(
    serve: Serve, operator: AdminClient, written: bool
) -> None:
    gateway = await start(serve)
    session = {"session-id": "0199c6f2-5e9c-7d31-a2b8-000000000001"}
    reply = await gateway.client().ask(
        "responses", "responses-x", headers={**CODEX, **session}
    )
    line = await gateway.finished(reply)
    if written:
        components_of(gateway.inside.app).ended_records._records.clear()
    ids = [reply.request_id, line["response_id"], session["session-id"]]
    ids += [reply.request_id.replace("-", "")]
    found = [await operator.get(f"/requests/{ident}") for ident in ids]

    assert [reply.request_id] * 4 == [one["request_id"] for one in found]
    detail = found[0]
    assert [("responses", 200, "")] == [
        (one["account"], one["status"], one["error_code"]) for one in detail["attempts"]
    ]
    events = [one["event"] for one in detail["timeline"]]
    assert ("received", "terminal") == (events[0], events[-1])
    assert 404 == (await operator.ask("GET", "/requests/unknown")).status


@pytest.mark.parametrize(
    "query",
    ["state=all", "limit=0", "limit=x", "limit=1001", "since=soon", "next=@", "a=b"],
)
async def test_a_parameter_that_makes_no_sense_is_named(
    serve: Serve, operator: AdminClient, query: str
) -> None:
    await start(serve)
    reply = await operator.ask("GET", f"/requests?{query}")

    assert (400, query.partition("=")[0]) == (
        reply.status,
        reply.json["error"]["field"],
    )


# --- ending one -----------------------------------------------------------------------


@each_protocol
async def test_one_that_waits_gets_a_status(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await start(serve)
    async with holding(gateway.client(), upstream):
        task = asyncio.create_task(gateway.client().ask(protocol, f"{protocol}-b"))
        await ended(operator, state="waiting")
        reply = await task

    assert 503 == reply.status
    assert "false" == reply.headers["x-should-retry"]
    assert "operator" in endings.before(protocol, reply).message
    await explained(gateway, reply)


@each_protocol
async def test_one_that_waits_and_has_keepalives_gets_its_ending(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await start(serve, **QUICK)
    async with holding(gateway.client(), upstream):
        async with gateway.client().open(protocol, f"{protocol}-b") as response:
            await response.content.readany()
            await ended(operator, state="waiting")
            rest = await response.read()

    assert b"operator" in rest
    if protocol != "messages":
        assert b'"ended_by_operator"' in rest


@each_protocol
async def test_one_that_streams_gets_its_ending_and_frees_its_slots(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await start(serve)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    task = asyncio.create_task(gateway.client().ask(protocol, f"{protocol}-b"))
    row = await shown(operator, state="running", account=protocol)
    while not row["first_event_ms"]:
        row = await shown(operator, state="running", account=protocol)
    await ended(operator, state="running")
    reply = await task

    assert "operator" in endings.in_stream(protocol, reply).message
    await explained(gateway, reply)
    detail = await operator.get(f"/requests/{reply.request_id}")
    assert "ended_by_operator" == detail["attempts"][0]["error_code"]
    endings.whole(protocol, await gateway.client().ask(protocol, f"{protocol}-c"))
    changes = gateway.log.events("admin.changed")
    assert [f"request.{reply.request_id}"] == [one["what"] for one in changes]
    assert changes[0]["who"].startswith("unix:")
    gate.set()


async def test_one_that_streams_is_ended_by_the_id_that_its_client_has(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    """The upstream's own, known from its first output on."""
    gateway = await start(serve)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with gateway.client().open("responses", "responses-b") as response:
        begun = b""
        while b"output_text.delta" not in begun:
            begun += await response.content.readany()
        match = re.search(rb'"id":\s*"(resp_[^"]+)"', begun)
        assert match, begun
        ident = match[1].decode()
        reply = await operator.ask("DELETE", f"/requests/{ident}")
        rest = await response.read()
    gate.set()

    assert 202 == reply.status, reply.json
    assert ident != f"resp_{reply.json['request_id'].replace('-', '')}"
    assert b'"ended_by_operator"' in rest and ident.encode() in rest


@each_protocol
async def test_one_that_is_not_streamed_gets_a_status(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await start(serve)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    asked = gateway.client().ask(protocol, f"{protocol}-b", stream=False)
    task = asyncio.create_task(asked)
    await ended(operator, state="running", account=protocol)
    reply = await task

    assert 503 == reply.status
    await explained(gateway, reply)
    gate.set()


async def test_one_whose_body_arrives_gets_a_status(
    serve: Serve, operator: AdminClient
) -> None:
    gateway = await start(serve)
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"model":'
        await gate.wait()

    asked = gateway.client().send(PATHS["chat"], body())
    task = asyncio.create_task(asked)
    await ended(operator, phase="arriving")
    reply = await task

    assert 503 == reply.status
    await explained(gateway, reply)
    gate.set()


async def test_one_whose_client_has_left_is_dropped(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with gateway.client().open("chat", "chat-b") as response:
        await response.content.readany()
    row = await ended(operator, phase="draining")
    line = await gateway.log.wait_finished(row["request_id"])

    assert "client_gone" == line["outcome"]
    gate.set()


async def test_codex_takes_the_ending_as_final(
    serve: Serve, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    """Its own code in the stream, also where an HTTP status could still be sent."""
    gateway = await start(serve)
    async with holding(gateway.client(), upstream):
        asked = gateway.client().ask("responses", "responses-b", headers=CODEX)
        task = asyncio.create_task(asked)
        await ended(operator, state="waiting")
        reply = await task

    assert 200 == reply.status
    failure = reply.last.json["response"]["error"]
    assert "invalid_prompt" == failure["code"]
    assert "operator" in failure["message"]


async def test_one_that_has_ended_cannot_be_ended(
    serve: Serve, operator: AdminClient
) -> None:
    gateway = await start(serve)
    reply = await gateway.client().ask("chat", "chat-x")
    refused = await operator.ask("DELETE", f"/requests/{reply.request_id}")

    assert (404, "not_found") == (refused.status, refused.code)
    assert [] == gateway.log.events("admin.changed")


async def test_the_lists_hold_no_key_and_no_prompt(
    serve: Serve, operator: AdminClient
) -> None:
    gateway = await start(serve)
    reply = await gateway.client().ask("chat", "chat-x")
    rows = str(await operator.get("/requests"))
    detail = str(await operator.get(f"/requests/{reply.request_id}"))

    for text in (rows, detail):
        for secret in (settings.key_of("alice"), "sk-chat", "say something"):
            assert secret not in text
