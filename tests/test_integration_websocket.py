"""Responses over a websocket: what its clients send, and every frame that they get."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Serve
from tests.kit import plays
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, user
from tests.kit.websocket import CODEX, CREATE, socket

each_protocol = pytest.mark.parametrize("protocol", ["responses", "chat", "messages"])


def call(ident: str = "r1") -> Answer:
    return Answer(id=ident, tool=Tool("run", {"cmd": "ls"}))


# --- the upgrade --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/responses", "/v1/v1/responses", "//v1//responses/"]
)
async def test_every_spelling_of_the_path_upgrades(gateway: Gateway, path: str) -> None:
    async with socket(gateway, path=path, headers={"x-request-id": "my-own-1"}) as one:
        turn = await one.turn(input="hello")

        assert "my-own-1" == one.id
        assert "67108864" == one.headers["x-codex-websocket-max-message-bytes"]
    assert "All is well." == turn.text
    (closed,) = await gateway.log.wait_events("websocket.closed")
    assert ("my-own-1", 1, 1000, "alice") == (
        closed["connection_id"],
        closed["responses"],
        closed["close_code"],
        closed["user"],
    )
    (opened,) = gateway.log.events("websocket.opened")
    (line,) = gateway.log.events("request.finished")
    assert opened["connection_id"] == line["connection_id"] == "my-own-1"
    assert line["request_id"] != "my-own-1" and line["stream"]


@pytest.mark.parametrize(
    ("headers", "path", "status", "says"),
    [
        ({"authorization": "Bearer gw-wrong"}, "", 401, "not known"),
        ({"authorization": ""}, "", 401, "No API key"),
        ({}, "?key=gw-test-alice", 400, "must not be in the URL"),
    ],
    ids=["unknown-key", "no-key", "key-in-the-url"],
)
async def test_an_upgrade_is_refused_as_any_request(
    gateway: Gateway, headers: dict[str, str], path: str, status: int, says: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(gateway, path="/v1/responses" + path, headers=headers):
            pass

    response = refused.value.response
    assert status == response.status_code
    error = json.loads(bytes(response.body or b""))["error"]
    assert says in error["message"] and "(request id: " in error["message"]
    if status == 401:
        assert "false" == response.headers["x-should-retry"]
    await gateway.log.wait_finished(response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sec-websocket-version", "12"),
        ("sec-websocket-key", "short"),
        ("connection", "close"),
    ],
)
async def test_an_upgrade_that_is_not_valid_names_its_header(
    gateway: Gateway, name: str, value: str
) -> None:
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
        name: value,
    }
    client = gateway.client()
    reply = await client.send("/v1/responses", method="GET", headers=headers)

    assert 400 == reply.status
    assert name in reply.json["error"]["message"].lower()


# --- one response -------------------------------------------------------------------


@each_protocol
async def test_an_account_of_every_protocol_serves_a_websocket(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    async with socket(gateway) as one:
        turn = await one.turn(model=f"{protocol}-a", input="hello", stream=False)

    assert "All is well." == turn.text
    assert "response.completed" == turn.last["type"]
    (received,) = upstream.received()
    assert received.json["stream"] is True
    assert not {"type", "stream_id", "generate"} & set(received.json)
    assert "upgrade" not in received.headers
    assert not [name for name in received.headers if name.startswith("sec-")]
    (line,) = await gateway.log.wait_events("request.finished")
    assert ("ok", protocol, 200) == (
        line["outcome"],
        line["upstream_protocol"],
        line["status"],
    )
    assert line["input_tokens"] and line["output_tokens"]


async def test_what_the_client_says_of_a_turn_goes_up_as_over_http(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    handshake = {
        **CODEX,
        "openai-beta": "responses_websockets=2026-02-06, assistants=v2",
        "session-id": "s-1",
        "x-codex-turn-metadata": '{"request_kind":"prewarm"}',
    }
    metadata = {
        "session_id": "s-1",
        "x-codex-turn-metadata": '{"request_kind":"turn"}',
        "x-codex-turn-state": "state-1",
        "ws_request_header_x_openai_internal_codex_responses_lite": "true",
        "ws_request_header_authorization": "Bearer stolen",
        "ws_request_header_bad\nname": "x",
    }
    async with socket(gateway, headers=handshake) as one:
        await one.turn(input="hello", client_metadata=metadata)

    (received,) = upstream.received()
    headers = received.headers
    assert "assistants=v2" == headers["openai-beta"]
    assert '{"request_kind":"turn"}' == headers["x-codex-turn-metadata"]
    assert "state-1" == headers["x-codex-turn-state"]
    assert "true" == headers["x-openai-internal-codex-responses-lite"]
    assert "Bearer sk-responses" == headers["authorization"]
    assert metadata == received.json["client_metadata"]
    (line,) = await gateway.log.wait_events("request.finished")
    assert ("s-1", "codex") == (line["session"], line["client"])


async def test_what_an_account_says_in_headers_reaches_codex_as_a_frame(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    given = {"x-codex-turn-state": "state-1", "x-codex-primary-used-percent": "42"}
    upstream.always(plays.ok(headers=given))
    async with socket(gateway, headers=CODEX) as one:
        codex = await one.turn(input="hello")
    async with socket(gateway) as one:
        other = await one.turn(input="hello")

    said = {"type": "response.metadata", "headers": {"x-codex-turn-state": "state-1"}}
    assert said == codex.frames[0]
    assert "codex.rate_limits" == codex.kinds[1]
    assert 42.0 == codex.frames[1]["rate_limits"]["primary"]["used_percent"]
    assert "response.created" == codex.kinds[2] == other.kinds[0]


async def test_frames_bear_the_bytes_of_the_account(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    end = '"response":{"id":"resp_9","status":"completed","output":[]}'
    odd = (
        b": a comment\n\n"
        b'data: {"type":"response.created","response":{"id":"resp_9"}}\n\n'
        b'data: {"type":"response.output_text.delta",\n'
        b'data: "delta":"caf\xc3\xa9", "new": 1e2}\n\n'
        b'data: {"type":"response.new_kind","bad":"\xff"}\r\n\r\n'
        b'data: {"type":"response.completed",' + end.encode() + b"}\n\n"
        b"data: [DONE]\n\n"
    )
    upstream.next(plays.raw(odd))
    async with socket(gateway) as one:
        await one.create(input="hello")
        said = [await one.connection.recv() for _ in range(4)]
        again = await one.turn(input="hello")

    assert (
        '{"type":"response.output_text.delta",\n"delta":"café", "new": 1e2}' == said[1]
    )
    assert '{"type":"response.new_kind","bad":"\ufffd"}' == said[2]
    assert "response.created" == again.kinds[0]  # nothing came behind the ending


# --- failures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "nothing"}, 404, "model_not_found", None),
        ({"model": None}, 400, "invalid_request", "model"),
        ({"background": True}, 400, "unsupported_parameter", "background"),
        (
            {"previous_response_id": "resp_no"},
            400,
            "previous_response_not_found",
            "previous_response_id",
        ),
        ({"previous_response_id": 7}, 400, "invalid_request", "previous_response_id"),
        ({"stream_id": "a b"}, 400, "invalid_stream_id", "stream_id"),
        ({"type": "response.unknown"}, 400, "invalid_request", "type"),
        ({"type": None}, 400, "invalid_request", "type"),
    ],
)
async def test_a_mistake_is_an_error_frame_and_the_websocket_goes_on(
    gateway: Gateway, fields: dict[str, object], status: int, code: str, param: object
) -> None:
    async with socket(gateway) as one:
        await one.send({**CREATE, "input": "hello", **fields})
        failed = await one.rest()
        well = await one.turn(input="hello")

    assert ["error"] == failed.kinds
    assert (status, code, param) == (
        failed.last["status"],
        failed.error["code"],
        failed.error["param"],
    )
    assert "response.completed" == well.last["type"]
    line = await gateway.log.wait_finished(failed.request_id)
    assert ("refused", "client", status) == (
        line["outcome"],
        line["origin"],
        line["status"],
    )


@pytest.mark.parametrize(
    "message", ["", "garbage", "[]", "null", '{"type":', b"{}", '"' + "x" * 5000]
)
async def test_garbage_is_an_error_frame(
    gateway: Gateway, message: str | bytes
) -> None:
    async with socket(gateway) as one:
        await one.send(message)
        failed = await one.rest()
        well = await one.turn(input="hello")

    assert (400, "invalid_request") == (failed.last["status"], failed.error["code"])
    assert "response.completed" == well.last["type"]


@pytest.mark.parametrize("headers", [CODEX, {}], ids=["codex", "other"])
async def test_a_refusal_has_words_status_and_wait(
    serve: Serve, upstream: ScriptedUpstream, headers: dict[str, str]
) -> None:
    """Codex shows the words of response.failed alone."""
    gateway = await serve(users=[user("alice", max_concurrent=1, max_queued=1)])
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway, headers=headers) as one:
        await one.create(input="hello", stream_id="a")
        await upstream.wait_for(1)
        await one.create(input="hello", stream_id="b")
        await gateway.inside.waiting("alice", 1)
        failed = await one.turn(input="hello")
        gate.set()
        await one.rest("a")
        await one.rest("b")

    wait = {"retry-after": "1"}
    if headers:
        assert ["response.failed"] == failed.kinds
        assert wait.keys() == failed.last["response"]["error"]["headers"].keys()
    else:
        assert ["error"] == failed.kinds and 429 == failed.last["status"]
        assert wait.keys() == failed.last["headers"].keys()
    assert "rate_limit_exceeded" == failed.error["code"]
    assert "Concurrency limit exceeded for user" in failed.error["message"]
    line = await gateway.log.wait_finished(failed.request_id)
    assert ("refused", "queue_full", 429) == (
        line["outcome"],
        line["error_code"],
        line["status"],
    )


@each_protocol
@pytest.mark.parametrize("headers", [CODEX, {}], ids=["codex", "other"])
async def test_an_account_that_dies_mid_stream(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, headers: dict[str, str]
) -> None:
    upstream.next(plays.cut(2))
    async with socket(gateway, headers=headers) as one:
        failed = await one.turn(model=f"{protocol}-a", input="hello")
        well = await one.turn(model=f"{protocol}-a", input="hello")

    assert 1 == sum(kind in ("response.failed", "error") for kind in failed.kinds)
    assert "response.failed" == failed.last["type"]
    assert failed.frames[0]["response"]["id"] == failed.id
    assert "upstream_error" == failed.error["code"]
    assert "response.completed" == well.last["type"]
    line = await gateway.log.wait_finished(failed.request_id)
    assert ("failed", "upstream", 200) == (
        line["outcome"],
        line["origin"],
        line["status"],
    )


async def test_an_account_that_fails_before_its_output_is_not_noticed(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = [account(upstream, f"responses-{n}", priority=n) for n in (1, 2)]
    gateway = await serve(accounts=rows)
    upstream.always(
        plays.failed("server_is_overloaded", deltas=0), account="responses-1"
    )
    async with socket(gateway) as one:
        turn = await one.turn(input="hello")

    assert "response.completed" == turn.last["type"]
    assert 1 == turn.kinds.count("response.created")
    (line,) = await gateway.log.wait_events("request.finished")
    assert ("ok", 2, "responses-2") == (
        line["outcome"],
        line["attempts"],
        line["account"],
    )


async def test_the_metric_counts_what_is_open(gateway: Gateway) -> None:
    async def count() -> str:
        reply = await gateway.client().send("/metrics", method="GET")
        text = reply.body.decode()
        return next(
            line
            for line in text.splitlines()
            if line.startswith("gateway_websockets_open ")
        )

    async with socket(gateway) as one, socket(gateway) as two:
        await one.turn(input="hello")
        await two.turn(input="hello")
        assert (await count()).endswith(" 2.0")
    await gateway.log.wait_events("websocket.closed", 2)
    assert (await count()).endswith(" 0.0")
