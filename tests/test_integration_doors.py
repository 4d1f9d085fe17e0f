"""The other doors: health, probes, the list of models, counting, the trial account."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, badly, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import question
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, ScriptedUpstream
from tests.kit.settings import TRIAL, user

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_key(gateway: Gateway, path: str) -> None:
    reply = await gateway.client().send(
        path, method="GET", headers={"authorization": ""}
    )

    assert 200 == reply.status


@pytest.mark.parametrize("path", ["/", "/api/hello"])
async def test_head_probes_need_no_key(gateway: Gateway, path: str) -> None:
    reply = await gateway.client().send(
        path, method="HEAD", headers={"authorization": ""}
    )

    assert 200 == reply.status


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_serve_both_kinds_of_client(gateway: Gateway, path: str) -> None:
    reply = await gateway.client().send(path, method="GET")

    assert 200 == reply.status
    assert {"object", "data", "models"} <= set(reply.json)
    assert "list" == reply.json["object"]
    assert "trial" in [model["id"] for model in reply.json["data"]]


async def test_count_tokens_takes_no_slot(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async def count(exchange: Exchange) -> None:
        await exchange.reply(200, b'{"input_tokens":42}')

    gateway = await serve(
        users=[user("alice", max_concurrent=1, max_queued=0)],
        upstream={"client_gone_drain_s": 0.0},
    )
    client = gateway.client()
    upstream.next(plays.silence(1))
    async with client.open("messages", "messages-x") as running:
        await running.content.readany()
        upstream.next(count)
        body = json.dumps(question("messages", "messages-x", stream=False)).encode()
        reply = await client.send("/v1/messages/count_tokens?beta=true", body)
        running.close()

    assert (200, {"input_tokens": 42}) == (reply.status, reply.json)
    assert "/messages/count_tokens" == upstream.requests[-1].path


@each_protocol
async def test_the_trial_account_streams_a_whole_answer(
    serve: Serve, protocol: str
) -> None:
    gateway = await serve(accounts=[TRIAL])

    reply = await gateway.client().ask(protocol, "trial")

    endings.whole(protocol, reply, reply.text)
    assert "something" in reply.text
    line = await gateway.finished(reply)
    assert ("ok", "trial") == (line["outcome"], line["account"])
    assert line["output_tokens"]


@each_protocol
async def test_the_trial_account_answers_as_a_whole(
    serve: Serve, protocol: str
) -> None:
    gateway = await serve(accounts=[TRIAL])

    reply = await gateway.client().ask(protocol, "trial", stream=False)

    assert 200 == reply.status
    assert b"something" in reply.body
    assert "ok" == (await gateway.finished(reply))["outcome"]


async def test_a_body_that_waits_to_be_asked_for_is_asked_for(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """``Expect: 100-continue``, as curl sends it before a large body."""
    body = json.dumps(question("chat", "chat-x", stream=False)).encode()
    reader, writer = await badly.connect(gateway)
    lines = f"expect: 100-continue\r\ncontent-length: {len(body)}"
    writer.write(badly.raw_head("chat", gateway, lines, "expecting-request"))

    asked = await reader.readuntil(b"\r\n\r\n")
    writer.write(body)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert asked.startswith(b"HTTP/1.1 100 ")
    assert head.startswith(b"HTTP/1.1 200 ")
    await gateway.log.wait_finished("expecting-request")


@pytest.mark.parametrize("before", ["", "http://x"], ids=["path", "whole-url"])
@pytest.mark.parametrize("path", ["/v1/messages", "/messages"])
async def test_a_model_endpoint_is_found_however_it_is_named(
    gateway: Gateway, upstream: ScriptedUpstream, before: str, path: str
) -> None:
    """With a query, as Claude Code asks, and as a proxy would write it."""
    body = json.dumps(question("messages", "messages-x", stream=False)).encode()
    reader, writer = await badly.connect(gateway)
    lines = f"content-length: {len(body)}"
    request = badly.raw_head("messages", gateway, lines, "named-request")
    target = f"POST {before}{path}?beta=true".encode()
    writer.write(request.replace(b"POST /v1/messages", target, 1) + body)

    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert "/messages" == upstream.requests[-1].path
    await gateway.log.wait_finished("named-request")


closing_clients = pytest.mark.parametrize(
    ("version", "line"), [(b"1.0", ""), (b"1.1", "\r\nconnection: close")]
)


async def read_to_the_end(
    gateway: Gateway, asked: dict[str, Any], version: bytes, line: str
) -> tuple[bytes, bytes]:
    """Head and body of what a client gets that reads until its connection closes."""
    body = json.dumps(asked).encode()
    reader, writer = await badly.connect(gateway)
    lines = f"content-length: {len(body)}{line}"
    request = badly.raw_head("chat", gateway, lines, "closing-client")
    writer.write(request.replace(b"HTTP/1.1", b"HTTP/" + version, 1) + body)
    head, _, rest = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/" + version + b" 200 ")
    assert "ok" == (await gateway.log.wait_finished("closing-client"))["outcome"]
    return head, rest


@closing_clients
async def test_who_keeps_no_connection_gets_the_whole_stream_and_its_end(
    gateway: Gateway, upstream: ScriptedUpstream, version: bytes, line: str
) -> None:
    upstream.next(plays.ok(interval_s=0.01))

    asked = question("chat", "chat-x")
    head, stream = await read_to_the_end(gateway, asked, version, line)

    assert (version == b"1.1") == (b"transfer-encoding: chunked" in head.lower())
    end = b"\r\n0\r\n\r\n" if version == b"1.1" else b""
    assert stream.endswith(b"data: [DONE]\n\n" + end)


@closing_clients
@pytest.mark.parametrize("words", [1, 20_000], ids=["short", "long"])
async def test_who_keeps_no_connection_gets_the_whole_answer_and_its_end(
    gateway: Gateway, upstream: ScriptedUpstream, version: bytes, line: str, words: int
) -> None:
    said = Answer(pieces=("word ",) * words)
    upstream.next(plays.ok(said))

    asked = question("chat", "chat-x", stream=False)
    head, whole = await read_to_the_end(gateway, asked, version, line)

    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert b"content-type: application/json" in head.lower()
    assert answers.body("chat", said, asked) == json.loads(whole)


async def test_a_kept_connection_gets_a_whole_answer_for_each_request(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Two requests at once, the second before the first is answered."""
    body = json.dumps(question("chat", "chat-x", stream=False)).encode()
    reader, writer = await badly.connect(gateway)
    for name in ("kept-first", "kept-second"):
        head = badly.raw_head("chat", gateway, f"content-length: {len(body)}", name)
        writer.write(head + body)

    for name in ("kept-first", "kept-second"):
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"x-request-id: {name}".encode() in head
        size = re.search(rb"(?i)content-length: (\d+)", head)
        assert size
        assert b"All is well." in await reader.readexactly(int(size[1]))
        assert "ok" == (await gateway.log.wait_finished(name))["outcome"]
    writer.close()
