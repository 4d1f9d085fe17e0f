"""Heads of requests: their time, their size, their form; and all forms of a path."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from gateway.client import connection as client_connection
from gateway.client.connection import MAX_FIELDS, MAX_LINE_BYTES
from gateway.daemon import http_server
from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.asking import PATHS, Client, question
from tests.kit.badly import connect, raw_head, wrong
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import key_of

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def connection(gateway: Gateway) -> AsyncIterator[Connection]:
    reader, writer = await connect(gateway)
    yield reader, writer
    writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of the next answer on a connection."""
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, json.loads(body)


def check_form(protocol: str, answer: Any, request_id: str) -> None:
    """*answer* is an error in the form of *protocol* that names its request."""
    assert ("error" == answer.get("type")) == (protocol == "messages")
    assert "invalid_request_error" == answer["error"]["type"]
    assert answer["error"]["message"].endswith(f" (request id: {request_id})")


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed."""
    async with asyncio.timeout(20):
        return await reader.read(-1)


# --- time ---


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "HEAD_TIMEOUT_S", 0.3)
    # A loop that was late is given time; here lateness is what the machine makes it.
    monkeypatch.setattr(client_connection, "grace_until", lambda now, due: 0.0)


@each_protocol
async def test_a_half_sent_head_is_a_408_in_the_protocols_form(
    hasty: None, gateway: Gateway, connection: Connection, protocol: str
) -> None:
    reader, writer = connection
    writer.write(raw_head(protocol, gateway, "a: b", "half-a-head").rstrip(b"\r\n"))

    status, headers, answer = await read_answer(reader)

    assert (408, "half-a-head") == (status, headers["x-request-id"])
    check_form(protocol, answer, "half-a-head")
    assert b"" == await ended(reader)
    line = await gateway.log.wait_finished("half-a-head")
    assert ("refused", "client", "request_timeout", 408) == (
        line["outcome"],
        line["origin"],
        line["error_code"],
        line["status"],
    )


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"POST", b"POST /v1/mess"])
async def test_a_head_without_a_path_is_closed(
    hasty: None, gateway: Gateway, connection: Connection, sent: bytes
) -> None:
    reader, writer = connection
    writer.write(sent)

    assert b"" == await ended(reader)


async def test_a_head_that_drips_has_no_more_time(
    hasty: None, gateway: Gateway, connection: Connection
) -> None:
    reader, writer = connection
    head = raw_head("chat", gateway, "a: b", "dripping-head")

    async def drip() -> None:
        writer.write(head[:60])
        for byte in head[60:-2]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    status, _, _ = await read_answer(reader)
    assert not dripping.done()
    dripping.cancel()

    assert 408 == status


async def test_a_half_sent_head_on_a_kept_connection_is_a_408(
    gateway: Gateway, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = connection
    body = wrong("chat", stream=False)
    head = raw_head("chat", gateway, f"content-length: {len(body)}", "the-first-one")
    writer.write(head + body)
    assert 200 == (await read_answer(reader))[0]
    monkeypatch.setattr(client_connection, "HEAD_TIMEOUT_S", 0.2)
    writer.write(raw_head("messages", gateway, "a: b", "the-second-one")[:-2])

    status, headers, answer = await read_answer(reader)

    assert (408, "the-second-one") == (status, headers["x-request-id"])
    check_form("messages", answer, "the-second-one")


async def test_a_half_sent_head_waits_for_the_answer_before_it(
    hasty: None, gateway: Gateway, upstream: ScriptedUpstream, connection: Connection
) -> None:
    """An answer that runs is not disturbed; then the connection is closed."""
    reader, writer = connection
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    body = json.dumps(question("chat", "chat-x")).encode()
    head = raw_head("chat", gateway, f"content-length: {len(body)}", "the-first-one")
    writer.write(head + body)
    await reader.readuntil(b"data: ")
    writer.write(raw_head("chat", gateway, "a: b")[:-2])
    await asyncio.sleep(0.6)
    gate.set()

    rest = await ended(reader)

    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_body_is_no_head(
    hasty: None, gateway: Gateway, connection: Connection
) -> None:
    """A slow body, however it is cut, has its own time."""
    reader, writer = connection
    body = wrong("chat", stream=False)
    writer.write(raw_head("chat", gateway, f"content-length: {len(body)}"))
    for i in range(0, len(body), 20):
        writer.write(body[i : i + 20])
        await asyncio.sleep(0.15)

    assert 200 == (await read_answer(reader))[0]


async def test_an_idle_connection_lives_minutes_and_then_ends(
    gateway: Gateway, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 60 < http_server.IDLE_TIMEOUT_S <= 600
    [server] = [components_of(gateway.inside.app)]
    reader, writer = connection
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert 200 == (await read_answer(reader))[0]
    assert server

    monkeypatch.setattr(http_server, "IDLE_TIMEOUT_S", 0.2)
    other, second = await connect(gateway)
    second.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert 200 == (await read_answer(other))[0]

    assert b"" == await ended(other)
    second.close()


# --- size ---


async def test_a_turn_state_of_12_kb_comes_back_up(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """What an upstream gave its client through us must pass when it comes back."""
    state = "s" * 12_000
    upstream.next(plays.ok(headers={"x-codex-turn-state": state}))
    async with aiohttp.ClientSession(max_field_size=20_000) as session:
        client = Client(gateway.base_url, key_of("alice"), session)
        mine = {"session-id": "the-session"}
        first = await client.ask("responses", "responses-x", headers=mine)
        given = first.headers["x-codex-turn-state"]

        headers = {"x-codex-turn-state": given, **mine}
        reply = await client.ask("responses", "responses-x", headers=headers)

    assert state == given
    endings.whole("responses", reply)
    assert state == upstream.received()[1].headers["x-codex-turn-state"]


async def test_two_hundred_headers_are_taken(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    headers = {f"x-codex-{n}": "x" * 200 for n in range(200)}

    endings.whole(
        "responses",
        await gateway.client().ask("responses", "responses-x", headers=headers),
    )

    sent = upstream.received()[0].headers
    assert [] == [name for name in headers if name not in sent]


LARGE: list[Any] = [
    pytest.param(lambda: "x-a: " + "y" * (MAX_LINE_BYTES + 1), id="line"),
    pytest.param(lambda: "y" * (MAX_LINE_BYTES + 1) + ": x", id="name"),
    pytest.param(
        lambda: "\r\n".join(f"x-{n}: y" for n in range(MAX_FIELDS)), id="fields"
    ),
    pytest.param(
        lambda: "\r\n".join(f"x-{n}: " + "y" * 60_000 for n in range(20)), id="head"
    ),
]


@each_protocol
@pytest.mark.parametrize("lines", LARGE)
async def test_a_head_that_is_too_large_is_a_431_in_the_protocols_form(
    strict: Gateway, protocol: str, lines: Callable[[], str]
) -> None:
    reader, writer = await connect(strict)
    writer.write(raw_head(protocol, strict, lines(), "too-large-head"))

    status, headers, answer = await read_answer(reader)

    assert (431, "too-large-head") == (status, headers["x-request-id"])
    check_form(protocol, answer, "too-large-head")
    assert str(MAX_LINE_BYTES) in answer["error"]["message"]
    assert b"" == await ended(reader)
    writer.close()
    line = await strict.log.wait_finished("too-large-head")
    assert ("refused", "head_too_large", 431) == (
        line["outcome"],
        line["error_code"],
        line["status"],
    )


async def test_a_target_that_is_too_long_is_a_431(strict: Gateway) -> None:
    reader, writer = await connect(strict)
    head = raw_head("chat", strict, "a: b")
    writer.write(head.replace(b" HTTP", b"?x=" + b"y" * MAX_LINE_BYTES + b" HTTP", 1))

    status, headers, answer = await read_answer(reader)
    writer.close()

    assert 431 == status
    check_form("chat", answer, headers["x-request-id"])


async def test_who_still_sends_its_head_gets_to_see_the_answer(
    strict: Gateway,
) -> None:
    """Several megabytes behind the limit: the connection is not reset under it."""
    reader, writer = await connect(strict)
    writer.write(raw_head("chat", strict, "a: b", "endless-head")[:-2])
    for n in range(60):
        writer.write(b"x-%d: " % n + b"y" * 60_000 + b"\r\n")
        await writer.drain()

    assert 431 == (await read_answer(reader))[0]
    assert b"" == await ended(reader)
    writer.close()


# --- form ---


MALFORMED = [
    pytest.param("no colon", id="no-colon"),
    pytest.param("bad name : x", id="space-in-name"),
    pytest.param("x-a: \x00", id="nul"),
    pytest.param("content-length: many", id="length-in-words"),
    pytest.param("content-length: 5\r\ncontent-length: 6", id="two-lengths"),
    pytest.param("content-length: 5\r\ntransfer-encoding: chunked", id="both"),
    pytest.param("host: again", id="two-hosts"),
    pytest.param("transfer-encoding: gzip", id="coding"),
]


@each_protocol
@pytest.mark.parametrize("lines", MALFORMED)
async def test_a_malformed_head_is_a_400_in_the_protocols_form(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str, lines: str
) -> None:
    secret = "gw-a-key-in-a-broken-line"
    reader, writer = await connect(strict)
    head = raw_head(protocol, strict, f"{lines}\r\nx-k {secret}", "malformed-head")
    writer.write(head)

    status, headers, answer = await read_answer(reader)
    writer.close()

    assert (400, "malformed-head") == (status, headers["x-request-id"])
    assert "application/json" in headers["content-type"]
    check_form(protocol, answer, "malformed-head")
    line = await strict.log.wait_finished("malformed-head")
    assert ("refused", "client", "invalid_request") == (
        line["outcome"],
        line["origin"],
        line["error_code"],
    )
    assert [] == strict.log.grep(secret) and secret not in str(answer)
    assert [] == upstream.received()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="tls"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="ssh"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
        pytest.param(b"GET /healthz HTTP/3.0\r\nhost: x\r\n\r\n", id="version"),
        pytest.param(b"NOT-A-METHOD / HTTP/1.1\r\nhost: x\r\n\r\n", id="method"),
        pytest.param(b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n", id="target"),
    ],
)
async def test_another_protocol_gets_an_answer_that_says_so(
    strict: Gateway, sent: bytes
) -> None:
    reader, writer = await connect(strict)
    writer.write(sent)

    status, headers, answer = await read_answer(reader)
    writer.close()

    assert 400 == status
    check_form("responses", answer, headers["x-request-id"])
    assert strict.log.grep(headers["x-request-id"])


async def test_a_request_behind_a_malformed_one_is_not_served(
    gateway: Gateway, connection: Connection
) -> None:
    reader, writer = connection
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n")
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    everything = await ended(reader)

    assert 1 == len(re.findall(rb"HTTP/1.\d 400 ", everything))


# --- paths ---


WRITTEN = ["/v1/v1{}", "//v1{}", "/v1/{}", "/v1{}/", "//{}//", "/v1//v1/{}///?x=a//b"]


@each_protocol
@pytest.mark.parametrize("form", WRITTEN)
async def test_every_form_of_a_models_path_is_served(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, form: str
) -> None:
    path = form.format(PATHS[protocol].removeprefix("/v1"))
    url = gateway.base_url + path
    headers = {"authorization": f"Bearer {key_of('alice')}"}
    session = gateway.client().session

    async with session.post(url, data=wrong(protocol), headers=headers) as response:
        assert 200 == response.status
        await response.read()

    sent = upstream.received()[0]
    assert PATHS[protocol].removeprefix("/v1") == sent.path.removeprefix("/v1")
    assert ("x=a//b" if "?" in form else "") == sent.query


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/models"),
        ("GET", "/models/trial"),
        ("POST", "/messages/count_tokens"),
        ("GET", "/responses/resp_none"),
    ],
)
async def test_every_form_of_a_side_path_is_found(
    gateway: Gateway, method: str, path: str, form: str
) -> None:
    data = wrong("messages", model="trial") if method == "POST" else None
    target = form.format(path)

    reply = await gateway.client().send(target, data, method=method)

    if "none" in path:
        assert 404 == reply.status and b"resp_none" in reply.body
    else:
        assert 200 == reply.status


@pytest.mark.parametrize("path", ["/healthz/", "//readyz", "/metrics//"])
async def test_every_form_of_a_status_path_is_found(
    gateway: Gateway, path: str
) -> None:
    assert 200 == (await gateway.client().send(path, method="GET")).status


@pytest.mark.parametrize(
    ("target", "expected"), [("OPTIONS *", 404), ("CONNECT example.com:443", 405)]
)
async def test_targets_without_a_path_get_an_answer_in_our_form(
    strict: Gateway, target: str, expected: int
) -> None:
    reader, writer = await connect(strict)
    writer.write(f"{target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())

    status, headers, answer = await read_answer(reader)
    writer.close()

    assert expected == status
    check_form("responses", answer, headers["x-request-id"])


async def test_a_stop_is_not_held_by_half_sent_heads_and_bodies(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(daemon=True)
    head = raw_head("chat", gateway, "content-length: 5000", "half-a-body-sent")
    _, half_head = await connect(gateway)
    half_head.write(head[:-2])
    reader, half_body = await connect(gateway)
    half_body.write(head + b"{")
    idle, kept = await connect(gateway)
    kept.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    await read_answer(idle)

    gateway.daemon.terminate()
    status, headers, _ = await read_answer(reader)

    assert 0 == await gateway.daemon.exited(20.0)  # and not after the drain's 600 s
    assert (503, "close") == (status, headers["connection"])
    for writer in (half_head, half_body, kept):
        writer.close()
