"""Between upstream and client nothing piles up: who reads slowly slows the upstream."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import read_reply
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import HASTY

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
    before = resident_bytes(gateway.daemon.pid)
    upstream.always(plays.flood(PIECE))
    async with client.open(protocol, f"{protocol}-x") as response:
        request = (await upstream.wait_for(2))[1]
        sent = await settled(lambda: request.sent_bytes)
        grown = resident_bytes(gateway.daemon.pid) - before
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
    before = resident_bytes(gateway.daemon.pid)
    gate = asyncio.Event()
    upstream.always(plays.held(gate))
    opened = [client.open(protocol, f"{protocol}-x", **asked) for _ in range(10)]
    responses = [await one.__aenter__() for one in opened]
    for response in responses:
        await response.content.readuntil(b"All ")  # the first output

    grown = resident_bytes(gateway.daemon.pid) - before

    gate.set()
    for one, response in zip(opened, responses):
        assert b"well" in (await read_reply(response, 0.0)).body
        await one.__aexit__(None, None, None)
    assert grown < 25 * 1024 * 1024, grown  # 7 are the bytes


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
    hidden = 400 if protocol == "chat" else 0  # the usage that nobody asked for
    assert upstream_bytes - hidden <= len(body) <= upstream_bytes


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_gateway_that_was_paused_blames_no_upstream(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """What came while the process stood still is there, and is read first."""
    gateway = await serve(daemon=True, upstream=HASTY)
    upstream.next(plays.ok(head_after_s=0.3, interval_s=0.6))
    asked = asyncio.create_task(gateway.client().ask(protocol, f"{protocol}-x"))
    await upstream.wait_for(1)
    for pause_s in (1.5, 1.5):  # before the first event, and amid the others
        os.kill(gateway.daemon.pid, signal.SIGSTOP)
        await asyncio.sleep(pause_s)
        os.kill(gateway.daemon.pid, signal.SIGCONT)
        await asyncio.sleep(0.05)

    endings.whole(protocol, await asked)


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_stop_while_the_terminal_is_on_its_way(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """A reader that stalls before a large terminal still gets one ending, not two."""
    gateway = await serve(daemon=True, server={"drain_timeout_s": 0.2})
    text = "x" * 12_000_000
    upstream.next(plays.ok(Answer(pieces=(text,))))
    async with gateway.client().open(protocol, f"{protocol}-x") as response:
        await upstream.wait_for(1)
        await settled(lambda: upstream.requests[0].sent_bytes)
        gateway.daemon.terminate()
        await gateway.log.wait_for(
            lambda: gateway.log.events("server.draining"), "it did not drain"
        )
        await asyncio.sleep(0.4)
        reply = await read_reply(response, 0.0)

    if reply.broken:  # the process did not wait for it; half an event is no ending
        reply.body = reply.body[: reply.body.rfind(b"\n\n") + 2]
    kinds = [event.kind for event in reply.events if event.kind in endings.TERMINALS]
    assert len(kinds) == (0 if reply.broken else 1)
    assert 0 == await gateway.daemon.exited()
