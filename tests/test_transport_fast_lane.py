"""An answer is the same with the fast lane and without it, wherever its bytes break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.answer import ClientAnswer
from gateway.client.framing import FramedStream
from gateway.client.kinds import recognise
from gateway.client.websocket.frame_stream import FrameStream
from gateway.errors import ClientError, UpstreamError
from gateway.protocols import PROTOCOLS
from gateway.protocols.stream_state import Batch, PassThrough
from gateway.record import AttemptRecord, Record
from gateway.relay.streamed_attempt import StreamedAttempt
from gateway.transport import fast_lane
from gateway.transport.connection import Connection
from gateway.transport.converting_lane import body_of_chunks
from gateway.transport.http_response import HttpResponse
from gateway.transport.request import Origin, Route
from tests.kit.asking import dechunked
from tests.protocols_answers import chunk as answer_chunk
from tests.protocols_answers import converted, sse, translation

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"So"}}]}\n\n'
QUIET = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":" it is"}}]}\n\n'
LAST = b"0\r\n\r\n"
EVENTS = [
    QUIET,
    QUIET.replace(b"it is", b"x" * 300),
    QUIET.replace(b"it is", b"y" * 9000),
    QUIET.replace(b"\n\n", b"\r\n\r\n"),
    QUIET.replace(b"it is", b"[DONE]"),
    b": a comment\n\n",
    b"event: note\ndata: 1\n\n",
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n',
    b'data: {"error":{"message":"overloaded"}}\n\n',
    b"data: [DONE]\n\n",
]
SAID = b'{"type":"response.output_text.delta","delta":"it is"}'
NAMED = b"event: response.output_text.delta\ndata: " + SAID
RESPONSES = [
    NAMED + b"\n\n",
    b"data: " + SAID + b"\n\n",
    NAMED.replace(b"it is", b"response.completed") + b"\n\n",
    NAMED.replace(b"it is", b"y" * 9000) + b"\n\n",
    *(NAMED + end for end in (b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\ndata: 1\n\n")),
    NAMED + b"\n\n" + b"data: " + SAID + b"\n\n",
    b'data: {"type":"response.refusal.delta","delta":"it is"}\n\n',
    b'data: {"type":"response.output_item.done","item":{"type":"message"}}\n\n',
    b"event: response.output_text.delta\ndata: 1\n\n",
    b'data: {"type":"response.completed","response":{"id":"r"}}\n\n',
    NAMED + b'\r\n\r\ndata: {"type":"response.completed","response":{}}\n\n',
    b'data: {"type":"error","message":"overloaded"}\n\n',
    b": a comment\n\n",
]
EVENTS_OF = {"chat": EVENTS, "responses": RESPONSES}
FIRST_OF = {"chat": FIRST, "responses": RESPONSES[0]}
SIZES: list[Callable[[int], bytes]] = [
    lambda n: b"%x\r\n" % n,
    lambda n: b"%x\r\n" % n,
    lambda n: b"%X\r\n" % n,
    lambda n: b"000%x\r\n" % n,
    lambda n: b"%x;part=1\r\n" % n,
]
LANE, NO_LANE = True, False


class UpstreamSocket(asyncio.Transport):
    """Delivers what the test sends, as far as it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.is_read = True
        self._left: list[bytes] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def send(self, data: bytes) -> None:
        self._left.append(data)
        self.flush()

    def flush(self) -> None:
        while self._left and self.is_read:
            self.protocol.data_received(self._left.pop(0))

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True
        asyncio.get_running_loop().call_soon(self.flush)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...

    def write(self, data: Any) -> None: ...


class ClientSocket(asyncio.Transport):
    """What the client got; it can be behind, or leave."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[bytes] = []
        self.behind = 0
        self.closing = False

    def write(self, data: Any) -> None:
        self.got.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.behind

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None: ...


class Stream:
    """A ``ClientStream`` over ``FramedStream`` and a ``ClientSocket``."""

    has_http_head = True
    takes_frames, deflates_from = False, 0
    framed: Any = None

    def __init__(self, socket: ClientSocket, version: HttpVersion) -> None:
        self.socket = socket
        self.protocol = SimpleNamespace(transport=socket, writing_paused=False)
        writer = SimpleNamespace(output_size=0, drain=self._drained)
        self._request: Any = SimpleNamespace(
            version=version, keep_alive=True, protocol=self.protocol, writer=writer
        )
        self._response = FramedStream()
        self.put: Any = self._response.put
        self.lane = self
        self.drain = self._response.drain
        self.abort = socket.abort

    @property
    def lane_transport(self) -> asyncio.WriteTransport | None:
        return self._response.chunk_transport

    def count_frames(self, frames: int) -> None: ...

    def begin(self, headers: Any) -> None:
        self._response.begin(self._request, headers)

    def sent(self) -> object:
        """What the client was sent of the answer."""
        return dechunked(b"".join(self.socket.got).partition(b"\r\n\r\n")[2])

    async def _drained(self) -> None:
        """The client catches up when the loop comes round."""
        await asyncio.sleep(0)
        self.fall_behind(0)

    def fall_behind(self, size: int) -> None:
        self.socket.behind = size
        self.protocol.writing_paused = size > 65536

    def keepalive(self, place: Any, now: float, last_output_at: float) -> bytes:
        return b": ping\n\n"


class Frames(Stream):
    """The same over a real ``FrameStream``, as a client over a websocket has it."""

    takes_frames = True

    def __init__(self, socket: ClientSocket, protocol: str, deflate_bits: int) -> None:
        super().__init__(socket, HttpVersion11)
        self.deflate_bits = deflate_bits
        record, kind = Record("r-12345678", 0.0, 0.0), recognise({})
        stream = FrameStream(cast(Any, self), record, PROTOCOLS[protocol], kind)
        self.frames = stream
        self.put, self.begin = stream.put, stream.begin
        self.framed, self.count_frames = stream.framed, stream.count_frames
        self.keepalive, self.deflates_from = stream.keepalive, stream.deflates_from

    @property
    def lane_transport(self) -> Any:
        return self.socket

    def write(self, frames: bytes, *, last: bool = False) -> bool:
        """For the ``FrameStream``: see the socket's."""
        if self.socket.closing:
            raise ConnectionResetError
        self.socket.write(frames)
        return bool(self.protocol.writing_paused)

    def sent(self) -> object:
        """The same; what its frames were counted and kept as, too."""
        kept = self.frames.output.items, self.frames.output.open_items
        return b"".join(self.socket.got), self.frames._frames, kept

    async def drain(self) -> None:
        await self._drained()


class Run:
    """One answer: its parts by the test, its end by the pump."""

    def __init__(
        self,
        *,
        lane: bool,
        version: HttpVersion = HttpVersion11,
        frames: bool = False,
        protocol: str = "chat",
        converts: bool = False,
    ) -> None:
        self.protocol = protocol
        self.upstream, self.client = UpstreamSocket(), ClientSocket()
        self.stream = Stream(self.client, version)
        if frames:
            client = "responses" if converts else protocol
            self.stream = Frames(self.client, client, 0)
        owner: Any = SimpleNamespace(discard=lambda _: None, take_back=lambda _: None)
        self.connection = Connection(Route(Origin("http", "h", 80)), owner)
        self.upstream.protocol = self.connection
        self.connection.connection_made(self.upstream)
        self.response = HttpResponse(self.connection, "POST", 0.0)
        self.connection.send_request(self.response, b"", b"")
        self.parsed = 0
        self._receive = self.response.receive
        cast(Any, self.response).receive = self._count
        record = Record("r-12345678", 0.0, 0.0)
        self.answer = ClientAnswer(cast(Any, self.stream), record, 10.0)
        self.attempt = attempt_of(self.answer, protocol)
        if converts:
            self.attempt._codec = translation(protocol, "responses")
        if not lane:
            cast(Any, self.attempt)._lane = lambda: None
        self.record = self.attempt._context.attempt
        self._task: asyncio.Task[Batch]

    def _count(self, data: bytes) -> None:
        self.parsed += 1
        self._receive(data)

    async def begin(self, head: bytes = HEAD) -> None:
        self.upstream.send(head + chunk(FIRST_OF[self.protocol]))
        await self.response.head()
        codec = self.attempt._codec
        batch = codec.feed(await self.response.read())
        await self.answer.send(batch.data)
        self._task = asyncio.ensure_future(self.attempt._pump(self.response))
        await settled()

    async def end(self) -> tuple[Any, ...]:
        """All that is to be the same with the lane and without."""
        self.upstream.flush()
        await settled()
        if not self._task.done():
            self.connection.eof_received()
        try:
            how: object = await self._task
        except (UpstreamError, ClientError) as error:
            how = error.code
        # No trace is left of the lane.
        assert self.upstream.protocol is self.connection
        assert self.answer.settle is None
        facts = self.attempt._codec.facts
        known = [getattr(facts, name, None) for name in ("response_id", "usage")]
        return self.stream.sent(), self.record.received_bytes, str(how), str(known)


def attempt_of(answer: ClientAnswer, protocol: str = "chat") -> StreamedAttempt:
    accounts = SimpleNamespace(by_name={"a": None})
    limits = SimpleNamespace(idle_timeout_s=60.0)
    dependencies: Any = SimpleNamespace(accounts=accounts, limits=limits)
    granted: Any = SimpleNamespace(slot=SimpleNamespace(name="a"), key=None)
    wire = PROTOCOLS[protocol]
    context = SimpleNamespace(attempt=AttemptRecord(1, "a", 0.0), wire=wire)
    state: Any = SimpleNamespace(context=context, client=answer)
    attempt = StreamedAttempt(dependencies, state, granted)
    attempt._codec = PassThrough(wire, wire.new_facts())
    return attempt


def chunk(data: bytes, size: Callable[[int], bytes] = SIZES[0]) -> bytes:
    return size(len(data)) + data + b"\r\n"


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


# --- the same -----------------------------------------------------------------------


@st.composite
def reads(draw: st.DrawFn, protocol: str) -> list[bytes]:
    """A body, cut anywhere into chunks and the chunks anywhere into reads."""
    body: list[bytes] = []
    for event in draw(st.lists(st.sampled_from(EVENTS_OF[protocol]), max_size=8)):
        cut = draw(st.sampled_from([0, 0, 0, 1, 7, len(event) - 1, len(event) // 2]))
        body += [part for part in (event[:cut], event[cut:]) if part]
    made, together = b"", b""
    cuts: list[int] = []
    for part in body:
        together += part
        if draw(st.integers(0, 3)):
            made += chunk(together, draw(st.sampled_from(SIZES)))
            together = b""
            if draw(st.integers(0, 4)):
                cuts.append(len(made))
    made += LAST if draw(st.booleans()) else b""
    cuts += draw(st.lists(st.integers(0, len(made)), max_size=4))
    edges = [0, *sorted(cuts), len(made)]
    pieces = [made[a:b] for a, b in zip(edges, edges[1:])]
    return [piece for piece in pieces if piece]


async def outcome(
    pieces: list[bytes],
    behind: dict[int, int],
    gone: int,
    *,
    lane: bool,
    frames: bool = False,
    protocol: str = "chat",
    converts: bool = False,
) -> tuple[Any, ...]:
    run = Run(lane=lane, frames=frames, protocol=protocol, converts=converts)
    await run.begin()
    for number, piece in enumerate(pieces):
        if number in behind:
            run.stream.fall_behind(behind[number])
        if number == gone:
            run.client.closing = True
        run.upstream.send(piece)
        if number % 3 == 0:
            await settled()
        if number % 4 == 1:
            run.answer._keep_alive()
    return await run.end()


@given(
    st.sampled_from([*EVENTS_OF]).flatmap(
        lambda protocol: st.tuples(st.just(protocol), reads(protocol))
    ),
    st.dictionaries(st.integers(0, 6), st.sampled_from([0, 16385, 40000, 70000])),
    st.integers(0, 40),
    st.booleans(),
    st.booleans(),
)
def test_the_lane_changes_nothing(
    case: tuple[str, list[bytes]],
    behind: dict[int, int],
    gone: int,
    frames: bool,
    converts: bool,
) -> None:
    async def run(lane: bool) -> tuple[Any, ...]:
        protocol, pieces = case
        how: dict[str, Any] = {"frames": frames, "protocol": protocol}
        how["converts"] = converts and protocol == "chat"
        return await outcome(pieces, behind, gone, lane=lane, **how)

    async def both() -> tuple[Any, Any]:
        return await run(LANE), await run(NO_LANE)

    on, off = asyncio.run(both())
    assert on == off


# --- when it is taken ---------------------------------------------------------------


async def parsed_of(pieces: list[bytes], **how: Any) -> int:
    """How many of *pieces* went through the parser."""
    head = how.pop("head", HEAD)
    run = Run(lane=LANE, **how)
    await run.begin(head)
    before = run.parsed
    for piece in pieces:
        run.upstream.send(piece)
    parsed = run.parsed - before
    await run.end()
    return parsed


WHOLE = chunk(QUIET)
HALF = len(WHOLE) // 2


@pytest.mark.parametrize(
    ("pieces", "parsed"),
    [
        pytest.param([WHOLE] * 3, 0, id="whole"),
        pytest.param([WHOLE * 3, WHOLE], 0, id="several"),
        pytest.param([chunk(QUIET, SIZES[2])] * 2, 0, id="upper-case"),
        pytest.param([chunk(QUIET, SIZES[4])] * 2, 2, id="extension"),
        pytest.param([WHOLE[:HALF], WHOLE[HALF:], WHOLE], 2, id="half"),
        pytest.param([WHOLE + WHOLE[:1], WHOLE[1:], WHOLE], 2, id="half-a-size"),
        pytest.param([chunk(QUIET[:9]), chunk(QUIET[9:]), WHOLE], 2, id="half-event"),
        pytest.param([chunk(QUIET[:9]) + chunk(QUIET[9:]), WHOLE], 1, id="both-halves"),
        pytest.param([chunk(EVENTS[7]), WHOLE], 1, id="needle"),
        pytest.param([chunk(QUIET * 400), WHOLE], 1, id="large"),
        pytest.param([WHOLE * 9, WHOLE], 1, id="many"),
        pytest.param([LAST, WHOLE], 2, id="behind-the-end"),
        pytest.param([chunk(EVENTS[-1]), WHOLE], 1, id="behind-the-terminal"),
    ],
)
async def test_what_takes_the_lane(pieces: list[bytes], parsed: int) -> None:
    assert await parsed_of(pieces) == parsed


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize(
    ("pieces", "parsed"),
    [
        pytest.param([WHOLE] * 3, 0, id="whole"),
        pytest.param([WHOLE, WHOLE * 3, chunk(QUIET * 2)], 0, id="several"),
        pytest.param([WHOLE, chunk(EVENTS[5]), WHOLE, WHOLE], 2, id="other"),
        pytest.param([WHOLE[:HALF], WHOLE[HALF:], WHOLE, WHOLE], 2, id="half"),
        pytest.param([WHOLE, chunk(QUIET[:9]), chunk(QUIET[9:]), WHOLE], 2, id="part"),
        pytest.param([WHOLE, LAST, WHOLE], 2, id="behind-the-end"),
        pytest.param([WHOLE, WHOLE + LAST], 1, id="with-the-end"),
    ],
)
async def test_what_takes_the_lane_and_is_converted(
    pieces: list[bytes], parsed: int, frames: bool
) -> None:
    assert await parsed_of(pieces, converts=True, frames=frames) == parsed


async def test_what_makes_no_event_is_a_sign_of_life_of_the_upstream_alone() -> None:
    """Arguments may have to wait for what comes behind them."""
    run = Run(lane=LANE, converts=True)
    codec = translation("chat", "messages", converted((("function", "f"),)))
    run.attempt._codec = codec
    await run.begin()
    for text in ('{"a":', "1", "2"):
        run.upstream.send(chunk(call_of(text)))
    assert codec.conversion is not None
    run.response._idle_timeout.last_received_at = run.answer._last_write_at = 0.0
    got, parsed = len(run.client.got), run.parsed

    run.upstream.send(chunk(call_of("3")))

    run.response.settle()
    assert run.response._idle_timeout.last_received_at > 0.0
    assert run.answer._last_write_at == 0.0
    assert (got, parsed) == (len(run.client.got), run.parsed)
    await run.end()


def call_of(text: str) -> bytes:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": text}}
    if text[0] != "{":
        call = {"index": 0, "function": {"arguments": text}}
    return sse(answer_chunk(tool_calls=[call]))


@pytest.mark.parametrize(
    ("event", "parsed"),
    [
        pytest.param(RESPONSES[0], 0, id="plain"),
        pytest.param(RESPONSES[2], 0, id="plain-with-a-needle"),
        pytest.param(RESPONSES[9], 0, id="without-a-needle"),
        pytest.param(
            RESPONSES[9].replace(b"it is", b"response.failed"), 1, id="needle"
        ),
        pytest.param(RESPONSES[13], 1, id="a-terminal-behind"),
    ],
)
async def test_what_of_responses_takes_the_lane(event: bytes, parsed: int) -> None:
    pieces = [chunk(event)]
    await parsed_of(pieces, protocol="responses")  # the length is known then

    assert parsed == await parsed_of(pieces, protocol="responses")


INNER = b"d\r\n: 123456789\n\n\r\n"  # the bytes of a whole chunk
OUTER = chunk(b": a\n\n" + INNER + b"\n\n")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(OUTER.partition(INNER), id="inside-a-chunk"),
        pytest.param([b"1", INNER, b": 6789012345\n\n\r\n"], id="inside-a-size"),
    ],
)
async def test_bytes_like_a_chunk_are_none(pieces: list[bytes]) -> None:
    runs = [await outcome([*pieces], {}, 99, lane=lane) for lane in (LANE, NO_LANE)]

    assert runs[0] == runs[1]
    assert await parsed_of([*pieces]) == len(pieces)


async def test_a_client_over_a_websocket_has_one() -> None:
    assert await parsed_of([WHOLE, WHOLE * 3, chunk(b": ping\n\n")], frames=True) == 1


async def test_other_framings_do_not_take_it() -> None:
    assert await parsed_of([WHOLE], version=HttpVersion10) == 1
    sized = HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 999")
    assert await parsed_of([WHOLE], head=sized) == 1


@pytest.mark.parametrize("converts", [False, True])
@pytest.mark.parametrize("behind", [16385, 70000])
async def test_a_client_that_is_behind_has_back_pressure(
    behind: int, converts: bool
) -> None:
    run = Run(lane=LANE, converts=converts)
    await run.begin()
    before = run.parsed

    run.stream.fall_behind(behind)
    run.upstream.send(WHOLE)
    assert run.parsed == before + 1
    assert run.upstream.is_read == (behind < 65536)
    await settled()
    assert run.upstream.is_read
    run.upstream.send(WHOLE)
    assert run.parsed == before + 1 + (run.client.behind > 16384)
    await run.end()


# --- times --------------------------------------------------------------------------


async def test_what_passes_counts_as_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the idle timeout, the keepalives, the longest gap."""
    now = 50.0
    run = Run(lane=LANE)
    await run.begin()
    run.record.last_received = now
    monkeypatch.setattr(fast_lane, "monotonic", lambda: now)
    for step in (0.5, 3.0, 1.0):
        now += step
        run.upstream.send(WHOLE)
    run.response._idle_timeout.last_received_at = 0.0
    run.answer._last_write_at = run.answer._last_output_at = 0.0

    run.response.settle()

    assert run.response._idle_timeout.last_received_at == now
    assert run.answer._last_write_at == run.answer._last_output_at == now
    assert run.record.last_received == now
    await run.end()
    assert run.record.longest_gap_s >= 3.0


@pytest.mark.parametrize("asks", ["keepalive", "idle timeout"])
async def test_both_timers_ask_for_it(asks: str) -> None:
    run = Run(lane=LANE)
    await run.begin()
    run.upstream.send(WHOLE)
    run.answer._last_write_at = -1000.0
    if asks == "keepalive":
        run.answer.on_timer()
        run.answer.stop_keepalives()
    else:
        run.response._idle_timeout.on_timer()

    assert run.answer.keepalives == 0
    assert run.answer._last_write_at > -1000.0
    await run.end()


async def test_framing_that_counts_as_no_body_does_not_add_up() -> None:
    """A read of two bytes between those that pass is not one of many."""
    run = Run(lane=LANE)
    await run.begin()
    for _ in range(5):
        run.upstream.send(WHOLE[:-2])
        run.upstream.send(WHOLE[-2:])
        run.upstream.send(WHOLE)
    assert run.response._overhead_bytes <= 2
    await run.end()


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"2\r\n\n\n\r\n", 2),
        (b"3\r\na\n\n\r\n2\r\n\n\n\r\n", 5),
        (b"0\r\n\n\n\r\n", 0),
        (b"0\r\n\r\n", 0),
        (b"+2\r\n\n\n\r\n", 0),
        (b"1_0\r\n01234567890123\n\n\r\n", 0),
        (b" 2\r\n\n\n\r\n", 0),
        (b"3\r\n\n\n\r\n", 0),
        (b"1\r\n\n\n\r\n", 0),
        (b"4\r\nab\n\n\r\n2\r\n\n\n\r", 0),
        (b"\n\n\r\n", 0),
        (b"", 0),
    ],
)
def test_whole_chunks(data: bytes, size: int) -> None:
    assert fast_lane.body_bytes(data) == size


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"2\r\nab\r\n", b"ab"),
        (b"2\r\nab\r\n10\r\n0123456789abcdef\r\n", b"ab0123456789abcdef"),
        (b"3\r\nab\r\n", b""),
        (b"2\r\nab\r\n3\r\nab\r\n", b""),
        (b"4\r\nab\r\n\r\n", b""),
        (b"02\r\nab\r\n", b""),
        (b"A\r\n0123456789\r\n", b""),
        (b"2;a=b\r\nab\r\n", b""),
        (b"2\r\nab\r\n2", b""),
        (b"2\r\nab", b""),
        (b"0\r\n\r\n", b""),
        (b"2\r\nab\r\n0\r\n\r\n", b""),
        (b"", b""),
        (b"4000\r\n%b\r\n" % (b"x" * 0x4000), b""),
    ],
)
def test_bodies_of_whole_chunks(data: bytes, body: bytes) -> None:
    assert body_of_chunks(data) == body
