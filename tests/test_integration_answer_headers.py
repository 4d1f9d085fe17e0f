"""What every answer tells in its headers, and which pages of the web may read it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.asking import PATHS, Reply
from tests.kit.badly import connect, wrong
from tests.kit.queueing import ONE, holding, queued
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
each_form = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])

PAGE = "https://app.example.com"


def wait_and_attempts(reply: Reply) -> tuple[int, int]:
    """The wait in ms and the number of attempts."""
    return (
        int(reply.headers["x-gateway-queue-ms"]),
        int(reply.headers["x-gateway-attempts"]),
    )


@each_form
@each_protocol
async def test_an_answer_tells_its_attempts_and_not_its_account(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    rows = [account(upstream, f"{protocol}-{n}", priority=n) for n in (1, 2)]
    gateway = await serve(accounts=rows)
    upstream.next(plays.status(500))

    reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=stream)

    assert 200 == reply.status
    wait_ms, attempts = wait_and_attempts(reply)
    assert 2 == attempts and wait_ms < 5000
    assert "x-gateway-account" not in reply.headers


@each_form
@each_protocol
async def test_an_answer_names_its_account_where_that_is_wanted(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    gateway = await serve(server={"tell_account": True})

    converted = "chat" if protocol != "chat" else "messages"
    for name in (protocol, converted):
        reply = await gateway.client().ask(protocol, f"{name}-x", stream=stream)

        assert name == reply.headers["x-gateway-account"]
        assert 1 == wait_and_attempts(reply)[1]


@each_form
@each_protocol
async def test_a_failure_tells_its_attempts(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    gateway = await serve(server={"tell_account": True})
    upstream.always(plays.status(500))

    reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=stream)

    assert reply.status in (502, 500)
    line = await gateway.finished(reply)
    assert line["attempts"] == wait_and_attempts(reply)[1] > 0
    assert protocol == reply.headers["x-gateway-account"]


@each_form
async def test_an_answer_tells_how_long_it_waited(
    serve: Serve, upstream: ScriptedUpstream, stream: bool
) -> None:
    """A whole answer all of it, a stream until its head left with a keepalive."""
    limits = {**ONE, "ping_interval_s": 0.3}
    gateway = await serve(limits=limits)
    client = gateway.client()
    async with holding(client, upstream) as gate:
        async with asyncio.TaskGroup() as group:
            if stream:
                async with client.open("chat", "chat-x") as response:
                    await queued(response)
                    gate.set()
                    await response.content.read()
                    headers = dict(response.headers)
                wait_ms = int(headers["x-gateway-queue-ms"])
                attempts = int(headers["x-gateway-attempts"])
            else:
                asked = group.create_task(client.ask("chat", "chat-x", stream=False))
                await gateway.inside.waiting("alice", 1)
                await asyncio.sleep(0.3)
                gate.set()
                wait_ms, attempts = wait_and_attempts(await asked)

    assert wait_ms >= 250
    assert (0 if stream else 1) == attempts
    line = await gateway.log.wait_finished(client.asked[-1])
    assert line["queue_ms"] >= wait_ms - 1


@each_protocol
async def test_a_refusal_in_line_tells_how_long_it_waited(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(limits={**ONE, "queue_timeout_s": 0.4, "ping_interval_s": 9})
    async with holding(gateway.client(), upstream):
        reply = await gateway.client().ask(protocol, f"{protocol}-x")

    assert 429 == reply.status
    wait_ms, attempts = wait_and_attempts(reply)
    assert wait_ms >= 390 and 0 == attempts


OTHERS: list[Any] = [
    pytest.param("GET", "/healthz", {}, 200, id="health"),
    pytest.param("GET", "/readyz", {}, 200, id="ready"),
    pytest.param("GET", "/metrics", {}, 200, id="metrics"),
    pytest.param("HEAD", "/", {}, 200, id="hello"),
    pytest.param("GET", "/v1/models", {}, 200, id="models"),
    pytest.param("POST", "/v1/messages/count_tokens", {}, 200, id="count"),
    pytest.param("GET", "/v1/responses/resp_none", {}, 404, id="response"),
    pytest.param("GET", "/v1/nothing", {}, 404, id="no-path"),
    pytest.param("PUT", "/v1/messages", {}, 405, id="no-method"),
    pytest.param("POST", "/v1/responses", {"authorization": ""}, 401, id="no-key"),
]


@pytest.mark.parametrize("method, path, headers, status", OTHERS)
async def test_every_other_answer_has_them_too(
    serve: Serve, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    gateway = await serve(server={"allow_origins": [PAGE]})
    data = wrong("messages", model="trial") if method == "POST" else None
    given = {**headers, "origin": PAGE, "x-request-id": "the-clients-own"}

    reply = await gateway.client().send(path, data, method=method, headers=given)

    assert status == reply.status
    assert "the-clients-own" == reply.headers["x-request-id"]
    asked = 1 if "count" in path else 0
    assert (0, asked) == wait_and_attempts(reply)
    assert PAGE == reply.headers["access-control-allow-origin"]


# --- pages of the web ---


@each_form
@each_protocol
async def test_a_named_page_may_read_every_answer(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    gateway = await serve(server={"allow_origins": [PAGE]})
    client, headers = gateway.client(), {"origin": PAGE}

    for model in (f"{protocol}-x", "no-such-model"):
        reply = await client.ask(protocol, model, stream=stream, headers=headers)

        assert PAGE == reply.headers["access-control-allow-origin"]
        assert "Origin" == reply.headers["vary"]
        exposed = reply.headers["access-control-expose-headers"]
        assert "x-request-id" in exposed and "retry-after" in exposed


@each_form
@pytest.mark.parametrize("allowed", [[], [PAGE]], ids=["no-page", "others"])
@pytest.mark.parametrize("origin", ["https://other.example.com", ""])
async def test_other_pages_get_no_header(
    serve: Serve, allowed: list[str], origin: str, stream: bool
) -> None:
    gateway = await serve(server={"allow_origins": allowed})
    headers = {"origin": origin} if origin else {}

    reply = await gateway.client().ask("chat", "chat-x", stream=stream, headers=headers)

    assert 200 == reply.status
    assert [] == [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", [*PATHS.values(), "/v1/models", "/v1/v1/messages/"])
async def test_a_preflight_of_a_named_page_is_answered_without_a_key(
    serve: Serve, path: str
) -> None:
    gateway = await serve(server={"allow_origins": [PAGE]})
    asked = {
        "authorization": "",
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    reply = await gateway.client().send(path, method="OPTIONS", headers=asked)

    assert (204, b"") == (reply.status, reply.body)
    assert PAGE == reply.headers["access-control-allow-origin"]
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "authorization" in reply.headers["access-control-allow-headers"]
    assert reply.request_id
    assert [] == gateway.log.events("request.finished")


@pytest.mark.parametrize("allowed", [[], [PAGE]], ids=["no-page", "others"])
async def test_a_preflight_of_another_page_is_refused(
    serve: Serve, allowed: list[str]
) -> None:
    gateway = await serve(server={"allow_origins": allowed})
    asked = {
        "origin": "https://other.example.com",
        "access-control-request-method": "POST",
    }

    reply = await gateway.client().send("/v1/messages", method="OPTIONS", headers=asked)

    assert 405 == reply.status
    assert "access-control-allow-origin" not in reply.headers


async def test_an_ending_in_a_stream_is_readable_too(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(server={"allow_origins": ["*"]})
    upstream.next(plays.failed("server_error", deltas=2))

    reply = await gateway.client().ask(
        "responses", "responses-x", headers={"origin": PAGE}
    )

    assert "*" == reply.headers["access-control-allow-origin"]
    assert endings.in_stream("responses", reply)


# --- the metrics' own key ---


async def test_a_metrics_token_that_is_no_text_is_a_401(serve: Serve) -> None:
    gateway = await serve(server={"metrics_token": "env:TEST_KEY_CHAT"})
    reader, writer = await connect(gateway)
    writer.write(
        b"GET /metrics HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\xfe\r\n\r\n"
    )

    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()

    assert b" 401 " in line
