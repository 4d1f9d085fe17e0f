"""How websockets end, and what they may cost while they live."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from gateway.client import answer as answer_module
from gateway.client.websocket import client_socket
from gateway.config.parse import parse
from gateway.daemon.app import components_of
from gateway.endpoints.websocket import response_socket, websockets
from tests.conftest import Serve
from tests.kit import plays, settings
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import key_of, user
from tests.kit.websocket import CODEX, CREATE, socket

# --- the client leaves --------------------------------------------------------------


@pytest.mark.parametrize("drain_s", [0.0, 20.0], ids=["cancels", "drains"])
async def test_a_client_that_leaves_mid_response_is_handled_as_over_http(
    serve: Serve, upstream: ScriptedUpstream, drain_s: float
) -> None:
    gateway = await serve(upstream={"client_gone_drain_s": drain_s})
    gate = asyncio.Event()
    upstream.next(plays.held(gate, deltas=2))
    async with socket(gateway) as one:
        await one.create(input="hello")
        while (await one.frame())["type"] != "response.output_text.delta":
            pass
        one.connection.transport.abort()
    (closed,) = await gateway.log.wait_events("websocket.closed")
    gate.set()
    await upstream.idle()
    (line,) = await gateway.log.wait_events("request.finished")

    assert 1006 == closed["close_code"]
    assert ("client_gone", "client") == (line["outcome"], line["origin"])
    assert bool(drain_s) != upstream.received()[0].cut_by_client
    assert not drain_s or 11 == line["input_tokens"]


async def test_a_client_that_leaves_the_queue_gives_up_its_place(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(users=[user("alice", max_concurrent=1)])
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway) as one:
        await one.create(input="hello")
        await upstream.wait_for(1)
        async with socket(gateway) as two:
            await two.create(input="hello")
            await two.create(input="behind it in the lane")
            await gateway.inside.waiting("alice", 1)
        await gateway.inside.waiting("alice", 0)
        gate.set()
        await one.rest()

    assert 1 == len(upstream.received())
    lines = await gateway.log.wait_events("request.finished", 2)
    assert ["client_gone", "ok"] == [line["outcome"] for line in lines]


async def test_nothing_is_left_behind(gateway: Gateway) -> None:
    parts = components_of(gateway.inside.app)
    before = {task.get_name() for task in asyncio.all_tasks()}
    for leave in ("close", "abort"):
        async with socket(gateway) as one:
            await one.create(input="hello", stream_id="a")
            await one.turn(input="hello")
            if leave == "abort":
                one.connection.transport.abort()
    await gateway.log.wait_events("websocket.closed", 2)
    after = {task.get_name() for task in asyncio.all_tasks()}

    assert 0 == len(parts.websockets) == parts.serving
    assert not [name for name in after - before if "websocket" in name]
    assert 0 == parts.reader._rooms.used("alice")


# --- the gateway ends it --------------------------------------------------------------


async def test_at_a_drain_idle_ones_are_closed_and_busy_ones_finish(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    parts = components_of(gateway.inside.app)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway) as idle, socket(gateway) as busy:
        await busy.create(input="hello")
        await upstream.wait_for(1)
        drained = asyncio.Event()
        parts.drain(drained.set)
        assert 1001 == await idle.closed()
        late = await busy.turn_of_any(input="late", stream_id="b")
        while late.last["type"] != "error":
            late.frames.append(await busy.frame())
        gate.set()
        turn = await busy.rest()
        assert 1001 == await busy.closed()
        await drained.wait()
        with pytest.raises(InvalidStatus) as refused:
            async with socket(gateway):
                pass

    assert "response.completed" == turn.last["type"]
    assert (503, "retry-after" in late.last["headers"]) == (late.last["status"], True)
    assert 503 == refused.value.response.status_code
    assert "Retry-After" in refused.value.response.headers


async def test_a_stopped_daemon_ends_what_runs_and_closes(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(daemon=True, server={"drain_timeout_s": 0.2})
    upstream.always(plays.silence(2))
    async with socket(gateway) as idle, socket(gateway) as busy:
        await busy.create(input="hello")
        while (await busy.frame())["type"] != "response.output_text.delta":
            pass
        gateway.daemon.terminate()
        assert 1001 == await idle.closed()
        ended = await busy.rest()
        assert 1001 == await busy.closed()

    assert 0 == await gateway.daemon.exited()
    assert "response.failed" == ended.last["type"]
    assert "stopped before the answer" in ended.error["message"]


async def test_an_old_one_is_closed_between_two_responses(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(server={"websocket_max_age_s": 0.3})
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway) as idle, socket(gateway) as busy:
        await busy.create(input="hello")
        await upstream.wait_for(1)
        assert 1000 == await idle.closed()
        while True:  # its own timer may be a moment later
            await busy.create(input="late", stream_id="b", generate=False)
            refused = await busy.frame_of("b")
            if refused["type"] == "error":
                break
        gate.set()
        turn = await busy.rest()
        assert 1000 == await busy.closed()

    code = refused["error"]["code"]
    assert (400, "websocket_connection_limit_reached") == (refused["status"], code)
    assert "response.completed" == turn.last["type"]


async def test_a_reload_without_its_key_closes_it(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    parts = components_of(gateway.inside.app)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with (
        socket(gateway) as idle,
        socket(gateway) as busy,
        socket(gateway, "bob") as other,
    ):
        await busy.create(input="hello")
        await upstream.wait_for(1)
        rows = settings.accounts(upstream)
        text = settings.config_text(
            listen=["127.0.0.1:1"], accounts=rows, users=[user("bob")]
        )
        secrets = settings.environment(rows)
        parts.reload(parse(text, lambda name: secrets[name.removeprefix("env:")]))
        assert 1008 == await idle.closed()
        refused = await busy.turn_of_any(input="hello", stream_id="b")
        while refused.last["type"] != "error":
            refused.frames.append(await busy.frame())
        gate.set()
        turn = await busy.rest()
        assert 1008 == await busy.closed()
        well = await other.turn(input="hello")

    assert 401 == refused.last["status"]
    assert "response.completed" == turn.last["type"] == well.last["type"]


async def test_a_user_has_a_bounded_number(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codex goes on over HTTP then; others come back."""
    monkeypatch.setattr(websockets, "MAX_OPEN", 1)
    async with socket(gateway), socket(gateway, "bob"):
        for headers, status in ((CODEX, 426), ({}, 429)):
            with pytest.raises(InvalidStatus) as refused:
                async with socket(gateway, headers=headers):
                    pass
            assert status == refused.value.response.status_code


# --- sizes ----------------------------------------------------------------------------


async def test_a_message_may_come_in_any_fragments(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    whole = json.dumps({**CREATE, "input": "ä" * 1000}, ensure_ascii=False).encode()
    pieces = [whole[n : n + 7] for n in range(0, len(whole), 7)]
    async with socket(gateway) as one:

        async def parts() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        await one.connection.send(parts(), text=True)
        turn = await one.rest()

    assert "response.completed" == turn.last["type"]
    assert "ä" * 1000 == upstream.received()[0].json["input"]


@pytest.mark.parametrize("deflated", [True, False])
async def test_the_largest_message_passes_and_a_larger_one_ends_it(
    serve: Serve, upstream: ScriptedUpstream, deflated: bool
) -> None:
    gateway = await serve(server={"max_body_bytes": 300_000})
    compression = "deflate" if deflated else None
    async with socket(gateway, compression=compression) as one:
        turn = await one.turn(input="x" * 299_000)
        await one.create(input="x" * 301_000)
        assert 1009 == await one.closed()

    assert "response.completed" == turn.last["type"]
    assert 1 == len(upstream.received())


async def test_a_conversation_that_outgrows_a_body_is_refused(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(server={"max_body_bytes": 300_000})
    async with socket(gateway) as one:
        first = await one.turn(input="x" * 200_000)
        failed = await one.turn(input="x" * 200_000, previous_response_id=first.id)

    assert 413 == failed.last["status"]
    assert "with the turns before it" in failed.error["message"]


async def test_what_inflates_to_more_than_a_body_ends_it(serve: Serve) -> None:
    gateway = await serve(server={"max_body_bytes": 1_000_000})
    async with socket(gateway) as one:
        await one.send(json.dumps("x" * 50_000_000))
        assert 1009 == await one.closed()
    assert 0 == components_of(gateway.inside.app).reader._rooms.used("alice")


async def test_compressed_frames_stand_for_themselves(gateway: Gateway) -> None:
    """Neither side keeps a window, so an idle connection costs none."""
    async with socket(gateway) as one:
        agreed = one.headers["sec-websocket-extensions"]
        for _ in range(3):
            turn = await one.turn(input="x" * 10_000, instructions="y" * 3_000)
            assert "response.completed" == turn.last["type"]

    assert "server_no_context_takeover" in agreed
    assert "client_no_context_takeover" in agreed


async def test_a_small_window_is_respected(gateway: Gateway) -> None:
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=9)
    async with socket(gateway, compression=None, extensions=[offer]) as one:
        turn = await one.turn(input="x", metadata={"long": "abc" * 2000})

        assert "server_max_window_bits=9" in one.headers["sec-websocket-extensions"]
    assert "response.completed" == turn.last["type"]


async def test_a_user_without_room_is_not_read_and_others_are(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(
        users=[user("alice", max_waiting_bytes=300_000, max_concurrent=1), user("bob")]
    )
    rooms = components_of(gateway.inside.app).reader._rooms
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway) as one, socket(gateway, "bob") as other:
        await one.create(input="running")
        await upstream.wait_for(1)
        sending = [
            asyncio.create_task(one.create(input="x" * 250_000, stream_id=f"s{n}"))
            for n in range(4)
        ]
        await gateway.inside.waiting("alice", 1)
        assert "response.completed" == (await other.turn(input="hello")).last["type"]
        assert rooms.used("alice") < 300_000 + client_socket.FREE_BYTES + 262_144
        gate.set()
        ended = 0
        while ended < 5:
            ended += (await one.frame())["type"] == "response.completed"
        await asyncio.gather(*sending)


# --- slow readers ---------------------------------------------------------------------


@asynccontextmanager
async def unread(gateway: Gateway) -> AsyncIterator[asyncio.StreamWriter]:
    """A websocket over a plain socket whose client reads nothing."""
    host, port = gateway.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    nonce = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {nonce}\r\n"
        f"Authorization: Bearer {key_of('alice')}\r\n\r\n".encode()
    )
    assert b"101" in await reader.readline()
    yield writer
    writer.transport.abort()


def masked(opcode: int, data: bytes) -> bytes:
    """A frame of a client, with a mask of zeros."""
    head = bytes([0x80 | opcode])
    size = len(data)
    if size < 126:
        return head + bytes([0x80 | size]) + bytes(4) + data
    return head + b"\xfe" + size.to_bytes(2, "big") + bytes(4) + data


async def test_a_slow_reader_holds_up_the_account_and_stalls_out(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_module, "STALL_S", 0.5)
    """Its slot is free then, and its account let go."""
    gateway = await serve(
        users=[user("alice", max_concurrent=1)],
        limits={"ping_interval_s": 0.1},
        upstream={"client_gone_drain_s": 0.0},
    )
    upstream.next(plays.flood())
    async with unread(gateway) as writer:
        writer.write(masked(1, json.dumps({**CREATE, "input": "x"}).encode()))
        (line,) = await gateway.log.wait_events("request.finished")
        (closed,) = await gateway.log.wait_events("websocket.closed")

    await upstream.idle()
    reply = await gateway.client().ask("responses", "responses-a")

    assert ("client_gone", 1006) == (line["outcome"], closed["close_code"])
    assert upstream.received()[0].sent_bytes < 40_000_000
    assert upstream.received()[0].cut_by_client
    assert [] == reply.queued


async def test_pings_are_answered_while_they_are_read(gateway: Gateway) -> None:
    async with socket(gateway) as one:
        waiter = await one.connection.ping(b"there?")
        await asyncio.wait_for(waiter, 5)
    async with unread(gateway) as writer:
        (one_,) = components_of(gateway.inside.app).websockets._open.values()
        transport = one_.socket._connection.transport
        for _ in range(400):
            writer.write(masked(9, b"x" * 125) * 200)
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        assert transport
        unsent = transport.get_write_buffer_size()

        assert unsent <= client_socket.MAX_UNSENT_BYTES + 400_000


# --- signs of life --------------------------------------------------------------------


async def test_an_idle_one_is_pinged(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_socket, "PING_S", 0.05)
    async with unread_frames(gateway) as frames:
        assert [b"\x89\x00"] * 2 == [await frames.readexactly(2) for _ in range(2)]


@asynccontextmanager
async def unread_frames(gateway: Gateway) -> AsyncIterator[asyncio.StreamReader]:
    """The bytes behind the 101 of an idle websocket."""
    host, port = gateway.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Authorization: Bearer " + key_of("alice").encode() + b"\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    yield reader
    writer.transport.abort()


async def test_a_frame_that_is_not_valid_ends_it(gateway: Gateway) -> None:
    for bad in (b"\x83\x80" + bytes(4), b"\x81\x05hello", b"\xf1\x80" + bytes(4)):
        async with unread(gateway) as writer:
            writer.write(bad)
            await gateway.log.wait_events("websocket.closed")
    closed = await gateway.log.wait_events("websocket.closed", 3)
    assert {1002} == {line["close_code"] for line in closed}


async def test_a_deflated_message_that_is_none_ends_it(gateway: Gateway) -> None:
    async with socket(gateway) as one:
        frame = bytes([0xC1, 0x84]) + bytes(4) + b"\xff" * 4
        one.connection.transport.write(frame)
        assert 1007 == await one.closed()
