"""The transport's promises, by every way: with TLS or not, directly or by a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport.dialing import tls_context
from gateway.transport.http_transport import HttpTransport
from gateway.transport.interface import STOP, StopSignal, UpstreamResponse
from tests.transport_peer import (
    CHUNKED,
    KINDS,
    LAST_CHUNK,
    Client,
    Peer,
    chunk,
    closes_after,
    post,
    replays,
    server_tls,
    sized,
    until,
)


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with Client(request.param) as client:
        yield client


def kept(client: Client) -> int:
    """How many connections wait for another request."""
    transport = client.transport
    if isinstance(transport, HttpTransport):
        return transport.pool.idle_count
    session = transport._session
    assert session is not None and session.connector is not None
    return sum(map(len, session.connector._conns.values()))


async def failure(reply: UpstreamResponse) -> tuple[bytes, str]:
    """What could be read, and the code of the failure after it."""
    got = b""
    with pytest.raises(UpstreamError) as caught:
        while piece := await reply.read():
            got += piece
    reply.close()
    return got, caught.value.code


OLD = b"HTTP/1.0 200 OK\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class TestFraming:
    @pytest.mark.parametrize(
        "answer, expected",
        [
            pytest.param(sized(b"abc"), b"abc", id="content-length"),
            pytest.param(sized(b""), b"", id="content-length-zero"),
            pytest.param(
                CHUNKED + chunk(b"ab") + chunk(b"c") + LAST_CHUNK, b"abc", id="chunks"
            ),
            pytest.param(
                CHUNKED + b"3;name=x\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
                b"abc",
                id="chunk-extension-and-trailer",
            ),
            pytest.param(UNTIL_CLOSE + b"abc", b"abc", id="until-close"),
            pytest.param(UNTIL_CLOSE, b"", id="until-close-empty"),
            pytest.param(OLD + b"abc", b"abc", id="http-1.0"),
            pytest.param(
                b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                b"abc",
                id="http-1.0-with-length",
            ),
            pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204-has-no-body"),
            pytest.param(
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                b"",
                id="304-has-no-body",
            ),
            pytest.param(CONTINUE + sized(b"abc"), b"abc", id="100-is-skipped"),
            pytest.param(
                CONTINUE + EARLY_HINTS + CHUNKED + chunk(b"abc") + LAST_CHUNK,
                b"abc",
                id="100-and-103-are-skipped",
            ),
        ],
    )
    async def test_body_ends_where_its_framing_says(
        self, client: Client, answer: bytes, expected: bytes
    ) -> None:
        async with client.upstream(closes_after(answer)) as server:
            reply = await post(client, server.url)
            got = await reply.body(1000)
            reply.close()

        assert expected == got
        assert "link" not in reply.headers

    @pytest.mark.parametrize("step", [1, 2, 7])
    async def test_any_cutting_of_the_bytes_gives_the_same_answer(
        self, client: Client, step: int
    ) -> None:
        answer = CHUNKED + chunk(b"event") + chunk(b": x" * 9) + LAST_CHUNK

        async def script(peer: Peer) -> None:
            await peer.request()
            for i in range(0, len(answer), step):
                await peer.send(answer[i : i + step])
                await asyncio.sleep(0)
            await peer.gone()

        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            got = await reply.body(1000)
            reply.close()

        assert b"event" + b": x" * 9 == got

    async def test_head_answer_has_no_body_whatever_its_length_says(
        self, client: Client
    ) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        async with client.upstream(replays(answer, sized(b"next"))) as server:
            reply = await post(client, server.url, b"", method="HEAD")
            nothing = await reply.read()
            reply.close()
            second = await post(client, server.url)
            something = await second.read()
            second.close()

        assert (b"", b"next") == (nothing, something)
        assert 1 == server.connections

    async def test_status_and_headers_are_returned(self, client: Client) -> None:
        answer = sized(b"no", "X-One:  a \r\nX-Two: b\r\nx-two: c\r\n", "429 Slow")
        async with client.upstream(replays(answer)) as server:
            reply = await post(client, server.url)
            reply.close()

        assert 429 == reply.status
        assert "a" == reply.headers["x-one"]
        assert ["b", "c"] == reply.headers.getall("X-TWO")

    async def test_redirects_are_not_followed(self, client: Client) -> None:
        answer = sized(b"", "Location: /other\r\n", "302 Found")
        async with client.upstream(replays(answer)) as server:
            reply = await post(client, server.url)
            reply.close()

        assert 302 == reply.status

    async def test_cookies_are_not_kept(self, client: Client) -> None:
        requests = []

        async def script(peer: Peer) -> None:
            for _ in range(2):
                answer = sized(b"a", "Set-Cookie: a=b\r\n")
                requests.append(await peer.answer(answer))
            await peer.gone()

        async with client.upstream(script) as server:
            for _ in range(2):
                reply = await post(client, server.url)
                await reply.read()
                reply.close()

        assert b"cookie" not in requests[1].head.lower()


class TestRequest:
    async def test_request_goes_out_exactly(self, client: Client) -> None:
        headers = (("X-Codex-Turn", "é"), ("authorization", "Bearer k"))
        seen = []

        async def script(peer: Peer) -> None:
            seen.append(await peer.answer(sized(b"")))

        async with client.upstream(script) as server:
            url = server.url.update_query(a="1", b="ö")
            reply = await post(client, url, b'{"a": 1}', headers)
            reply.close()
            lines = seen[0].head.decode().split("\r\n")

        assert lines[0] == f"POST {client.request_target(url)} HTTP/1.1"
        assert lines[0].endswith("/v1/x?a=1&b=%C3%B6 HTTP/1.1")
        assert [
            f"Host: 127.0.0.1:{server.url.port}",
            "Accept-Encoding: identity",
            "Content-Length: 8",
            "X-Codex-Turn: é",
            "authorization: Bearer k",
        ] == lines[1:-2]
        assert b'{"a": 1}' == seen[0].body

    async def test_large_body_arrives_whole(self, client: Client) -> None:
        body = bytes(range(256)) * 4096 * 5
        seen = []

        async def script(peer: Peer) -> None:
            seen.append(await peer.answer(sized(b"ok")))
            seen.append(await peer.answer(sized(b"ok")))
            await peer.gone()

        async with client.upstream(script) as server:
            for _ in range(2):
                reply = await post(client, server.url, body)
                await reply.body(10)
                reply.close()

        assert body == seen[0].body == seen[1].body
        assert 1 == server.connections

    async def test_answer_may_come_before_the_request_is_out(
        self, client: Client
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(sized(b"too large", status="413 Too Large"))
            await left.wait()

        left = asyncio.Event()
        async with client.upstream(script, replays(sized(b"ok"))) as server:
            reply = await post(client, server.url, bytes(30_000_000))
            got = await reply.body(100)
            reply.close()
            second = await post(client, server.url)
            second.close()
            left.set()

        assert (413, b"too large") == (reply.status, got)
        assert 2 == server.connections  # half a request makes the first useless

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param((("a", "b\r\nc: d"),), id="crlf-in-value"),
            pytest.param((("a", "b\nc: d"),), id="lf-in-value"),
            pytest.param((("a", "b\0"),), id="nul-in-value"),
            pytest.param((("a\r\nb", "c"),), id="crlf-in-name"),
            pytest.param((("a b", "c"),), id="blank-in-name"),
        ],
    )
    async def test_injection_is_the_callers_mistake(
        self, client: Client, headers: tuple[tuple[str, str], ...]
    ) -> None:
        with pytest.raises(ValueError):
            await post(client, URL("http://127.0.0.1:1/"), b"", headers)


class TestFailures:
    @pytest.mark.parametrize(
        "answer, code",
        [
            pytest.param(b"", "upstream_reset", id="nothing"),
            pytest.param(b"HTTP/1.1 200", "upstream_reset", id="inside-status-line"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Len", "upstream_reset", id="inside-head"
            ),
            pytest.param(CONTINUE, "upstream_reset", id="after-100"),
            pytest.param(b"SSH-2.0-x\r\n\r\n", "upstream_malformed", id="not-http"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
                "upstream_malformed",
                id="head-too-large",
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                "upstream_malformed",
                id="length-is-no-number",
            ),
        ],
    )
    async def test_no_head(self, client: Client, answer: bytes, code: str) -> None:
        async with client.upstream(closes_after(answer)) as server:
            with pytest.raises(UpstreamError) as caught:
                await post(client, server.url)

        assert code == caught.value.code
        assert caught.value.detail

    @pytest.mark.parametrize(
        "answer, expected",
        [
            pytest.param(
                CHUNKED + chunk(b"abc"), (b"abc", "upstream_cut"), id="last-chunk-lacks"
            ),
            pytest.param(
                CHUNKED + b"5\r\nabc", (b"abc", "upstream_cut"), id="inside-chunk"
            ),
            pytest.param(CHUNKED, (b"", "upstream_cut"), id="before-first-chunk"),
            pytest.param(
                CHUNKED + chunk(b"abc") + b"0\r\n",
                (b"abc", "upstream_cut"),
                id="inside-last-chunk",
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
                (b"abc", "upstream_cut"),
                id="length-not-reached",
            ),
        ],
    )
    async def test_cut_body(
        self, client: Client, answer: bytes, expected: tuple[bytes, str]
    ) -> None:
        async with client.upstream(closes_after(answer)) as server:
            reply = await post(client, server.url)
            got = await failure(reply)

        assert expected == got

    async def test_reset_inside_the_body(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(b"abc"))
            await read.wait()
            peer.reset()

        read = asyncio.Event()
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            first = await reply.read()
            read.set()
            got = await failure(reply)

        assert b"abc" == first
        assert (b"", "upstream_reset") == got

    async def test_reset_before_the_head(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            peer.reset()

        async with client.upstream(script) as server:
            with pytest.raises(UpstreamError) as caught:
                await post(client, server.url)

        assert "upstream_reset" == caught.value.code
        assert 1 == server.connections  # a fresh connection is not tried again

    async def test_silence_inside_the_body(self, client: Client) -> None:
        async with client.upstream(replays(CHUNKED + chunk(b"abc"))) as server:
            reply = await post(client, server.url, idle_timeout_s=0.02)
            got = await failure(reply)
            await server.played()

        assert (b"abc", "upstream_idle") == got

    @pytest.mark.parametrize("before_s", [600, 0])
    async def test_silence_limit_may_change_on_the_way(
        self, client: Client, before_s: float
    ) -> None:
        """0 is no limit, until another comes."""
        async with client.upstream(replays(CHUNKED + chunk(b"abc"))) as server:
            reply = await post(client, server.url, idle_timeout_s=before_s)
            first = await reply.read()
            reply.idle_timeout_s = 0.02
            got = await failure(reply)

        assert b"abc" == first
        assert (b"", "upstream_idle") == got

    async def test_wait_for_the_head_is_not_silence(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await asyncio.sleep(0.1)
            await peer.send(sized(b"abc"))

        async with client.upstream(script) as server:
            reply = await post(client, server.url, idle_timeout_s=0.02)
            got = await reply.body(10)
            reply.close()

        assert b"abc" == got

    async def test_refused_connection(self, client: Client) -> None:
        async with client.upstream(replays()) as server:
            pass
        with pytest.raises(UpstreamError) as caught:
            await post(client, server.url)

        assert "upstream_connect" == caught.value.code

    async def test_unknown_name(self, client: Client) -> None:
        with pytest.raises(UpstreamError) as caught:
            await post(client, URL("http://no-such-host.invalid/"))

        assert "upstream_connect" == caught.value.code

    async def test_body_above_the_limit(self, client: Client) -> None:
        async with client.upstream(replays(sized(b"12345"), sized(b"12345"))) as server:
            reply = await post(client, server.url)
            assert b"12345" == await reply.body(5)
            reply.close()
            reply = await post(client, server.url)
            with pytest.raises(UpstreamError) as caught:
                await reply.body(4)
            reply.close()

        assert "upstream_too_large" == caught.value.code


class TestPump:
    async def test_every_piece_in_order_then_the_end(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED)
            for i in range(50):
                await peer.send(chunk(b"<%d>" % i))
                await asyncio.sleep(0)
            await peer.send(LAST_CHUNK)
            await peer.gone()

        got: list[bytes] = []
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            await reply.pump(got.append)
            reply.close()

        assert b"".join(b"<%d>" % i for i in range(50)) == b"".join(got)

    async def test_begins_with_what_the_reads_left(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(b"one"))
            await read.wait()
            await peer.send(chunk(b"two") + LAST_CHUNK)
            await peer.gone()

        read = asyncio.Event()
        got: list[bytes] = []
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            first = await reply.read()
            read.set()
            await asyncio.sleep(0.02)
            await reply.pump(got.append)
            reply.close()

        assert (b"one", b"two") == (first, b"".join(got))

    async def test_stop_ends_it_and_a_second_pump_goes_on(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(b"one"))
            await stopped.wait()
            await peer.send(chunk(b"two") + LAST_CHUNK)
            await peer.gone()

        def once(piece: bytes) -> StopSignal:
            got.append(piece)
            return STOP

        stopped = asyncio.Event()
        got: list[bytes] = []
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            await reply.pump(once)
            stopped.set()
            await reply.pump(got.append)
            reply.close()

        assert [b"one", b"two"] == got

    @pytest.mark.parametrize("late", [False, True])
    async def test_feeds_exception_is_raised(self, client: Client, late: bool) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + (b"" if late else chunk(b"one")))
            await asyncio.sleep(0.01)
            with suppress(ConnectionError):  # over TLS it is seen at once
                await peer.send(chunk(b"two"))
            await peer.gone()

        def refuse(piece: bytes) -> None:
            raise KeyError(piece)

        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            with pytest.raises(KeyError):
                await reply.pump(refuse)
            reply.close()
            await server.played()

    async def test_awaitables_exception_is_raised(self, client: Client) -> None:
        async def broken() -> None:
            await asyncio.sleep(0)
            raise KeyError("downstream")

        async with client.upstream(replays(CHUNKED + chunk(b"one"))) as server:
            reply = await post(client, server.url)
            with pytest.raises(KeyError):
                await reply.pump(lambda piece: broken())
            reply.close()

    async def test_failure_comes_after_the_last_piece(self, client: Client) -> None:
        got: list[bytes] = []
        answer = CHUNKED + chunk(b"one")
        async with client.upstream(closes_after(answer)) as server:
            reply = await post(client, server.url)
            with pytest.raises(UpstreamError) as caught:
                await reply.pump(got.append)
            reply.close()

        assert [b"one"] == got
        assert "upstream_cut" == caught.value.code

    async def test_nothing_is_lost_or_reordered_while_held(
        self, client: Client
    ) -> None:
        """Back-pressure after every piece; the bytes still come once and in order."""
        sent = b"".join(b"%07d " % i for i in range(100_000))

        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED)
            for i in range(0, len(sent), 50_000):
                await peer.send(chunk(sent[i : i + 50_000]))
            await peer.send(LAST_CHUNK)
            await peer.gone()

        async def drain() -> None:
            nonlocal held
            held += 1
            await asyncio.sleep(0)
            held -= 1

        def feed(piece: bytes) -> object:
            assert 0 == held
            got.append(piece)
            return drain()

        held = 0
        got: list[bytes] = []
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            await reply.pump(feed)  # type: ignore[arg-type]
            reply.close()

        assert sent == b"".join(got)

    async def test_cancelled_while_waiting_it_can_be_taken_up_again(
        self, client: Client
    ) -> None:
        """A client that leaves is drained by another pump."""

        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(b"one"))
            await cancelled.wait()
            await peer.send(chunk(b"two") + LAST_CHUNK)
            await peer.gone()

        cancelled = asyncio.Event()
        fed = asyncio.Event()
        got: list[bytes] = []

        def feed(piece: bytes) -> None:
            got.append(piece)
            fed.set()

        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            task = asyncio.ensure_future(reply.pump(feed))
            await fed.wait()
            task.cancel()
            await asyncio.wait([task])
            cancelled.set()
            await reply.pump(feed)
            reply.close()

        assert [b"one", b"two"] == got


class TestBackPressure:
    async def sent_before_it_blocks(self, reply_wants: str, client: Client) -> int:
        """How much an upstream can send while nothing reads it."""
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.answer(CHUNKED)
            for _ in range(400):
                await peer.send(chunk(bytes(65536)))
                sent += 65536

        async def drain() -> None:
            await never

        never = asyncio.get_running_loop().create_future()
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            task = None
            if reply_wants == "pump":
                task = asyncio.ensure_future(reply.pump(lambda piece: drain()))
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.1)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            reply.close()
        return sent

    @pytest.mark.parametrize("reply_wants", ["nothing", "pump"])
    async def test_unread_body_stays_with_the_upstream(
        self, reply_wants: str, client: Client
    ) -> None:
        """26 MB are offered; the kernel's buffers and ours take a few of them."""
        sent = await self.sent_before_it_blocks(reply_wants, client)

        assert sent < 12_000_000

    async def test_own_pause_is_no_silence(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(bytes(200_000)))
            await held.wait()
            await peer.send(chunk(b"end") + LAST_CHUNK)
            await peer.gone()

        async def drain() -> None:
            await asyncio.sleep(0.4)
            held.set()

        held = asyncio.Event()
        got = bytearray()

        def feed(piece: bytes) -> object:
            got.extend(piece)
            return None if held.is_set() else drain()

        async with client.upstream(script) as server:
            reply = await post(client, server.url, idle_timeout_s=0.25)
            await reply.pump(feed)  # type: ignore[arg-type]
            reply.close()

        assert bytes(200_000) + b"end" == bytes(got)


class TestClose:
    async def test_read_whole_the_connection_serves_again(self, client: Client) -> None:
        answers = (sized(b"1"), CHUNKED + chunk(b"2") + LAST_CHUNK, sized(b"3"))
        async with client.upstream(replays(*answers)) as server:
            for expected in (b"1", b"2", b"3"):
                reply = await post(client, server.url)
                assert expected == await reply.body(10)
                reply.close()

        assert 1 == server.connections

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(sized(b"1", "Connection: close\r\n"), id="connection-close"),
            pytest.param(
                b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1", id="http-1.0"
            ),
            pytest.param(sized(b"1") + b"HTTP/1.1 200 OK\r\n\r\n", id="another-answer"),
        ],
    )
    async def test_connection_that_must_not_serve_again(
        self, client: Client, answer: bytes
    ) -> None:
        async with client.upstream(replays(answer), replays(sized(b"2"))) as server:
            reply = await post(client, server.url)
            first = await reply.body(10)
            reply.close()
            reply = await post(client, server.url)
            second = await reply.body(10)
            reply.close()

        assert (b"1", b"2") == (first, second)
        assert 2 == server.connections

    async def test_unfinished_the_upstream_sees_it_at_once(
        self, client: Client
    ) -> None:
        async with client.upstream(replays(CHUNKED + chunk(b"abc"))) as server:
            reply = await post(client, server.url)
            await reply.read()
            reply.close()
            reply.close()
            async with asyncio.timeout(5):  # kept, it would stay for 55 s
                await server.played()

    async def test_lingering_ends_at_the_bodys_end(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(b"terminal"))
            await closed.wait()
            await peer.send(chunk(b"rest") + LAST_CHUNK)
            await peer.answer(sized(b"second"))
            await peer.gone()

        closed = asyncio.Event()
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            await reply.pump(lambda piece: STOP)
            reply.close(linger_s=5)
            reply.close()
            closed.set()
            await until(lambda: kept(client) == 1)
            reply = await post(client, server.url)
            got = await reply.body(10)
            reply.close()

        assert b"second" == got
        assert 1 == server.connections

    async def test_lingering_is_limited(self, client: Client) -> None:
        async with client.upstream(replays(CHUNKED + chunk(b"terminal"))) as server:
            reply = await post(client, server.url)
            await reply.pump(lambda piece: STOP)
            reply.close(linger_s=0.02)
            await server.played()

    async def test_closed_from_elsewhere_a_pump_ends(self, client: Client) -> None:
        async with client.upstream(replays(CHUNKED + chunk(b"abc"))) as server:
            reply = await post(client, server.url)
            task = asyncio.ensure_future(reply.pump(lambda piece: None))
            await asyncio.sleep(0.02)
            reply.close()
            with pytest.raises(UpstreamError) as caught:
                await task

        assert "upstream_reset" == caught.value.code


class TestStaleConnection:
    @pytest.mark.parametrize("rudely", [False, True])
    async def test_request_is_sent_again_on_a_fresh_one(
        self, client: Client, rudely: bool
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(sized(b"1"))
            await peer.request()
            if rudely:
                peer.reset()

        async with client.upstream(script, replays(sized(b"2"))) as server:
            reply = await post(client, server.url)
            await reply.body(10)
            reply.close()
            reply = await post(client, server.url)
            got = await reply.body(10)
            reply.close()

        assert b"2" == got
        assert 2 == server.connections

    async def test_request_is_sent_again_only_once(self, client: Client) -> None:
        async def dies(peer: Peer) -> None:
            await peer.request()

        async def serves_once(peer: Peer) -> None:
            await peer.answer(sized(b"1"))
            await peer.request()

        async with client.upstream(serves_once, dies) as server:
            reply = await post(client, server.url)
            await reply.body(10)
            reply.close()
            with pytest.raises(UpstreamError) as caught:
                await post(client, server.url)

        assert "upstream_reset" == caught.value.code
        assert 2 == server.connections

    async def test_begun_answer_is_not_asked_for_again(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(sized(b"1"))
            await peer.answer(b"HTTP/1.1 2")

        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            await reply.body(10)
            reply.close()
            with pytest.raises(UpstreamError) as caught:
                await post(client, server.url)

        assert "upstream_reset" == caught.value.code
        assert 1 == server.connections


class TestCancel:
    async def test_wait_for_the_head(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await peer.gone()

        asked = asyncio.Event()
        async with client.upstream(script) as server:
            task = asyncio.ensure_future(post(client, server.url))
            await asked.wait()
            task.cancel()
            await asyncio.wait([task])
            await server.played()

        assert task.cancelled()

    async def test_read_may_be_cancelled_without_loss(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED)
            await given_up.wait()
            await peer.send(chunk(b"late") + LAST_CHUNK)
            await peer.gone()

        given_up = asyncio.Event()
        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reply.read()
            given_up.set()
            got = await reply.body(100)
            reply.close()

        assert b"late" == got


class TestTls:
    @pytest.fixture(params=[kind for kind in KINDS if kind.endswith("https")])
    async def client(self, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
        async with Client(request.param) as client:
            yield client

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(sized(b"abc"), id="sized"),
            pytest.param(CHUNKED + chunk(b"abc") + LAST_CHUNK, id="chunked"),
        ],
    )
    async def test_kept_alive(self, client: Client, answer: bytes) -> None:
        async with client.upstream(replays(answer, answer)) as server:
            for _ in range(2):
                reply = await post(client, server.url)
                assert b"abc" == await reply.body(10)
                reply.close()

        assert 1 == server.connections

    async def test_wrong_name_is_refused(self, client: Client) -> None:
        async with client.upstream(replays(), tls=server_tls("other.test")) as server:
            with pytest.raises(UpstreamError) as caught:
                await post(client, server.url)

        assert "upstream_connect" == caught.value.code

    async def test_unknown_authority_is_refused(self, client: Client) -> None:
        stranger = client.own_transport(tls_context())
        async with client.upstream(replays()) as server:
            with pytest.raises(UpstreamError) as caught:
                await post(stranger, server.url)
        await stranger.stop()

        assert "upstream_connect" == caught.value.code

    async def test_no_tls_where_tls_was_expected(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with client.upstream(script, tls=None) as server:
            with pytest.raises(UpstreamError) as caught:
                await post(client, server.url.with_scheme("https"))

        assert "upstream_connect" == caught.value.code

    async def test_handshake_that_hangs(self, client: Client) -> None:
        async with client.upstream(lambda peer: peer.gone(), tls=None) as server:
            url = server.url.with_scheme("https")
            with pytest.raises(UpstreamError) as caught:
                await post(client, url, connect_timeout_s=0.05)
            await server.played()

        assert "upstream_connect" == caught.value.code

    async def test_closed_while_large_pieces_come(self, client: Client) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED)
            for _ in range(100):
                await peer.send(chunk(bytes(65536)))

        got = 0

        def feed(piece: bytes) -> StopSignal | None:
            nonlocal got
            got += len(piece)
            return STOP if got > 1_000_000 else None

        async with client.upstream(script) as server:
            reply = await post(client, server.url)
            await reply.pump(feed)
            reply.close()
            await asyncio.gather(*server.scripts, return_exceptions=True)

        assert 1_000_000 < got < 6_500_000
