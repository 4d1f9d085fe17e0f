"""
Bodies that are wrong: a clear 4xx in the protocol's form that names the field.

Never a 500, never a dead process, never another user's trouble: ``strict`` ends each
test with a good request on the same gateway; none of the bad ones reaches an account.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from typing import Any

import pytest
from backports import zstd

from tests.conftest import Serve
from tests.kit import answers, endings
from tests.kit.asking import PATHS
from tests.kit.badly import MAX_BODY_BYTES, wrong
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


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

    error = endings.before(protocol, reply)
    assert (400, "invalid_request_error") == (reply.status, error.type)
    assert names in error.message
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

    error = endings.before(protocol, reply)
    assert (413, "invalid_request_error") == (reply.status, error.type)
    assert str(MAX_BODY_BYTES) in error.message
    assert [] == upstream.received()
    await strict.explained(reply)


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

    error = endings.before(protocol, reply)
    assert reply.status in (400, 415)
    assert "invalid_request_error" == error.type
    assert "encoding" in error.message or name in error.message
    assert [] == upstream.received()
    await strict.explained(reply)


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


async def test_a_body_full_of_models_does_not_stop_the_others(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """To find the one that is renamed must not cost a look at the whole for each."""
    rows = [account(upstream, "chat", rename={"chat-fast": "real-1"})]
    gateway = await serve(accounts=rows)
    nested = [{"model": "a"}] * 50_000
    data = json.dumps({"x": nested, "model": "chat-fast", "messages": []}).encode()
    async with asyncio.timeout(15):  # it would be minutes
        reply = await gateway.client().send(PATHS["chat"], io.BytesIO(data))

    assert 200 == reply.status
    sent = upstream.received()[0].json
    assert ("real-1", nested) == (sent["model"], sent["x"])
