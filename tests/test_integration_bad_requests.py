"""
Heads, keys, ids and paths that are wrong: refused, and no other client notices.

``strict`` ends each test with a good request on the same gateway.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.kit import answers, endings
from tests.kit.asking import PATHS
from tests.kit.badly import MAX_BODY_BYTES, connect, raw_head, wrong
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import key_of

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@each_protocol
async def test_a_hundred_megabytes_are_not_read(strict: Gateway, protocol: str) -> None:
    """Refused by what the length says; the answer comes before the whole body."""
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


@each_protocol
async def test_a_body_shorter_than_it_says(
    strict: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    """A client that promises more and leaves is gone; nothing is sent on."""
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


# --- who asks, and how ---


@each_protocol
async def test_no_key_is_a_final_401(strict: Gateway, protocol: str) -> None:
    reply = await strict.client().send(
        PATHS[protocol], wrong(protocol), headers={"authorization": ""}
    )

    error = endings.before(protocol, reply)
    assert (401, "authentication_error") == (reply.status, error.type)
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
async def test_a_model_that_no_account_serves_is_a_404(
    strict: Gateway, protocol: str
) -> None:
    reply = await strict.client().ask(protocol, "no-such-model")

    error = endings.before(protocol, reply)
    assert 404 == reply.status
    if protocol == "messages":
        assert "not_found_error" == error.type
    else:
        assert ("invalid_request_error", "model_not_found") == (error.type, error.code)
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


async def test_what_is_no_upgrade_is_a_426(strict: Gateway) -> None:
    reply = await strict.client().send("/v1/responses", method="GET")

    assert 426 == reply.status
    assert "upgrade to a websocket" in reply.json["error"]["message"]
