"""The transport's promises over websockets, by every way: TLS, proxies, frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.frames import Frame, Opcode

from gateway.errors import UpstreamError
from gateway.transport.interface import STOP, StopSignal, UpstreamResponse
from gateway.transport.websocket import socket_response, web_socket
from gateway.transport.websocket.web_socket import (
    ODD_FRAME_BYTES,
    OVERHEAD_LIMIT_BYTES,
    PIECE_BYTES,
)
from tests.kit.answer import Answer
from tests.kit.socket_upstream import messages_of
from tests.socket_peer import (
    MESSAGES,
    WAYS,
    ServerSocket,
    SocketClient,
    accept,
    socket_client,
    text,
    whole,
)
from tests.transport_peer import Peer, Script, until

TOO_MANY = OVERHEAD_LIMIT_BYTES // ODD_FRAME_BYTES + 1
Play = Callable[[ServerSocket], Awaitable[None]]


@pytest.fixture(params=WAYS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[SocketClient]:
    async with socket_client(request.param) as client:
        yield client


@pytest.fixture
async def direct() -> AsyncIterator[SocketClient]:
    async with socket_client("direct http") as client:
        yield client


def plays(*each: Play) -> Script:
    """Accept, and play one for each message; then wait for the client to leave."""

    async def script(peer: Peer) -> None:
        socket = await accept(peer)
        for play in each:
            if await socket.ask() is None:
                break
            await play(socket)
        await peer.gone()

    return script


async def good(socket: ServerSocket) -> None:
    await socket.peer.send(whole())


def sends(data: bytes) -> Play:
    async def play(socket: ServerSocket) -> None:
        await socket.peer.send(data)

    return play


async def read(response: UpstreamResponse) -> bytes:
    got = await response.body(100_000_000)
    response.close()
    return got


async def failure(response: UpstreamResponse) -> tuple[bytes, UpstreamError]:
    """What could be read, and the failure behind it."""
    got = b""
    with pytest.raises(UpstreamError) as caught:
        while piece := await response.read():
            got += piece
    response.close()
    return got, caught.value


def events(messages: list[str]) -> bytes:
    kinds = [one.split('"')[3] for one in messages]
    pairs = zip(kinds, messages)
    return b"".join(f"event: {k}\ndata: {m}\n\n".encode() for k, m in pairs)


WHOLE = events(MESSAGES)


class TestAnswer:
    async def test_an_answer_by_every_way(self, client: SocketClient) -> None:
        async with client.upstream(plays(good, good)) as server:
            first = await read(await client.open(server.url))
            second = await read(await client.open(server.url))

        assert WHOLE == first == second
        assert 1 == server.connections

    async def test_the_proxy_is_passed_by_a_tunnel(self, client: SocketClient) -> None:
        seen = []

        async def script(peer: Peer) -> None:
            seen.append(await accept(peer))
            await seen[0].ask()
            await good(seen[0])
            await peer.gone()

        async with client.upstream(script) as server:
            await read(await client.open(server.url))

        # the peer itself asserts that a CONNECT came before
        assert "/v1/x" == seen[0].request.path
        assert f"127.0.0.1:{server.url.port}" == seen[0].request.headers["Host"]

    @pytest.mark.parametrize("step", [1, 2, 7, 1000])
    async def test_any_cutting_of_the_bytes_gives_the_same_answer(
        self, client: SocketClient, step: int
    ) -> None:
        data = whole(Answer(pieces=("ä€😀", "x" * 300, "y" * 66000), id="1"))
        if step < 1000:
            data = whole()

        async def play(socket: ServerSocket) -> None:
            for i in range(0, len(data), step):
                socket.peer.writer.write(data[i : i + step])
                if step > 2 or not i % 50:
                    await asyncio.sleep(0)

        async with client.upstream(plays(play)) as server:
            got = await read(await client.open(server.url))

        assert got.endswith(b"\n\n") and got.count(b"event: ") == data.count(
            b'{"type":"resp'
        )

    async def test_pump_passes_what_one_read_brought_as_one_piece(
        self, direct: SocketClient
    ) -> None:
        pieces = []

        def feed(piece: bytes) -> StopSignal | None:
            pieces.append(piece)
            return STOP if b"response.completed" in piece else None

        async def play(socket: ServerSocket) -> None:
            await socket.text(*MESSAGES[:6])
            await until(lambda: bool(pieces))
            await socket.text(*MESSAGES[6:])

        async with direct.upstream(plays(play)) as server:
            response = await direct.open(server.url)
            await response.pump(feed)
            response.close()
            assert 1 == len(direct.pool.idle)

        assert WHOLE == b"".join(pieces)
        assert len(pieces) <= 3

    async def test_a_pretty_message_is_one_event(self, direct: SocketClient) -> None:
        pretty = '{\n"type":\r\n"response.completed",\r"response":{"id":"r"}}'
        async with direct.upstream(plays(sends(text(pretty)))) as server:
            got = await read(await direct.open(server.url))

        assert (
            b'event: response.completed\ndata: {\ndata: "type":\n'
            b'data: "response.completed",\ndata: "response":{"id":"r"}}\n\n'
        ) == got

    async def test_items_are_put_into_a_whole_answer_that_lacks_them(
        self, direct: SocketClient
    ) -> None:
        done = '{"type":"response.output_item.done","item":{"type":"message","id":"i"}}'
        end = '{"type":"response.completed","response":{"id":"r","output":[]}}'
        async with direct.upstream(plays(sends(text(done) + text(end)))) as server:
            got = await read(await direct.open(server.url, b'{"model":"m"}'))

        assert b'{"id":"r","output":[{"type":"message","id":"i"}]}' == got


class TestFrames:
    async def test_pieces_and_control_frames_between_them(
        self, client: SocketClient
    ) -> None:
        async def play(socket: ServerSocket) -> None:
            for message in MESSAGES:
                data = message.encode()
                await socket.frames(
                    Frame(Opcode.TEXT, data[:10], fin=False),
                    Frame(Opcode.PING, b"are you there"),
                    Frame(Opcode.CONT, data[10:20], fin=False),
                    Frame(Opcode.PONG, b"unasked"),
                    Frame(Opcode.CONT, b"", fin=False),
                    Frame(Opcode.CONT, data[20:], fin=True),
                )
            await socket.ask()
            assert socket.pongs[-1] == b"are you there"

        async with client.upstream(plays(play)) as server:
            got = await read(await client.open(server.url))
            await client.transport.stop()
            await server.played()

        assert WHOLE == got

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            pytest.param(b"\x83\x01x", "upstream_malformed", id="reserved-opcode"),
            pytest.param(b"\xc1\x01x", "upstream_malformed", id="compressed"),
            pytest.param(b"\x81\x81aaaax", "upstream_malformed", id="masked"),
            pytest.param(b"\x80\x01x", "upstream_malformed", id="piece-of-nothing"),
            pytest.param(b"\x01\x01x\x81\x01x", "upstream_malformed", id="interrupted"),
            pytest.param(b"\x82\x01x", "upstream_malformed", id="binary"),
            pytest.param(b"\x81\x01\xff", "upstream_malformed", id="no-utf-8"),
            pytest.param(b"\x09\x01x", "upstream_malformed", id="ping-in-pieces"),
            pytest.param(
                b"\x89\x7e\x00\x80" + b"x" * 128, "upstream_malformed", id="large-ping"
            ),
            pytest.param(b"\x88\x01x", "upstream_malformed", id="half-a-close-code"),
            pytest.param(
                b"\x81\x7f" + (1 << 40).to_bytes(8, "big"),
                "upstream_too_large",
                id="too-large",
            ),
            pytest.param(
                b"\x81\x7f\xff" + b"\xff" * 7, "upstream_too_large", id="largest"
            ),
            pytest.param(
                b"\x89\x00" * TOO_MANY,
                "upstream_malformed",
                id="nothing-but-pings",
            ),
            pytest.param(
                b"\x01\x00" + b"\x00\x00" * TOO_MANY,
                "upstream_malformed",
                id="nothing-but-empty-pieces",
            ),
        ],
    )
    async def test_what_no_server_may_send(
        self, direct: SocketClient, bad: bytes, code: str
    ) -> None:
        async with direct.upstream(
            plays(sends(b"".join(map(text, MESSAGES[:6])) + bad))
        ) as server:
            got, error = await failure(await direct.open(server.url))

        assert code == error.code
        assert got == events(MESSAGES[:6])
        assert not direct.pool.live and 1 == server.connections

    async def test_the_pieces_of_a_message_are_bounded_together(
        self, direct: SocketClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "gateway.transport.websocket.upgrade.MAX_MESSAGE_BYTES", 5000
        )
        first = Frame(Opcode.TEXT, b"x" * 4000, fin=False).serialize(mask=False)
        second = Frame(Opcode.CONT, b"x" * 4000, fin=True).serialize(mask=False)
        async with direct.upstream(plays(sends(first + second))) as server:
            with pytest.raises(UpstreamError) as caught:
                await direct.open(server.url)

        assert "upstream_too_large" == caught.value.code

    async def test_a_large_request_leaves_room_for_a_pong(
        self, client: SocketClient
    ) -> None:
        """It leaves in pieces, and the server's ping is answered between two."""
        body = b'{"stream":true,"model":"m","input":"%b"}' % (b"x" * 3 * PIECE_BYTES)
        order = []

        async def script(peer: Peer) -> None:
            socket = await accept(peer)
            await socket.frames(Frame(Opcode.PING, b"still there"))
            while frame := await socket.frame():
                order.append((frame.opcode, len(frame.data)))
                if frame.fin and frame.opcode is Opcode.CONT:
                    break
            await good(socket)
            await peer.gone()

        async with client.upstream(script) as server:
            got = await read(await client.open(server.url, body))

        assert WHOLE == got
        kinds = [opcode for opcode, _ in order]
        assert Opcode.PONG in kinds[:-1]
        assert all(size <= PIECE_BYTES for _, size in order)
        assert sum(size for opcode, size in order if opcode is not Opcode.PONG) > len(
            body
        )


class TestUpgrade:
    @pytest.mark.parametrize("step", [1, 5, 10_000])
    async def test_the_answer_may_come_in_pieces_and_with_the_first_frame(
        self, client: SocketClient, step: int
    ) -> None:
        limits = text('{"type":"codex.rate_limits"}')

        async def script(peer: Peer) -> None:
            head: list[bytes] = []

            async def collect(data: bytes) -> None:
                head.append(data)

            real, peer.send = peer.send, collect  # type: ignore[method-assign]
            await accept(peer)
            peer.send = real  # type: ignore[method-assign]
            data = b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + head[0] + limits
            for i in range(0, len(data), step):
                await peer.send(data[i : i + step])
            await peer.reader.readexactly(10)
            await peer.send(whole())
            await peer.gone()

        async with client.upstream(script) as server:
            got = await read(await client.open(server.url))

        assert got.endswith(WHOLE)  # the frame may come before the request

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(b"no HTTP at all\r\n\r\n", id="no-http"),
            pytest.param(b"HTTP/1.1 101 X\r\n\r\n", id="no-accept"),
            pytest.param(
                b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: AAAA\r\n\r\n",
                id="wrong-accept",
            ),
            pytest.param(b"HTTP/1.1 404 X\r\n\r\nuntil the end", id="until-close"),
            pytest.param(b"HTTP/1.1 426 X\r\nContent-Length: 9\r\n\r\nab", id="short"),
            pytest.param(b"x" * 70000, id="endless-head"),
            pytest.param(b"", id="nothing"),
        ],
    )
    async def test_any_other_answer_leads_to_http(
        self, direct: SocketClient, answer: bytes
    ) -> None:
        ended = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

        async def refuse(peer: Peer) -> None:
            await peer.head()
            await peer.send(answer)
            peer.close()

        async def serve(peer: Peer) -> None:
            for _ in range(2):
                await peer.answer(ended)
            await peer.gone()

        async with direct.upstream(refuse, serve) as server:
            first = await read(await direct.open(server.url))
            second = await read(await direct.open(server.url))

        assert b"ok" == first == second
        assert 2 == server.connections

    async def test_a_refusal_that_never_ends_is_given_up(
        self, direct: SocketClient
    ) -> None:
        async def refuse(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\na")
            await peer.gone()

        async def serve(peer: Peer) -> None:
            await peer.answer(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
            await peer.gone()

        async with direct.upstream(refuse, serve) as server:
            response = await direct.open(server.url, connect_timeout_s=0.1)
            response.close()

        assert 503 == response.status

    @pytest.mark.parametrize("state", ["dialling", "upgrading", "waiting"])
    async def test_a_cancelled_request_leaves_nothing(
        self, client: SocketClient, state: str
    ) -> None:
        reached = asyncio.Event()

        async def script(peer: Peer) -> None:
            if state == "upgrading":
                await peer.head()
            elif state == "waiting":
                socket = await accept(peer)
                await socket.ask()
            reached.set()
            await peer.gone()

        async with client.upstream(script) as server:
            task = asyncio.create_task(client.open(server.url))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.played()
            await until(lambda: not client.pool.live)

        assert not +client.pool._opening


class TestPressure:
    async def test_a_reader_that_does_not_read_stops_the_upstream(
        self, client: SocketClient
    ) -> None:
        """Bounded memory, and nothing is lost."""
        delta = '{"type":"response.output_text.delta","delta":"%s"}' % ("x" * 8000)
        sent = 0

        async def play(socket: ServerSocket) -> None:
            nonlocal sent
            await socket.text(*MESSAGES[:6])
            for _ in range(2500):
                await socket.text(delta)
                sent += 1
            await socket.text(MESSAGES[-1])

        async with client.upstream(plays(play)) as server:
            response = await client.open(server.url)
            assert isinstance(response, socket_response.SocketResponse)
            await until(lambda: not response._connection.is_reading)
            held, stopped_at = len(response._buffer), sent
            total = 0
            while piece := await response.read():
                total += piece.count(b'"delta":"xxx')
            response.close()

        assert held < socket_response.BUFFER_BYTES + 400_000
        assert stopped_at < 2500 == total

    async def test_a_slow_reader_answers_pings(self, direct: SocketClient) -> None:
        gate = asyncio.Event()

        async def play(socket: ServerSocket) -> None:
            await socket.text(*MESSAGES[:8])
            await socket.frames(Frame(Opcode.PING, b"1"))
            frame = await socket.frame()
            assert frame and (Opcode.PONG, b"1") == (frame.opcode, bytes(frame.data))
            gate.set()
            await socket.text(*MESSAGES[8:])

        async def wait() -> None:
            await gate.wait()

        async with direct.upstream(plays(play)) as server:
            response = await direct.open(server.url)
            got = []

            def feed(piece: bytes) -> Awaitable[None]:
                got.append(piece)
                return wait()

            await response.pump(feed)
            response.close()
            await direct.transport.stop()
            await server.played()

        assert WHOLE == b"".join(got)

    async def test_an_exception_of_the_feed_is_raised_and_costs_the_socket(
        self, direct: SocketClient
    ) -> None:
        def feed(piece: bytes) -> None:
            raise UpstreamError("upstream_cut", detail="of the feed")

        async with direct.upstream(plays(good)) as server:
            response = await direct.open(server.url)
            with pytest.raises(UpstreamError, match="upstream_cut"):
                await response.pump(feed)
            response.close()

        assert 1 == server.connections


class TestPool:
    async def test_idle_sockets_answer_pings_and_are_pinged(self) -> None:
        seen = []

        async def script(peer: Peer) -> None:
            socket = await accept(peer)
            await socket.ask()
            await good(socket)
            await socket.frames(Frame(Opcode.PING, b"idle?"))
            while frame := await socket.frame():
                seen.append(frame.opcode)
                if frame.opcode is Opcode.PING and seen.count(Opcode.PING) < 3:
                    await socket.frames(Frame(Opcode.PONG, frame.data))

        async with socket_client("direct http", ping_every_s=0.02) as client:
            async with client.upstream(script) as server:
                await read(await client.open(server.url))
                await until(lambda: not client.pool.live)  # the third had no pong

        assert seen[0] is Opcode.PONG and 3 <= seen.count(Opcode.PING)

    @pytest.mark.parametrize("limits", [{"idle_s": 0.03}, {"max_age_s": 0.03}])
    async def test_an_idle_socket_is_closed_at_its_limit(
        self, limits: dict[str, float]
    ) -> None:
        async def script(peer: Peer) -> None:
            socket = await accept(peer)
            await socket.ask()
            await good(socket)
            while frame := await socket.frame():
                if frame.opcode is Opcode.PING:
                    await socket.frames(Frame(Opcode.PONG, frame.data))
                elif frame.opcode is Opcode.CLOSE:
                    assert b"\x03\xe8" == bytes(frame.data)  # 1000
                    return
            raise AssertionError("closed without a word")

        async with socket_client("direct http", ping_every_s=0.01, **limits) as client:
            async with client.upstream(script) as server:
                await read(await client.open(server.url))
                await until(lambda: not client.pool.live)
                await server.played()

    async def test_an_old_socket_serves_no_other_request(self) -> None:
        async with socket_client("direct http", max_age_s=0.0) as client:
            async with client.upstream(plays(good)) as server:
                for _ in range(2):
                    await read(await client.open(server.url))

        assert 2 == server.connections

    async def test_an_account_has_a_bounded_number(self) -> None:
        """The idle of the user who has most make room; without one: HTTP."""
        http = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

        async def script(peer: Peer) -> None:
            head = await peer.reader.readexactly(4)
            if head == b"POST":
                await peer.request()
                await peer.send(http)
                await peer.gone()
                return
            peer.reader._buffer[:0] = head  # type: ignore[attr-defined]
            await plays(good, good)(peer)

        async with socket_client("direct http", max_per_account=3) as client:
            async with client.upstream(script) as server:
                for user in ("one", "one", "other"):
                    headers = (("session-id", f"{user}{len(server.peers)}"),)
                    response = await client.open(server.url, user=user, headers=headers)
                    await read(response)
                held = await client.open(server.url, user="third")
                assert {"one", "other", "third"} == {
                    one.key.user
                    for one in client.pool.live.values()
                    if one.socket.is_usable
                }
                more = [await client.open(server.url, user=x) for x in "ab"]
                over = await client.open(server.url, user="c")
                assert b"ok" == await read(over)
                for response in (held, *more):
                    assert WHOLE == await read(response)

        assert 0 == len(client.pool.live)

    async def test_a_changed_account_loses_its_sockets(
        self, direct: SocketClient
    ) -> None:
        direct.transport.replace({"a": 1, "b": 1})
        async with direct.upstream(plays(good, good)) as server:
            await read(await direct.open(server.url))
            direct.transport.replace({"a": 1, "b": 2})
            assert 1 == len(direct.pool.idle)
            busy = await direct.open(server.url)
            direct.transport.replace({"a": 2})
            assert WHOLE == await read(busy)
            await until(lambda: not direct.pool.live)
            await read(await direct.open(server.url))
            direct.transport.replace({})
            await until(lambda: not direct.pool.live)

        assert 2 == server.connections


async def test_the_stop_ends_what_is_under_way(direct: SocketClient) -> None:
    async with direct.upstream(
        plays(sends(b"".join(map(text, MESSAGES[:6]))))
    ) as server:
        response = await direct.open(server.url)
        stopping = asyncio.create_task(direct.transport.stop())
        _, error = await failure(response)
        await stopping

    assert "upstream_reset" == error.code


def test_the_bounds_are_those_of_events() -> None:
    from gateway.protocols.sse import MAX_EVENT_BYTES
    from gateway.transport.websocket.upgrade import MAX_MESSAGE_BYTES

    assert MAX_MESSAGE_BYTES == MAX_EVENT_BYTES
    assert web_socket.PIECE_BYTES <= MAX_MESSAGE_BYTES
    assert messages_of(Answer(), {})
