"""
Frames that no client and no server would send, in both directions, over real sockets:
each answer has one ending, nothing is left, and other users are served.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import endings
from tests.kit.answer import Answer
from tests.kit.asking import Event, Reply
from tests.kit.gateway import Gateway
from tests.kit.settings import key_of
from tests.kit.socket_account import MODEL, no_leak, over_sockets
from tests.kit.socket_upstream import Ask, SocketUpstream, messages_of
from tests.kit.websocket import CREATE, ENDINGS, socket

UPGRADE = (
    "GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
    "upgrade: websocket\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nauthorization: Bearer {key}\r\n"
    "sec-websocket-extensions: permessage-deflate\r\n\r\n"
)
ODD: list[Any] = [None, True, 0, -1, 1e308, "", "x" * 300, "\0", [], [[]], {}, {"": {}}]
NAMES = (
    *("input", "previous_response_id", "stream_id", "generate", "store", "model"),
    *(
        "client_metadata",
        "tools",
        "stream",
        "background",
        "instructions",
        "conversation",
    ),
)


def frames_of_a_client(rng: random.Random) -> bytes:
    """What a client might send, one after the other."""
    messages = [
        {**CREATE, "input": "hello", "generate": rng.random() < 0.5},
        {"type": "response.interrupt", "response_id": "resp_x"},
        {"type": "response.steer"},
    ]
    wire = b""
    for message in rng.sample(messages, 3):
        data = json.dumps(message).encode()
        cut = rng.randrange(len(data))
        for opcode, part, is_last in (
            (Opcode.TEXT, data[:cut], False),
            (Opcode.PING, b"p", True),
            (Opcode.CONT, data[cut:], True),
        ):
            wire += WireFrame(opcode, part, fin=is_last).serialize(mask=True)
    return wire


def damaged(data: bytes, rng: random.Random) -> bytes:
    """*data* with some bytes changed, left out, or there twice."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out))
        kind = rng.randrange(4)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randint(1, 6)]
        elif kind == 2:
            out[at:at] = out[at : at + 8]
        else:
            out[at:at] = rng.randbytes(4)
        if not out:
            out += b"\x81"
    return bytes(out)


async def test_damaged_frames_of_a_client_harm_none_but_itself(
    gateway: Gateway,
) -> None:
    host, port = gateway.base_url.removeprefix("http://").split(":")
    parts, count = components_of(gateway.inside.app), 60

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(UPGRADE.format(key=key_of("alice")).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        data = damaged(frames_of_a_client(rng), rng)
        cut = rng.randrange(len(data))
        writer.write(data[:cut])
        await asyncio.sleep(0)
        writer.write(data[cut:])
        if rng.random() < 0.5:
            writer.write_eof()
            await reader.read()
            writer.close()
        else:
            writer.transport.abort()

    async with asyncio.TaskGroup() as group:
        for seed in range(count):
            group.create_task(one(seed))
    await gateway.log.wait_events("websocket.closed", count)

    assert 0 == len(parts.websockets) == parts.serving
    assert 0 == parts.reader._rooms.used("alice")
    assert not gateway.log.events("request.crashed")
    async with socket(gateway, "bob") as other:
        assert "response.completed" == (await other.turn(input="x")).last["type"]


async def test_every_create_has_one_ending_whatever_its_fields(
    gateway: Gateway,
) -> None:
    rng = random.Random(5)
    async with socket(gateway) as one:
        for _ in range(60):
            fields = {name: rng.choice(ODD) for name in rng.sample(NAMES, 2)}
            await one.create(**{"input": "x", **fields})
            while (await one.frame())["type"] not in ENDINGS:
                pass
            await one.send({"type": "response.interrupt"})
            assert "response.interrupt.failed" == (await one.frame())["type"]
        assert "response.completed" == (await one.turn(input="x")).last["type"]
    assert not gateway.log.events("request.crashed")


@pytest.mark.parametrize("protocol", ["responses", "chat", "messages"])
async def test_damaged_frames_of_an_account_give_one_ending(
    serve: Serve, sockets: SocketUpstream, protocol: str
) -> None:
    rng = random.Random(protocol)
    limits = {"first_event_timeout_s": 1.0, "idle_timeout_s": 0.3}
    gateway = await serve(accounts=[over_sockets(sockets)], upstream=limits)

    async def damages(ask: Ask) -> None:
        texts = messages_of(Answer(), ask.json)
        wire = [WireFrame(Opcode.TEXT, text.encode()) for text in texts]
        whole = b"".join(frame.serialize(mask=False) for frame in wire)
        ask.write(damaged(whole, rng))

    sockets.always = damages
    client = gateway.client()
    ask = [client.ask(protocol, MODEL, stream=n % 4 != 0) for n in range(24)]
    for reply in await asyncio.gather(*ask):
        check(protocol, reply)

    await gateway.log.each_finished_once(client.asked)
    assert not gateway.log.events("request.crashed")
    await no_leak(gateway)


def check(protocol: str, reply: Reply) -> None:
    """Whole, or failed in its client's own form; never both, never cut."""
    assert not reply.broken
    if reply.status != 200 or "event-stream" not in reply.headers["content-type"]:
        assert reply.json
        return
    # Bytes of the same protocol pass as they are: not each is JSON.
    names = [_kind(event) for event in reply.events]
    ends = [name for name in names if name in endings.TERMINALS]
    assert 1 == len(ends) and ends[0] == names[-1]


def _kind(event: Event) -> str:
    return event.name or event.kind
