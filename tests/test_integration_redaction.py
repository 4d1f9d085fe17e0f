"""
Whatever an upstream, a proxy or a client says: no key and no prompt is written down.

Upstreams quote what they were sent in every place in which they can say something.
Then log, ledger and the client's answer are searched.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, plays
from tests.kit.asking import PATHS, Reply
from tests.kit.badly import connect
from tests.kit.gateway import Gateway
from tests.kit.logs import Log
from tests.kit.scripted import Exchange, Play, ScriptedUpstream
from tests.kit.settings import account, key_of

PROMPT = "say something"  # what every question of the kit asks
PASSWORD = "hunter2:with/signs"

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


# --- what an upstream may say ---------------------------------------------------------


def quoting(exchange: Exchange) -> str:
    """All that an upstream knows of a request, in one sentence."""
    request = exchange.request
    auth = request.headers.get("authorization") or request.headers["x-api-key"]
    encoded = base64.b64encode(f"user:{auth.split()[-1]}".encode()).decode()
    return f"no {auth} nor Basic {encoded} may ask {request.body.decode()}"


def refusal(status: int, *, code: bool = False) -> Play:
    """An error status that quotes in its message or, too, in its code."""

    async def play(exchange: Exchange) -> None:
        said = quoting(exchange)
        error = {"message": said, "type": "api_error", "code": None, "param": None}
        if code:
            error |= {"code": said, "type": said}
        document: dict[str, Any] = {"error": error}
        if exchange.request.protocol == "messages":
            document = {"type": "error", **document}
        await exchange.reply(status, json.dumps(document).encode())

    return play


def text(status: int, kind: str) -> Play:
    async def play(exchange: Exchange) -> None:
        body = quoting(exchange).encode()
        await exchange.reply(status, body, {"content-type": kind})

    return play


def stated(deltas: int) -> Play:
    """200, and a failure in the stream, or in the body."""

    async def play(exchange: Exchange) -> None:
        request, said = exchange.request, quoting(exchange)
        if not request.json.get("stream"):
            document: dict[str, Any] = {
                "error": {"message": said, "code": "server_error"}
            }
            if request.protocol == "responses":
                document |= {"object": "response", "status": "failed", "output": []}
            if request.protocol == "messages":
                document["type"] = "error"
            return await exchange.reply(200, json.dumps(document).encode())
        await plays.begun(exchange, deltas)
        await exchange.send(plays.failure(request.protocol, "server_error", said))
        await exchange.end()

    return play


def passed(exchange_code: str) -> Play:
    """A client's own mistake in the stream, which passes to the client."""

    async def play(exchange: Exchange) -> None:
        request, said = exchange.request, quoting(exchange)
        if not request.json.get("stream"):
            document = {"error": {"message": said, "code": exchange_code}}
            return await exchange.reply(400, json.dumps(document).encode())
        await plays.begin(exchange, 0)
        await exchange.send(plays.failure(request.protocol, exchange_code, said))
        await exchange.end()

    return play


def bytes_of(template: str) -> Play:
    """Something that is no HTTP, or breaks it in the middle."""

    async def play(exchange: Exchange) -> None:
        said = quoting(exchange).replace("\n", " ")
        await exchange._wire.write(template.format(said).encode())
        exchange.close()

    return play


def head(name: str) -> Play:
    """A good answer whose head quotes the key."""

    async def play(exchange: Exchange) -> None:
        auth = exchange.request.headers.get("authorization", "Bearer none")
        key = auth.split()[-1]
        await plays.ok(headers={name: f"req-{key}"})(exchange)

    return play


UPSTREAM: dict[str, Play] = {
    **{f"status-{code}": refusal(code) for code in (400, 401, 403, 404, 409, 422)},
    **{f"status-{code}": refusal(code) for code in (402, 429, 500, 503, 529)},
    "in-the-code-400": refusal(400, code=True),
    "in-the-code-500": refusal(500, code=True),
    "a-text-500": text(500, "text/plain"),
    "a-text-400": text(400, "text/plain"),
    "a-page-403": text(403, "text/html"),
    "a-text-200": text(200, "text/plain"),
    "failed-at-once": stated(-1),
    "failed-in-the-preamble": stated(0),
    "failed-within-the-answer": stated(2),
    "passed-on": passed("context_length_exceeded"),
    "no-http": bytes_of("{}\r\n\r\n"),
    "status-line": bytes_of("HTTP/1.1 {} X\r\n\r\n"),
    "reason": bytes_of("HTTP/1.1 500 {}\r\ncontent-length: 0\r\n\r\n"),
    "header": bytes_of("HTTP/1.1 200 OK\r\nbad header {}\r\n\r\n"),
    "content-encoding": bytes_of("HTTP/1.1 200 OK\r\ncontent-encoding: {}\r\n\r\n"),
    "chunk": bytes_of("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}\r\n"),
    "its-own-id": head("x-request-id"),
}


def ledger_text(folder: Path) -> str:
    """
    Everything that the ledger of a gateway in *folder* holds, but for stored turns,
    which are the conversation that a client may continue.
    """
    connection = sqlite3.connect(folder / "gateway.db")
    try:
        lines = list(connection.iterdump())
    finally:
        connection.close()
    return "\n".join(line for line in lines if 'INTO "response"' not in line)


def forms_of(secret: str) -> list[str]:
    encoded = base64.b64encode(f"user:{secret}".encode()).decode()
    return [secret, encoded, encoded.rstrip("=")[6:-2]]


async def unsaid(gateway: Gateway, folder: Path, *secrets: str) -> None:
    """No secret and no prompt stands in log or ledger."""
    # The ledger writes in order: behind this row nothing from before is missing.
    await gateway.client("bob").ask("chat", "chat-last")
    await gateway.log.each_finished_once(gateway.client("bob").asked)
    places = ["\n".join(gateway.log.text), ledger_text(folder)]
    for secret in (*secrets, key_of("alice"), key_of("bob")):
        for form in forms_of(secret):
            assert not [where for where in places if form in where], form
    for where in places:
        assert PROMPT not in where


@pytest.mark.parametrize("play", UPSTREAM)
async def test_nothing_that_an_upstream_quotes_is_written_down(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, play: str
) -> None:
    """
    Nor does a client read an account's key: in each protocol, stream and whole, on an
    account of the same protocol and of another. Each has an account of its own, since
    one that failed is left alone.
    """
    asks = [
        (protocol, stream, f"{spoken}-{protocol}-{stream}".lower())
        for protocol in answers.PROTOCOLS
        for stream in (True, False)
        for spoken in ("responses", "messages")
    ]
    rows = [account(upstream, name, models=[name]) for *_, name in asks]
    gateway = await serve(accounts=[*rows, account(upstream, "chat")])

    async def ask(protocol: str, stream: bool, name: str) -> None:
        upstream.always(UPSTREAM[play], account=name)
        reply = await gateway.client().ask(protocol, name, stream=stream)
        await gateway.finished(reply)
        for form in forms_of(f"sk-{name}"):
            assert form.encode() not in reply.body
            assert form not in str(reply.headers)

    await asyncio.gather(*(ask(*one) for one in asks))
    assert len(asks) <= len(upstream.received())
    await unsaid(gateway, tmp_path, *(f"sk-{name}" for *_, name in asks))


async def test_an_error_that_quotes_no_secret_passes_byte_for_byte(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve()
    said = b'{"error": {"message":"Invalid value",  "type":"invalid_request_error"}}'

    async def play(exchange: Exchange) -> None:
        await exchange.reply(400, said)

    upstream.next(play)
    reply = await gateway.client().ask("chat", "chat-x")

    assert said == reply.body


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/resp_x"])
async def test_side_doors_tell_no_secret_either(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, path: str
) -> None:
    gateway = await serve()
    if "resp_" in path:
        made = await gateway.client().ask("responses", "responses-x")
        path = path.replace("resp_x", made.last.json["response"]["id"])
    method = "GET" if "resp_" in path else "POST"
    for name in ("messages", "responses"):
        upstream.next(refusal(400), account=name)
    said = [{"role": "user", "content": PROMPT}]
    body = {"model": "messages-x", "messages": said}
    data = json.dumps(body) if method == "POST" else None
    reply = await gateway.client().send(path, data, method=method)

    assert 400 == reply.status
    assert b"sk-" not in reply.body
    await unsaid(gateway, tmp_path, "sk-responses", "sk-messages")


# --- what a proxy may say -------------------------------------------------------------


@asynccontextmanager
async def proxy(answer: Callable[[str], str]) -> AsyncIterator[int]:
    """A proxy that refuses everybody, quoting what it was sent; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [one for one in asked.split("\r\n") if "roxy-" in one]
        writer.write(answer("".join(lines)).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "template",
    [
        "HTTP/1.1 407 {}\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 407 Proxy\r\nx-said: {}\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 502 {}\r\ncontent-length: 0\r\n\r\n",
        "{}\r\n\r\n",
    ],
    ids=["reason", "header", "status-502", "no-http"],
)
async def test_a_proxys_password_is_written_nowhere(
    serve: Serve,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    template: str,
) -> None:
    async with proxy(template.format) as port:
        userinfo = "user:" + PASSWORD.replace(":", "%3A").replace("/", "%2F")
        url = f"http://{userinfo}@127.0.0.1:{port}"
        monkeypatch.setenv(f"{scheme}_proxy", url)
        there = account(upstream, "chat") | {"base_url": f"{scheme}://there.invalid/v1"}
        gateway = await serve(accounts=[there])
        reply = await gateway.client().ask("chat", "chat-x")

        assert reply.status in (502, 503)
        await unsaid(gateway, tmp_path, PASSWORD)
        assert PASSWORD.encode() not in reply.body


# --- what a client may say ------------------------------------------------------------

HEADS = {
    "malformed-header": "authorization: Bearer {key}\r\nbad header {key}: x",
    "key-in-the-name": "{key} {key}: x",
    "control-character": "authorization: Bearer {key}\x01",
    "no-colon": "authorization Bearer {key}",
    "folded": "authorization: Bearer\r\n {key}\x00",
    "length-no-number": "content-length: {key}",
    "unknown-coding": "transfer-encoding: {key}",
}


@each_protocol
@pytest.mark.parametrize("name", HEADS)
async def test_a_key_in_a_malformed_head_is_not_logged(
    serve: Serve, tmp_path: Path, protocol: str, name: str
) -> None:
    gateway = await serve()
    for key in ("gw-" + "k" * 43, "unusual-key-of-alice"):
        reader, writer = await connect(gateway)
        lines = HEADS[name].format(key=key)
        head = f"POST {PATHS[protocol]} HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n"
        writer.write(head.encode())
        writer.write_eof()
        await reader.read()
        writer.close()
        await unsaid(gateway, tmp_path, key)


@pytest.mark.parametrize("line", ["{key}", "GET {key} HTTP/1.1 x", "{key} / HTTP/1.1"])
async def test_a_key_in_a_malformed_request_line_is_not_logged(
    serve: Serve, tmp_path: Path, line: str
) -> None:
    gateway = await serve()
    for key in ("gw-" + "k" * 43, "unusual-key-of-alice"):
        reader, writer = await connect(gateway)
        writer.write((line.format(key=key) + "\r\n\r\n").encode())
        writer.write_eof()
        await reader.read()
        writer.close()
        await unsaid(gateway, tmp_path, key)


@each_protocol
async def test_a_key_in_the_wrong_place_is_not_logged(
    serve: Serve, tmp_path: Path, protocol: str
) -> None:
    """As the model, the session, the request's id."""
    gateway = await serve()
    key = "gw-" + "aB3_-x" * 7 + "z"
    client = gateway.client()
    headers = {"session-id": key, "x-claude-code-session-id": key}
    replies: list[Reply] = [
        await client.ask(protocol, f"{protocol}-{key}", headers=headers),
        await client.ask(protocol, key, headers=headers),
        await client.ask(protocol, f"{protocol}-x", prompt_cache_key=key),
    ]
    for reply in replies:
        await gateway.finished(reply)
    asked = len(client.asked)
    reply = await client.ask(protocol, f"{protocol}-x", headers={"x-request-id": key})
    del client.asked[asked:]  # it is known by another id

    assert 200 == reply.status
    assert key != reply.request_id
    await unsaid(gateway, tmp_path, key)


@each_protocol
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model": "x", "input": say something}', id="malformed"),
        pytest.param(b"say something", id="no-json"),
        pytest.param(b'{"say something": "\xff', id="no-text"),
    ],
)
async def test_a_body_that_cannot_be_read_is_not_quoted(
    serve: Serve, tmp_path: Path, protocol: str, body: bytes
) -> None:
    gateway = await serve()
    reply = await gateway.client().send(PATHS[protocol], body)

    assert 400 == reply.status
    await unsaid(gateway, tmp_path)


async def test_a_bug_shows_no_values(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback says where; what the exception says may be anybody's."""
    from gateway.relay.failover import Relay

    async def run(self: Relay, turn: Any, *rest: Any) -> None:
        try:
            raise KeyError(turn.ask.document)
        except KeyError as error:
            raise ValueError(turn.ask.data.decode(), "sk-chat") from error

    gateway = await serve()
    monkeypatch.setattr(Relay, "run", run)
    reply = await gateway.client().ask("chat", "chat-x", stream=False)
    line = await gateway.finished(reply)
    [crash] = gateway.log.events("request.crashed")

    assert (500, "internal_error") == (reply.status, line["error_code"])
    assert "KeyError" in crash["exception"] and "ValueError" in crash["exception"]
    assert "test_integration_redaction.py" in crash["exception"]
    assert "own_words" not in crash
    written = "\n".join(gateway.log.text) + ledger_text(tmp_path)
    for secret in (PROMPT, "sk-chat"):
        assert secret not in written
        assert secret.encode() not in reply.body
    gateway.process.log = Log()  # the crash was wanted
    gateway.clients.clear()
