"""``ok`` means delivered: log and ledger tell of what the client really got."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from sqlalchemy import Connection, select

from gateway.admission import slot_table
from gateway.client import answer as downstream
from gateway.daemon.app import components_of
from gateway.ledger.tables import request as request_table
from gateway.protocols.stream_state import StreamState
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import dechunked, question, read_event
from tests.kit.badly import raw_head
from tests.kit.gateway import Gateway
from tests.kit.logs import Line
from tests.kit.queueing import ONE, holding
from tests.kit.scripted import Exchange, ScriptedUpstream

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
LARGE = Answer(pieces=("x" * 12_000_000,))


async def row_of(gateway: Gateway, request_id: str) -> dict[str, object]:
    """The ledger's row, once nothing waits to be written."""
    ledger = components_of(gateway.inside.app).ledger
    await gateway.log.wait_for(lambda: not ledger.waiting, "the ledger does not write")
    asked = select(request_table).where(request_table.c.request_id == request_id)

    def read(connection: Connection) -> dict[str, object]:
        return dict(connection.execute(asked).one()._mapping)

    return await ledger.read(read)


def raw_request(gateway: Gateway, protocol: str, model: str, stream: bool) -> bytes:
    body = json.dumps(question(protocol, model, stream)).encode()
    lines = f"content-type: application/json\r\ncontent-length: {len(body)}"
    return raw_head(protocol, gateway, lines) + body


async def deaf_client(gateway: Gateway, data: bytes) -> socket.socket:
    """A client that has asked, and does not read."""
    host, port = gateway.base_url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    await loop.sock_sendall(sock, data)
    return sock


async def gone(gateway: Gateway) -> Line:
    """The line of the one raw request; line and row agree that its client left."""
    line = await gateway.log.wait_finished("raw-request-id")
    row = await row_of(gateway, "raw-request-id")

    assert ("client_gone", "client", 200) == (
        line["outcome"],
        line["origin"],
        line["status"],
    )
    for name in ("outcome", "origin", "error_code", "status", "output_tokens"):
        assert row[name] == line[name]
    assert line["output_tokens"]
    return line


@pytest.mark.parametrize("upstreams", ["responses", "chat"])
@each_protocol
async def test_a_whole_answer_that_was_not_taken_is_not_ok(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, upstreams: str
) -> None:
    upstream.next(plays.ok(LARGE))
    ledger = components_of(gateway.inside.app).ledger
    closed = asyncio.Event()
    close = ledger.close

    async def noted(record: object) -> None:
        await close(record)  # type: ignore[arg-type]
        closed.set()

    ledger.close = noted  # type: ignore[method-assign,assignment]
    data = raw_request(gateway, protocol, f"{upstreams}-x", stream=False)
    client = await deaf_client(gateway, data)
    await closed.wait()  # the row says ok; the answer is in our buffer
    client.close()

    await gone(gateway)


async def test_answers_that_are_not_read_keep_their_users_slots_in_the_end(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot is handed on before its client has read; but only so often."""
    monkeypatch.setattr(slot_table, "MORE_LEAVING", 1)
    gateway = await serve(limits={"max_concurrent": 1, "max_queued": 9})
    parts = components_of(gateway.inside.app)
    upstream.always(plays.ok(LARGE))
    data = raw_request(gateway, "chat", "chat-x", stream=False)
    clients = {}
    for name in ("raw-request-%d" % number for number in range(5)):
        own = data.replace(b"raw-request-id", name.encode())
        clients[name] = await deaf_client(gateway, own)

    def counts() -> list[tuple[int, int]]:
        users = parts.registry.counts("user")
        return [(one.in_use, one.waiting) for one in users if one.name == "alice"]

    def unread() -> list[str]:
        scopes = [one for one in parts.open_requests if one.sending_whole]
        return [one.record.request_id for one in scopes]

    def stuck() -> bool:
        return len(unread()) == 3 and counts() == [(1, 2)]

    await gateway.log.wait_for(stuck, "an answer is not on its way")
    assert 3 == len(upstream.received()) == len(await parts.registry.holders())

    for name in unread():
        clients.pop(name).close()
    await upstream.wait_for(5)
    for client in clients.values():
        client.close()
    await gateway.log.wait_for(lambda: [(0, 0)] == counts(), "a slot is left")
    await gateway.log.wait_for(lambda: not len(parts.open_requests), "one is left")


async def large_terminal(exchange: Exchange) -> None:
    stream = answers.stream("responses", Answer(), exchange.request.json)
    await exchange.head()
    await exchange.send(b"".join([*stream.preamble, *stream.deltas]))
    tail = b"".join(stream.tail)
    padding = b'"response":{"metadata":{"x":"%b"},' % (b"x" * 12_000_000)
    at = tail.rindex(b'"response":{')
    await exchange.send(tail[:at] + padding + tail[at + 12 :])
    await exchange.end()


async def terminal_waits(gateway: Gateway) -> None:
    """Return once a terminal is durable, and in our buffer."""
    components = components_of(gateway.inside.app)

    def waits() -> bool:
        states = [one.answer.state for one in components.open_requests if one.answer]
        return states == [StreamState.CLOSED]

    await gateway.log.wait_for(waits, "no terminal is on its way")


async def test_a_stop_while_the_terminal_is_in_the_buffer_writes_no_second_one(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.next(large_terminal)
    data = raw_request(gateway, "responses", "responses-x", stream=True)
    data = data.replace(b"host: x", b"host: x\r\nconnection: close")
    client = await deaf_client(gateway, data)
    await upstream.idle()
    await terminal_waits(gateway)
    components_of(gateway.inside.app).open_requests.end_all()
    loop, pieces = asyncio.get_running_loop(), []
    while piece := await loop.sock_recv(client, 1_000_000):
        pieces.append(piece)
    client.close()

    body, behind, whole = dechunked(b"".join(pieces).partition(b"\r\n\r\n")[2])
    assert (b"", True) == (behind, whole)
    kinds = [
        event.kind for frame in body.split(b"\n\n") if (event := read_event(frame)).data
    ]
    assert ["response.completed"] == [one for one in kinds if one in endings.TERMINALS]
    line = await gateway.log.wait_finished("raw-request-id")
    assert "ok" == line["outcome"]


async def test_a_terminal_that_was_not_taken_is_not_ok(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """It is larger than what the sockets take, so it waits in our buffer."""

    upstream.next(large_terminal)
    data = raw_request(gateway, "responses", "responses-x", stream=True)
    client = await deaf_client(gateway, data)
    await upstream.idle()
    await terminal_waits(gateway)
    client.close()

    await gone(gateway)


@each_protocol
async def test_the_row_of_a_stream_in_one_write_has_its_status(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    async def at_once(exchange: Exchange) -> None:
        stream = answers.stream(protocol, Answer(), exchange.request.json)
        await exchange.head(200, length=len(b"".join(stream.whole())))
        await exchange.send(b"".join(stream.whole()))

    upstream.next(at_once)
    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.whole(protocol, reply)
    row = await row_of(gateway, reply.request_id)
    assert ("ok", 200) == (row["outcome"], row["status"])


@pytest.mark.parametrize("max_queued", [0, 5], ids=["queue_full", "queue_timeout"])
async def test_a_refusal_in_line_tells_how_long_it_waited(
    serve: Serve, upstream: ScriptedUpstream, max_queued: int
) -> None:
    limits = {**ONE, "max_queued": max_queued, "queue_timeout_s": 0.3}
    gateway = await serve(limits={**limits, "ping_interval_s": 5.0})
    client = gateway.client()
    async with holding(client, upstream):
        reply = await client.ask("chat", "chat-x")

        assert 429 == reply.status
        line = await gateway.finished(reply)
        row = await row_of(gateway, reply.request_id)
    waited_ms = line["queue_ms"]
    assert row["queue_ms"] == pytest.approx(waited_ms, abs=0.1)
    assert waited_ms >= (300 if max_queued else 0)


@each_protocol
async def test_an_ending_bears_no_id_that_was_held_back(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Keepalives are out, and the preamble is not: the client knows no id yet."""
    gateway = await serve(limits={"ping_interval_s": 0.05})
    gate = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await plays.begin(exchange, 0, Answer(id="of-the-upstream"))
        await gate.wait()
        exchange.close()

    upstream.next(play)
    async with gateway.client().open(protocol, f"{protocol}-x") as response:
        body = await response.content.readuntil(b"\n\n")
        gate.set()
        body += await response.content.read()

    assert b"of-the-upstream" not in body
    if protocol == "responses":
        own = "resp_" + gateway.client().asked[0].replace("-", "")
        assert f'"id":"{own}"'.encode() in body


@each_protocol
async def test_a_client_that_takes_nothing_is_cut_off(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    """Else it would hold its slots, and the upstream, as long as it likes."""
    monkeypatch.setattr(downstream, "STALL_S", 0.3)
    gateway = await serve(
        limits={"ping_interval_s": 0.05}, upstream={"client_gone_drain_s": 0.0}
    )
    upstream.next(plays.flood())
    data = raw_request(gateway, protocol, f"{protocol}-x", stream=True)
    client = await deaf_client(gateway, data)
    line = await gateway.log.wait_finished("raw-request-id")
    client.close()
    await upstream.idle()

    assert "client_gone" == line["outcome"]
    assert upstream.received()[0].cut_by_client
