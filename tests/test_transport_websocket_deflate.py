"""Compressed messages on the websockets of accounts: both ways, and bounded."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
import pytest
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

from gateway.errors import UpstreamError
from gateway.transport.websocket import deflate
from gateway.transport.websocket.upgrade import MAX_MESSAGE_BYTES
from tests.conftest import Serve
from tests.kit import endings
from tests.kit.socket_account import NEXT, TURN, no_leak, over_sockets, pool_of
from tests.kit.socket_upstream import SocketUpstream
from tests.socket_peer import MESSAGES, ServerSocket, accept, socket_client
from tests.transport_peer import Peer

TEXTS = [Frame(Opcode.TEXT, message.encode()) for message in MESSAGES]
SERVERS: dict[str, dict[str, Any]] = {
    "with-context": {},
    "without-context": {"server_no_context_takeover": True},
    "small-windows": {"server_max_window_bits": 9, "client_max_window_bits": 9},
}


def body(size: int) -> bytes:
    message = {"type": "message", "role": "user", "content": "a" * size}
    return orjson.dumps({"model": "m", "stream": True, "input": [message]})


async def answers(socket: ServerSocket) -> None:
    await socket.deflated(*TEXTS)


@pytest.mark.parametrize("options", SERVERS.values(), ids=SERVERS)
async def test_messages_are_deflated_both_ways(options: dict[str, Any]) -> None:
    sizes, bodies = [], [body(100), body(20_000), body(deflate.DEFLATE_UP_TO_BYTES)]
    factory = ServerPerMessageDeflateFactory(**options)

    async def script(peer: Peer) -> None:
        socket = await accept(peer, [factory])
        offered = socket.request.headers["sec-websocket-extensions"]
        assert "permessage-deflate; client_no_context_takeover" in offered
        receive = socket._protocol.receive_data
        read: list[int] = []
        socket._protocol.receive_data = lambda data: (  # type: ignore[method-assign]
            read.append(len(data)),
            receive(data),
        )[1]
        for _ in bodies:
            assert await socket.ask() is not None
            sizes.append(sum(read))
            read.clear()
            await answers(socket)
        await peer.gone()

    async with socket_client("direct http") as client:
        async with client.upstream(script) as server:
            plain = b""
            for one in bodies:
                response = await client.open(server.url, one, deflates=True)
                data = await response.body(2**20)
                response.close()
                assert plain in (b"", data) and b"response.completed" in data
                plain = data

    assert len(bodies[0]) < sizes[0] < len(bodies[0]) + 200  # small: as it is
    assert sizes[1] < 1000  # deflated
    assert sizes[2] > deflate.DEFLATE_UP_TO_BYTES  # large: as it is


async def test_control_frames_and_pieces_between() -> None:
    async def script(peer: Peer) -> None:
        socket = await accept(peer, [ServerPerMessageDeflateFactory()])
        await socket.ask()
        whole = TEXTS[0].data
        await socket.deflated(
            Frame(Opcode.TEXT, whole[:5], fin=False),
            Frame(Opcode.PING, b"in between"),
            Frame(Opcode.CONT, whole[5:]),
            *TEXTS[1:],
        )
        await peer.gone()

    async with socket_client("direct http") as client:
        async with client.upstream(script) as server:
            response = await client.open(server.url, deflates=True)
            assert b"response.completed" in await response.body(2**20)
            response.close()


BROKEN = b"\xc1\x03\xff\xff\xff"


def agreement() -> deflate.MessageDeflate:
    params = [("client_no_context_takeover", None)]
    return deflate.DeflateOffer().process_response_params(params, [])


def bomb(size: int) -> Frame:
    """A frame that inflates to *size* bytes."""
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(b" " * size) + packer.flush(zlib.Z_SYNC_FLUSH)
    return Frame(Opcode.TEXT, data[:-4], rsv1=True)


@pytest.mark.parametrize("size", [1, 2**20, 2**23, deflate.MAX_READ_BYTES])
def test_what_one_read_inflates_to_is_bounded(size: int) -> None:
    agreed, frame = agreement(), bomb(size)
    for _ in range(2):
        agreed.begin_read()
        inflated, limit = 0, min(deflate.MAX_READ_BYTES // size, 100)
        for _ in range(limit):
            inflated += len(agreed.decode(frame, max_size=MAX_MESSAGE_BYTES).data)
        assert limit * size == inflated
    if inflated == deflate.MAX_READ_BYTES:
        with pytest.raises(PayloadTooBig):
            agreed.decode(frame, max_size=MAX_MESSAGE_BYTES)


async def test_a_message_that_inflates_to_too_much_ends_the_answer() -> None:
    async def script(peer: Peer) -> None:
        socket = await accept(peer, [ServerPerMessageDeflateFactory()])
        await socket.ask()
        data = bomb(deflate.MAX_READ_BYTES + 1).data
        await socket.peer.send(b"\xc1\x7e" + len(data).to_bytes(2, "big") + data)
        await peer.gone()

    async with socket_client("direct http") as client:
        async with client.upstream(script) as server:
            with pytest.raises(UpstreamError) as failed:
                await client.open(server.url, deflates=True)

    assert "upstream_too_large" == failed.value.code


@pytest.mark.parametrize("agreed", [True, False])
async def test_a_frame_that_does_not_inflate_ends_the_answer(agreed: bool) -> None:
    async def script(peer: Peer) -> None:
        extensions = [ServerPerMessageDeflateFactory()] if agreed else None
        socket = await accept(peer, extensions)
        await socket.ask()
        await socket.peer.send(BROKEN)
        await peer.gone()

    async with socket_client("direct http") as client:
        async with client.upstream(script) as server:
            with pytest.raises(UpstreamError) as failed:
                await client.open(server.url, deflates=True)

    assert "upstream_malformed" == failed.value.code


async def test_an_account_that_asks_for_it(
    serve: Serve, sockets: SocketUpstream
) -> None:
    """A conversation over a server of aiohttp; the default asks for nothing."""
    sockets.compress = True
    gateway = await serve(
        accounts=[
            over_sockets(sockets, websocket_compression=True, models=["responses-a"]),
            over_sockets(sockets, name="plain", models=["responses-b"]),
        ]
    )
    client = gateway.client()
    for turn in (TURN, NEXT):
        reply = await client.ask("responses", "responses-a", input=turn)
        endings.whole("responses", reply)
    endings.whole("responses", await client.ask("responses", "responses-b"))

    assert "previous_response_id" in sockets.asked[1].json
    first, last = sockets.handshakes
    assert "permessage-deflate" in first["sec-websocket-extensions"]
    assert "sec-websocket-extensions" not in last
    (deflated,) = [
        one for one in pool_of(gateway).live.values() if one.key.account == "ws"
    ]
    assert deflated.socket._deflate is not None
    await no_leak(gateway)
