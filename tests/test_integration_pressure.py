"""Between upstream and client nothing piles up: who reads slowly slows the upstream."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import dechunked, question, read_event, read_reply
from tests.kit.badly import connect, raw_head
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream

PIECE = 64 * 1024
MAX_HELD_BYTES = 24 * 1024 * 1024  # socket buffers on both sides included


def resident_bytes(pid: int) -> int:
    """The memory that a process really uses."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def settled(read_value: object) -> int:
    """The value once it has not changed for a while."""
    last, same = -1, 0
    async with asyncio.timeout(20):
        while same < 10:
            await asyncio.sleep(0.03)
            value = read_value()  # type: ignore[operator]
            same = same + 1 if value == last else 0
            last = value
    return last


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_stalled_reader_holds_the_upstream_and_no_memory(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(daemon=True, upstream={"client_gone_drain_s": 0.0})
    client = gateway.client()
    endings.whole(protocol, await client.ask(protocol, f"{protocol}-warm"))
    before = resident_bytes(gateway.daemon.worker_pid)
    upstream.always(plays.flood(PIECE))
    async with client.open(protocol, f"{protocol}-x") as response:
        request = (await upstream.wait_for(2))[1]
        sent = await settled(lambda: request.sent_bytes)
        grown = resident_bytes(gateway.daemon.worker_pid) - before
        response.close()
    await upstream.idle()

    assert sent < MAX_HELD_BYTES
    assert grown < MAX_HELD_BYTES


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_an_open_stream_keeps_no_more_of_its_request_than_the_bytes(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """A conversation of many small parts is ten times its size once it is parsed."""
    gateway = await serve(daemon=True, limits={"max_concurrent": 20})
    client = gateway.client()
    field = "input" if protocol == "responses" else "messages"
    asked = {field: [{"role": "user", "content": "x"}] * 20_000}
    endings.whole(protocol, await client.ask(protocol, f"{protocol}-warm", **asked))
    before = resident_bytes(gateway.daemon.worker_pid)
    gate = asyncio.Event()
    upstream.always(plays.held(gate))
    opened = [client.open(protocol, f"{protocol}-x", **asked) for _ in range(10)]
    responses = [await one.__aenter__() for one in opened]
    for response in responses:
        await response.content.readuntil(b"All ")  # the first output

    grown = resident_bytes(gateway.daemon.worker_pid) - before

    gate.set()
    for one, response in zip(opened, responses):
        assert b"well" in (await read_reply(response, 0.0)).body
        await one.__aexit__(None, None, None)
    assert grown < 25 * 1024 * 1024, grown  # 7 are the bytes


DATA = "data:image/png;base64,iVBORw0KGgo="
PARTS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "responses": (
        {"type": "input_text", "text": "x"},
        {"type": "input_image", "image_url": DATA},
    ),
    "chat": (
        {"type": "text", "text": "x"},
        {"type": "image_url", "image_url": {"url": DATA}},
    ),
    "messages": (
        {"type": "text", "text": "x"},
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": "image/png",
                "data": "iVBORw0KGgo=",
            },
        },
    ),
}
PAIRS = [(one, other) for one in answers.PROTOCOLS for other in answers.PROTOCOLS]


@pytest.mark.parametrize(("protocol", "upstreams"), PAIRS)
async def test_nothing_that_a_request_is_parsed_to_outlives_the_first_output(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, upstreams: str
) -> None:
    """Neither its document nor what that was converted to."""
    field = "input" if protocol == "responses" else "messages"
    part, image = PARTS[protocol]
    said = {"role": "user", "content": [part, image]}
    heard = {"role": "assistant", "content": "y"}
    asked = {field: [said, heard] * 1500 + [said]}
    client, gate = gateway.client(), asyncio.Event()
    endings.whole(protocol, await client.ask(protocol, f"{upstreams}-warm"))
    upstream.next(plays.held(gate))
    gc.collect()
    before = len(gc.get_objects())
    async with client.open(protocol, f"{upstreams}-x", **asked) as response:
        await response.content.readuntil(b"All ")
        gc.collect()
        kept = len(gc.get_objects()) - before
        gate.set()
        await response.content.read()

    assert kept < 1500, kept  # a message with a picture is three objects and more


async def test_ten_stalled_readers_do_not_slow_the_others(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(
        daemon=True,
        limits={"max_concurrent": 20},
        upstream={"client_gone_drain_s": 0.0},
    )
    upstream.always(plays.flood(PIECE), model="chat-flood")
    client = gateway.client()
    responses = []
    for _ in range(10):
        opened = client.open("chat", "chat-flood")
        responses.append((opened, await opened.__aenter__()))
    await upstream.wait_for(10)
    for protocol in answers.PROTOCOLS:
        reply = await gateway.client("bob").ask(protocol, f"{protocol}-x")
        endings.whole(protocol, reply)
    for opened, response in responses:
        response.close()
        await opened.__aexit__(None, None, None)
    await upstream.idle()


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_slow_reader_gets_everything(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """20 MB through a reader that pauses: not a byte is lost or doubled."""
    gateway = await serve(daemon=True)
    pieces = tuple(f"{n:08}" * 4096 for n in range(600))
    upstream.next(plays.ok(Answer(pieces=pieces)))
    async with gateway.client().open(protocol, f"{protocol}-x") as response:
        body = b""
        for _ in range(20):
            body += await response.content.readany()
            await asyncio.sleep(0.01)
        parts = [body]
        async for part in response.content.iter_any():
            parts.append(part)

    body = b"".join(parts)
    for n in (0, 1, 299, 598, 599):
        assert f"{n:08}".encode() * 4096 in body
    upstream_bytes = upstream.requests[0].sent_bytes
    hidden = (
        400 if protocol == "chat" else 0
    )  # the usage that the client did not ask for
    assert upstream_bytes - hidden <= len(body) <= upstream_bytes


async def test_a_gateway_that_was_paused_blames_no_upstream(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """What came while the process stood still is there, and is read first."""
    # Of each silence the upstream makes a small part; the rest is ours.
    limits = {"first_event_timeout_s": 3.0, "idle_timeout_s": 3.0}
    gateway = await serve(daemon=True, upstream=limits)
    upstream.always(plays.ok(head_after_s=0.3, interval_s=0.6))
    asked = {
        protocol: asyncio.create_task(gateway.client().ask(protocol, f"{protocol}-x"))
        for protocol in answers.PROTOCOLS
    }
    await upstream.wait_for(len(asked))
    for pause_s in (3.5, 3.5):  # before the first event, and between others
        os.kill(gateway.daemon.worker_pid, signal.SIGSTOP)
        await asyncio.sleep(pause_s)
        os.kill(gateway.daemon.worker_pid, signal.SIGCONT)
        await asyncio.sleep(0.05)

    for protocol, reply in asked.items():
        endings.whole(protocol, await reply)


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_stop_while_the_terminal_is_on_its_way(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """A reader that stalls before a large terminal still gets one ending, not two."""
    gateway = await serve(daemon=True, server={"drain_timeout_s": 0.2})
    text = "x" * 12_000_000
    upstream.next(plays.ok(Answer(pieces=(text,))))
    asked = json.dumps(question(protocol, f"{protocol}-x")).encode()
    lines = f"content-type: application/json\r\ncontent-length: {len(asked)}"
    reader, writer = await connect(gateway)
    writer.write(raw_head(protocol, gateway, lines) + asked)
    await upstream.wait_for(1)
    await settled(lambda: upstream.requests[0].sent_bytes)
    gateway.daemon.terminate()
    await gateway.log.wait_for(
        lambda: gateway.log.events("server.draining"), "it did not drain"
    )
    await asyncio.sleep(0.4)
    pieces = []
    with suppress(ConnectionError):
        while piece := await reader.read(1_000_000):
            pieces.append(piece)
    writer.close()

    # What was really sent, up to the end of the connection: no client would show what
    # is behind the last chunk.
    body, behind, whole = dechunked(b"".join(pieces).partition(b"\r\n\r\n")[2])
    events = [read_event(frame) for frame in body.split(b"\n\n")]
    kinds = [event.kind for event in events if event.data]
    found = [kind for kind in kinds if kind in endings.TERMINALS]
    assert b"" == behind
    assert len(found) == (1 if whole else 0)
    assert 0 == await gateway.daemon.exited()
