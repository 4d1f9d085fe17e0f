"""
The endings of CONTRACT section 5, as they arrive at a client.

Each way to an ending is a real one: an upstream that is cut after its first words, or
a queue that is waited in until its time is over.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays, settings
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream

UUID = "fd277bc5-ff7e-45d1-8aa9-f54e1df318f1"
RESP = "resp_fd277bc5ff7e45d18aa9f54e1df318f1"
ONE_SLOT = {"max_concurrent": 1, "ping_interval_s": 0.05, "queue_timeout_s": 0.9}

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@asynccontextmanager
async def busy(
    serve: Serve, upstream: ScriptedUpstream, limits: dict[str, float] | None = None
) -> AsyncIterator[Gateway]:
    """A gateway whose one slot of alice is taken for the block."""
    gateway = await serve(limits=limits or ONE_SLOT)
    gate = asyncio.Event()
    upstream.next(plays.held(gate), account="responses")
    holder = asyncio.create_task(gateway.client().ask("responses", "responses-holder"))
    await upstream.wait_for(1)
    try:
        yield gateway
    finally:
        gate.set()
        await holder


async def timed_out(
    gateway: Gateway, protocol: str, model: str = "", request_id: str = ""
) -> Reply:
    """Wait in the queue until the time is over, keepalives and all."""
    headers = {"x-request-id": request_id} if request_id else {}
    name = model or f"{protocol}-x"
    reply = await gateway.client().ask(protocol, name, headers=headers)
    assert reply.comments
    return reply


# --- the seed cases ---


async def test_responses_streaming_emits_response_failed(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async with busy(serve, upstream) as gateway:
        reply = await timed_out(gateway, "responses")

    error = endings.in_stream("responses", reply)
    assert "response.failed" == reply.last.name
    assert ("rate_limit_error", "rate_limit_exceeded") == (error.type, error.code)
    assert error.message.startswith("Concurrency limit exceeded for user")
    assert (await gateway.explained(reply))["error_code"] == "queue_timeout"


async def test_response_failed_includes_the_model(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async with busy(serve, upstream) as gateway:
        reply = await timed_out(gateway, "responses", "responses-gpt")

    assert "responses-gpt" == reply.last.json["response"]["model"]


async def test_response_failed_reuses_the_request_id(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async with busy(serve, upstream) as gateway:
        reply = await timed_out(gateway, "responses", request_id=UUID)

    assert RESP == reply.last.json["response"]["id"]
    assert UUID == reply.headers["x-request-id"]
    gateway.log.explains(UUID, RESP)


BAD_IDS = ["short", "x" * 129, "with spaces in it", "naïve-naïve", "semi;colon;semi"]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_response_failed_falls_back_to_a_uuid(
    serve: Serve, upstream: ScriptedUpstream, bad: str
) -> None:
    async with busy(serve, upstream) as gateway:
        client = gateway.client()
        reply = await timed_out(gateway, "responses", request_id=bad)
        client.asked[client.asked.index(bad)] = reply.request_id

    response_id = reply.last.json["response"]["id"]
    assert re.fullmatch(r"resp_[0-9a-f]{32}", response_id)
    assert 37 == len(response_id)
    assert response_id == "resp_" + reply.request_id.replace("-", "")


async def test_a_model_full_of_quotes_comes_back_unchanged(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    model = 'responses-"x"\\y é'
    async with busy(serve, upstream) as gateway:
        reply = await timed_out(gateway, "responses", model)

    assert model == reply.last.json["response"]["model"]
    endings.in_stream("responses", reply)


async def test_chat_keeps_event_error(serve: Serve, upstream: ScriptedUpstream) -> None:
    async with busy(serve, upstream) as gateway:
        reply = await timed_out(gateway, "chat")

    error = endings.in_stream("chat", reply)
    assert reply.frames[-1].startswith(b"event: error\ndata: ")
    assert ("rate_limit_error", "rate_limit_exceeded") == (error.type, error.code)
    await gateway.explained(reply)


async def test_messages_begins_with_its_data(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async with busy(serve, upstream) as gateway:
        reply = await timed_out(gateway, "messages")

    error = endings.in_stream("messages", reply)
    assert reply.frames[-1].startswith(b'data: {"type":"error"')
    assert "rate_limit_error" == error.type
    assert reply.request_id == reply.headers["request-id"]
    await gateway.explained(reply)


PAIRS = [
    pytest.param(client, account, id=f"{client}-client-{account}-account")
    for client in answers.PROTOCOLS
    for account in answers.PROTOCOLS
]


@pytest.mark.parametrize("protocol, account", PAIRS)
async def test_the_ending_is_the_clients_whatever_the_account_speaks(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, account: str
) -> None:
    """After the first words, an upstream that is cut gives the client's own ending."""
    gateway = await serve()
    upstream.next(plays.cut(2), account=account)

    reply = await gateway.client().ask(protocol, f"{account}-x")

    error = endings.in_stream(protocol, reply)
    line = await gateway.explained(reply)
    assert "All is " == reply.text
    assert endings.FAILED[protocol] == error.type
    assert "upstream_cut" == line["error_code"]
    assert ("failed", "upstream", account) == (
        line["outcome"],
        line["origin"],
        line["upstream_protocol"],
    )
    assert 1 == len(upstream.received())


async def test_the_failure_keeps_the_id_that_the_client_was_given(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.next(plays.eof(1))

    reply = await gateway.client().ask("responses", "responses-x")

    created = reply.events[0].json["response"]["id"]
    assert created == reply.last.json["response"]["id"]
    assert reply.request_id.replace("-", "") not in created
    gateway.log.explains(reply.request_id, created)


# --- how the end arrives ---


@each_protocol
async def test_the_body_is_closed_at_once_after_the_ending(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Less than 100 ms, the best of three on a machine that may be busy."""
    delays = []
    for _ in range(3):
        upstream.next(plays.cut(1))
        async with gateway.client().open(protocol, f"{protocol}-x") as response:
            body, ending_at = b"", 0.0
            while part := await response.content.readany():
                body += part
                if b"request id: " in body and not ending_at:
                    ending_at = time.monotonic()
        delays.append(time.monotonic() - ending_at)

    assert min(delays) < 0.1


@each_protocol
async def test_retry_after_is_in_the_streams_ending(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    async with busy(serve, upstream) as gateway:
        reply = await timed_out(gateway, protocol)

    error = endings.in_stream(protocol, reply)
    match = re.search(r"try again in (\d+)s \(request id: ", error.message)
    assert match and 1 <= int(match[1]) <= 60
    if protocol == "responses":
        assert error.retry_after_s == int(match[1])


@each_protocol
async def test_before_anything_was_sent_the_ending_is_a_status(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    calm = {**ONE_SLOT, "ping_interval_s": 5.0}
    async with busy(serve, upstream, calm) as gateway:
        reply = await gateway.client().ask(protocol, f"{protocol}-x")

    error = endings.before(protocol, reply)
    assert (429, "rate_limit_error") == (reply.status, error.type)
    assert error.message.startswith("Concurrency limit exceeded for user (1 of 1")
    assert error.retry_after_s
    await gateway.explained(reply)


@each_protocol
async def test_a_whole_stream_is_recorded_as_ok(
    gateway: Gateway, protocol: str
) -> None:
    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.whole(protocol, reply)
    line = await gateway.finished(reply)
    assert ("ok", "", "", 1) == (
        line["outcome"],
        line["origin"],
        line["error_code"],
        line["attempts"],
    )
    assert (11, 3, 7) == (
        line["input_tokens"],
        line["cached_tokens"],
        line["output_tokens"],
    )
    assert settings.USERS[0] == line["user"]
