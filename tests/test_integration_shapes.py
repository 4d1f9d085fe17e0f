"""Streams in odd shapes and sizes, and accounts that are not there at all."""

from __future__ import annotations

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.daemon import free_port
from tests.kit.gateway import Gateway
from tests.kit.scripted import Play, ScriptedUpstream
from tests.kit.settings import account

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@each_protocol
async def test_an_event_of_four_megabytes_passes(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    text = "x" * 4_000_000
    upstream.always(plays.ok(Answer(pieces=(text,))))

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.whole(protocol, reply, text)


@each_protocol
async def test_an_event_without_end_is_not_held(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """What is kept of an event that never ends is bounded."""
    gateway = await serve(limits={"ping_interval_s": 50.0})  # no keepalive before
    upstream.always(plays.raw(b"data: " + b"x" * 80_000_000))

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.before(protocol, reply)
    line = await gateway.explained(reply)
    assert (502, "upstream_too_large") == (reply.status, line["error_code"])


@each_protocol
async def test_an_account_that_is_not_there(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gone = account(
        upstream, protocol, base_url=f"http://127.0.0.1:{free_port()}/secret-path"
    )
    gateway = await serve(accounts=[gone])

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    error = endings.before(protocol, reply)
    assert (502, endings.FAILED[protocol]) == (reply.status, error.type)
    assert "secret-path" not in error.message and "127.0.0.1" not in error.message
    assert "upstream_connect" == (await gateway.explained(reply))["error_code"]


@each_protocol
async def test_a_name_that_no_one_knows(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gone = account(upstream, protocol, base_url="http://nowhere.invalid/v1")
    gateway = await serve(accounts=[gone])

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    assert 502 == reply.status
    assert "nowhere.invalid" not in endings.before(protocol, reply).message
    assert "upstream_connect" == (await gateway.explained(reply))["error_code"]


SHAPES = [
    pytest.param(plays.shaped(line_end=b"\r\n"), id="crlf"),
    pytest.param(plays.shaped(line_end=b"\r"), id="cr"),
    pytest.param(plays.shaped(chunk=1), id="split-at-every-byte"),
    pytest.param(plays.shaped(chunk=1, line_end=b"\r\n"), id="crlf-split"),
    pytest.param(plays.shaped(last_blank_line=False), id="no-last-blank-line"),
]


@each_protocol
@pytest.mark.parametrize("play", SHAPES)
async def test_an_odd_shape_is_a_whole_answer(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, play: Play
) -> None:
    upstream.always(play)

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    reply.body = reply.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    endings.whole(protocol, reply)
    assert reply.body.endswith(b"\n\n")
    assert "ok" == (await gateway.finished(reply))["outcome"]
