"""A body is read within its limit, decoded, and refused with a clear word."""

from __future__ import annotations

import gzip
import zlib

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from backports import zstd

from gateway import body
from gateway.errors import ClientError

LIMIT = 100_000
TEXT = orjson.dumps({"model": "m", "x": "y" * 5000})


async def sent(data: bytes, **headers: str) -> tuple[int, bytes]:
    """What ``body.read`` makes of *data*: 200 and the bytes, or status and message."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return web.Response(body=await body.read(request, LIMIT))
        except ClientError as error:
            return web.Response(status=error.status, text=error.message)

    app = web.Application(handler_args={"auto_decompress": False})
    app.router.add_post("/", handle)
    async with TestServer(app) as server, ClientSession() as session:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with session.post(
            server.make_url("/"), data=data, headers=named, compress=None
        ) as response:
            return response.status, await response.read()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        pytest.param("", TEXT, id="none"),
        pytest.param("identity", TEXT, id="identity"),
        pytest.param("gzip", gzip.compress(TEXT), id="gzip"),
        pytest.param("deflate", zlib.compress(TEXT), id="deflate"),
        pytest.param("zstd", zstd.compress(TEXT), id="zstd"),
        pytest.param("ZSTD", zstd.compress(TEXT), id="capitals"),
    ],
)
async def test_every_encoding_gives_the_same_bytes(encoding: str, data: bytes) -> None:
    assert (200, TEXT) == await sent(data, Content_Encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        pytest.param("gzip", TEXT, 400, id="no-gzip"),
        pytest.param("zstd", TEXT, 400, id="no-zstd"),
        pytest.param("gzip", gzip.compress(TEXT)[:-9], 400, id="gzip-cut"),
        pytest.param("zstd", zstd.compress(TEXT)[:-3], 400, id="zstd-cut"),
        pytest.param("zstd", zstd.compress(TEXT) + b"more", 400, id="zstd-more"),
        pytest.param("br", TEXT, 415, id="unknown"),
        pytest.param("", b"x" * (LIMIT + 1), 413, id="large"),
        pytest.param("gzip", gzip.compress(bytes(10**7)), 413, id="gzip-bomb"),
        pytest.param("zstd", zstd.compress(bytes(10**7)), 413, id="zstd-bomb"),
    ],
)
async def test_what_lies_or_is_too_large_is_refused(
    encoding: str, data: bytes, status: int
) -> None:
    got, message = await sent(data, Content_Encoding=encoding)

    assert status == got
    if status == 413:
        assert str(LIMIT).encode() in message


@pytest.mark.parametrize(
    ("data", "word"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"  \n", "empty", id="blank"),
        pytest.param(b"{", "JSON", id="cut"),
        pytest.param(b"\xff\xfe", "JSON", id="no-utf8"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, "JSON", id="deep"),
        pytest.param(b"[]", "object", id="list"),
        pytest.param(b'"model"', "object", id="string"),
        pytest.param(b"{}", "'model'", id="no-model"),
        pytest.param(b'{"model":null}', "'model'", id="null-model"),
        pytest.param(b'{"model":3}', "'model'", id="number-model"),
        pytest.param(b'{"model":""}', "'model'", id="empty-model"),
        pytest.param(b'{"model":["a"]}', "'model'", id="list-model"),
        pytest.param(b'{"model":"a\\nb"}', "'model'", id="model-with-line-end"),
        pytest.param(b'{"model":"m","stream":"yes"}', "'stream'", id="text-stream"),
        pytest.param(b'{"model":"m","stream":1}', "'stream'", id="number-stream"),
    ],
)
def test_a_request_that_is_none_is_told_what_is_wrong(data: bytes, word: str) -> None:
    with pytest.raises(ClientError) as caught:
        body.parse(data)

    assert 400 == caught.value.status
    assert word in caught.value.message
    if word.startswith("'"):
        assert word.strip("'") == caught.value.param


@pytest.mark.parametrize(
    ("data", "stream"),
    [
        (b'{"model":"m"}', False),
        (b'{"model":"m","stream":null}', False),
        (b'{"model":"m","stream":true}', True),
    ],
)
def test_what_every_request_says_is_read(data: bytes, stream: bool) -> None:
    ask = body.parse(data)

    assert ("m", stream) == (ask.model, ask.stream)
    assert data is ask.data


def test_a_document_that_was_forgotten_is_parsed_again() -> None:
    ask = body.parse(TEXT)
    first = ask.document
    assert first is ask.document

    ask.forget_document()

    assert first is not ask.document and first == ask.document
