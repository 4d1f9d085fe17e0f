"""
What a client can send wrongly: a clear 4xx in its protocol's form that names the field.

Never a 500, never a dead process, never another user's trouble: each test ends with a
good request on the same gateway, and none of the bad ones reaches an account.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backports import zstd

from tests.conftest import Serve
from tests.kit import answers, endings
from tests.kit.asking import PATHS, question
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import key_of

MAX_BODY_BYTES = 1_000_000

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@pytest.fixture
async def strict(serve: Serve, upstream: ScriptedUpstream) -> AsyncIterator[Gateway]:
    """A gateway that must serve well after whatever the test did to it."""
    gateway = await serve(server={"max_body_bytes": MAX_BODY_BYTES})
    yield gateway
    upstream.requests.clear()
    endings.whole("chat", await gateway.client("bob").ask("chat", "chat-after"))
    assert 1 == len(upstream.received())


def wrong(protocol: str, **fields: Any) -> bytes:
    body = {**question(protocol, f"{protocol}-x"), **fields}
    return json.dumps({k: v for k, v in body.items() if v is not ...}).encode()


DEEP = 10_000
BODIES: list[Any] = [
    # body, what the message must name
    pytest.param(lambda p: b"", "body", id="empty"),
    pytest.param(lambda p: b"   \n", "body", id="blank"),
    pytest.param(lambda p: b"{", "JSON", id="half-an-object"),
    pytest.param(lambda p: b"nonsense", "JSON", id="no-json"),
    pytest.param(lambda p: wrong(p) + b"}", "JSON", id="something-behind"),
    pytest.param(lambda p: b"\xff\xfe{}", "JSON", id="not-utf-8"),
    pytest.param(lambda p: b'{"model":"\xff"}', "JSON", id="not-utf-8-inside"),
    pytest.param(lambda p: b"[]", "object", id="a-list"),
    pytest.param(lambda p: b'"text"', "object", id="a-string"),
    pytest.param(lambda p: b"null", "object", id="null"),
    pytest.param(lambda p: b"[" * DEEP + b"]" * DEEP, "JSON", id="nested-lists"),
    pytest.param(
        lambda p: b'{"a":' * DEEP + b"1" + b"}" * DEEP, "JSON", id="nested-objects"
    ),
    pytest.param(lambda p: wrong(p, model=...), "model", id="no-model"),
    pytest.param(lambda p: wrong(p, model=None), "model", id="model-null"),
    pytest.param(lambda p: wrong(p, model=5), "model", id="model-number"),
    pytest.param(lambda p: wrong(p, model=["a"]), "model", id="model-list"),
    pytest.param(lambda p: wrong(p, model={"a": 1}), "model", id="model-object"),
    pytest.param(lambda p: wrong(p, model=""), "model", id="model-empty"),
    pytest.param(lambda p: wrong(p, stream="true"), "stream", id="stream-text"),
    pytest.param(lambda p: wrong(p, stream=1), "stream", id="stream-number"),
    pytest.param(lambda p: wrong(p, stream=[]), "stream", id="stream-list"),
]


@each_protocol
@pytest.mark.parametrize("body, names", BODIES)
async def test_a_wrong_body_is_a_400_that_names_the_field(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str, body: Any, names: str
) -> None:
    reply = await strict.client().send(PATHS[protocol], body(protocol))

    told = endings.before(protocol, reply)
    assert (400, "invalid_request_error") == (reply.status, told.type)
    assert names in told.message
    if protocol != "messages" and names in ("model", "stream"):
        assert names == reply.json["error"]["param"]
    line = await strict.explained(reply)
    assert ("refused", "client", 400) == (
        line["outcome"],
        line["origin"],
        line["status"],
    )
    assert [] == upstream.received()


@each_protocol
async def test_stream_null_means_no_stream(strict: Gateway, protocol: str) -> None:
    """As the vendors' own endpoints take it."""
    reply = await strict.client().send(PATHS[protocol], wrong(protocol, stream=None))

    assert reply.status in (200, 400)
    if reply.status == 400:
        assert "stream" in endings.before(protocol, reply).message


# --- size and encoding ---


@each_protocol
async def test_a_body_too_large_is_a_413_that_names_the_limit(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    data = wrong(protocol, padding="x" * MAX_BODY_BYTES)

    reply = await strict.client().send(PATHS[protocol], data)

    told = endings.before(protocol, reply)
    assert (413, "invalid_request_error") == (reply.status, told.type)
    assert str(MAX_BODY_BYTES) in told.message
    assert [] == upstream.received()
    await strict.explained(reply)


@each_protocol
async def test_a_hundred_megabytes_are_not_read(strict: Gateway, protocol: str) -> None:
    """Refused by what the length says; the client is told before it has sent it all."""
    head = raw_head(protocol, strict, "content-length: 104857600")
    reader, writer = await connect(strict)
    writer.write(head + b'{"model":"' + b"x" * 100_000)
    status = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert b" 413 " in status


@each_protocol
async def test_chunks_without_end_are_not_read(strict: Gateway, protocol: str) -> None:
    head = raw_head(protocol, strict, "transfer-encoding: chunked")
    reader, writer = await connect(strict)
    writer.write(head)
    chunk = b"%x\r\n%b\r\n" % (65536, b" " * 65536)
    for _ in range(MAX_BODY_BYTES // 65536 + 2):
        writer.write(chunk)
    status = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert b" 413 " in status


ENCODINGS: list[Any] = [
    pytest.param("gzip", gzip.compress, id="gzip"),
    pytest.param("zstd", zstd.compress, id="zstd"),
]


@each_protocol
@pytest.mark.parametrize("name, compress", ENCODINGS)
async def test_a_compressed_body_is_read(
    strict: Gateway, protocol: str, name: str, compress: Any
) -> None:
    data = compress(wrong(protocol))

    reply = await strict.client().send(
        PATHS[protocol], data, headers={"content-encoding": name}
    )

    endings.whole(protocol, reply)


@each_protocol
@pytest.mark.parametrize("name, compress", ENCODINGS)
async def test_a_bomb_is_a_413(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str, name: str, compress: Any
) -> None:
    data = compress(wrong(protocol, padding="x" * 30_000_000))
    assert len(data) < MAX_BODY_BYTES

    reply = await strict.client().send(
        PATHS[protocol], data, headers={"content-encoding": name}
    )

    assert 413 == reply.status
    assert str(MAX_BODY_BYTES) in endings.before(protocol, reply).message
    assert [] == upstream.received()


LIES: list[Any] = [
    pytest.param("gzip", lambda data: data, id="gzip-that-is-plain"),
    pytest.param("zstd", lambda data: data, id="zstd-that-is-plain"),
    pytest.param("gzip", lambda data: gzip.compress(data)[:-12], id="gzip-cut"),
    pytest.param("zstd", lambda data: zstd.compress(data)[:-4], id="zstd-cut"),
    pytest.param("zstd", gzip.compress, id="zstd-that-is-gzip"),
    pytest.param("br", lambda data: data, id="brotli"),
    pytest.param("rot13", lambda data: data, id="unknown"),
    pytest.param("gzip, zstd", zlib.compress, id="two"),
]


@each_protocol
@pytest.mark.parametrize("name, lie", LIES)
async def test_a_body_that_lies_about_its_encoding(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str, name: str, lie: Any
) -> None:
    reply = await strict.client().send(
        PATHS[protocol], lie(wrong(protocol)), headers={"content-encoding": name}
    )

    told = endings.before(protocol, reply)
    assert reply.status in (400, 415)
    assert "invalid_request_error" == told.type
    assert "encoding" in told.message or name in told.message
    assert [] == upstream.received()
    await strict.explained(reply)


@each_protocol
async def test_a_body_shorter_than_it_says(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Whoever promises more and leaves is gone; nothing is sent on."""
    reader, writer = await connect(strict)
    writer.write(raw_head(protocol, strict, "content-length: 5000") + b'{"model":')
    writer.close()
    await strict.log.wait_for(
        lambda: strict.log.events("request.finished"), "no record of who left"
    )

    assert [] == upstream.received()
    assert "client" == strict.log.events("request.finished")[0]["origin"]


BAD_HEADS = [
    pytest.param("content-length: -5", id="negative-length"),
    pytest.param("content-length: many", id="length-in-words"),
    pytest.param("content-length: 5\r\ncontent-length: 6", id="two-lengths"),
    pytest.param("content-length: 5\r\ntransfer-encoding: chunked", id="both"),
]


@each_protocol
@pytest.mark.parametrize("header", BAD_HEADS)
async def test_a_head_that_lies_about_the_length_is_a_400(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str, header: str
) -> None:
    reader, writer = await connect(strict)
    writer.write(raw_head(protocol, strict, header) + b"{}   ")
    status = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert b" 400 " in status
    assert [] == upstream.received()


TYPES = [
    pytest.param("text/plain", id="text"),
    pytest.param("application/x-www-form-urlencoded", id="form"),
    pytest.param("multipart/form-data; boundary=x", id="multipart"),
    pytest.param("nonsense", id="nonsense"),
    pytest.param("application/json; charset=latin-1", id="other-charset"),
]


@each_protocol
@pytest.mark.parametrize("kind", TYPES)
async def test_an_unknown_content_type_is_read_as_json_or_refused(
    strict: Gateway, protocol: str, kind: str
) -> None:
    """The body decides: what is JSON is served, the rest is a 400 or 415."""
    path = PATHS[protocol]
    header = {"content-type": kind}
    good = await strict.client().send(path, wrong(protocol), headers=header)
    bad = await strict.client().send(path, b"a=1&b=2", headers=header)

    assert good.status in (200, 415)
    assert bad.status in (400, 415)
    endings.before(protocol, bad)


# --- who asks, and how ---


@each_protocol
async def test_no_key_is_a_final_401(strict: Gateway, protocol: str) -> None:
    reply = await strict.client().send(
        PATHS[protocol], wrong(protocol), headers={"authorization": ""}
    )

    told = endings.before(protocol, reply)
    assert (401, "authentication_error") == (reply.status, told.type)
    assert "false" == reply.headers["x-should-retry"]
    line = await strict.explained(reply)
    assert ("refused", "client", "") == (line["outcome"], line["origin"], line["user"])


@each_protocol
@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer gw-unknown-key"},
        {"authorization": "", "x-api-key": "gw-unknown-key"},
        {"authorization": "Basic " + key_of("alice")},
        {"authorization": "Bearer"},
    ],
    ids=["bearer", "x-api-key", "basic", "bare"],
)
async def test_an_unknown_key_is_a_final_401(
    strict: Gateway, protocol: str, headers: dict[str, str]
) -> None:
    reply = await strict.client().send(
        PATHS[protocol], wrong(protocol), headers=headers
    )

    assert 401 == reply.status
    assert "authentication_error" == endings.before(protocol, reply).type
    assert "false" == reply.headers["x-should-retry"]
    assert [] == strict.log.grep("gw-unknown-key")
    await strict.explained(reply)


@each_protocol
@pytest.mark.parametrize("name", ["key", "api_key", "access_token"])
async def test_a_key_in_the_query_string_is_no_key(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str, name: str
) -> None:
    """Refused with its name, since such a key is in every log on its way here."""
    path = f"{PATHS[protocol]}?{name}={key_of('alice')}"
    for headers in ({"authorization": ""}, {}):
        reply = await strict.client().send(path, wrong(protocol), headers=headers)

        assert reply.status in (400, 401)
        if not headers:
            assert name in endings.before(protocol, reply).message
        await strict.explained(reply)

    assert [] == strict.log.grep(key_of("alice"))
    assert [] == upstream.received()


@each_protocol
async def test_a_model_that_nobody_serves_is_a_404(
    strict: Gateway, protocol: str
) -> None:
    reply = await strict.client().ask(protocol, "no-such-model")

    told = endings.before(protocol, reply)
    assert 404 == reply.status
    if protocol == "messages":
        assert "not_found_error" == told.type
    else:
        assert ("invalid_request_error", "model_not_found") == (told.type, told.code)
    assert "model_not_found" == (await strict.explained(reply))["error_code"]


INJECTIONS = [
    "a\tb-c-d-e-f",
    "abcdefgh\x0b\x0c",
    "x" * 5000,
    '"><script>alert(1)',
    "…" * 9,
]


@pytest.mark.parametrize("given", INJECTIONS)
async def test_an_id_that_is_none_is_not_taken_over(
    strict: Gateway, given: str
) -> None:
    reader, writer = await connect(strict)
    body = wrong("chat", stream=False)
    length = f"content-length: {len(body)}\r\nconnection: close"
    head = raw_head("chat", strict, length, request_id=given)
    writer.write(head + body)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert answer.split(b" ")[1] in (b"200", b"400")
    assert given.encode() not in answer


async def test_a_broken_header_line_cannot_inject_another(strict: Gateway) -> None:
    """A line break inside an id is the end of the id: the parser decides."""
    reader, writer = await connect(strict)
    body = wrong("chat", stream=False)
    length = f"content-length: {len(body)}\r\nconnection: close"
    given = "abcdefgh\r\nx-injected: yes"
    writer.write(raw_head("chat", strict, length, request_id=given) + body)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert b"x-injected" not in answer.lower()


async def test_a_path_that_is_none(strict: Gateway) -> None:
    reply = await strict.client().send("/v1/nothing", b"{}")

    assert 404 == reply.status
    assert "invalid_request_error" == reply.json["error"]["type"]


@each_protocol
async def test_a_method_that_is_none(strict: Gateway, protocol: str) -> None:
    reply = await strict.client().send(PATHS[protocol], b"{}", method="PUT")

    assert 405 == reply.status
    assert "error" in reply.json


async def test_a_websocket_is_a_426(strict: Gateway) -> None:
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    reply = await strict.client().send("/v1/responses", method="GET", headers=headers)

    assert 426 == reply.status


async def connect(
    gateway: Gateway,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gateway.base_url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def raw_head(
    protocol: str, gateway: Gateway, lines: str, request_id: str = "raw-request-id"
) -> bytes:
    return (
        f"POST {PATHS[protocol]} HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {key_of('alice')}\r\n"
        f"x-request-id: {request_id}\r\n{lines}\r\n\r\n"
    ).encode()
