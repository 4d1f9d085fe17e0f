"""An answer over a websocket is the same with its lane and without."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.http import HttpVersion11
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from yarl import URL

from gateway.client.answer import ClientAnswer
from gateway.errors import ClientError, UpstreamError
from gateway.protocols.responses.socket_answer import SocketAnswer
from gateway.protocols.responses.socket_create import SocketCreate
from gateway.protocols.responses.socket_message import is_harmless
from gateway.protocols.stream_state import Batch
from gateway.record import Record
from gateway.transport.connection import Connection
from gateway.transport.request import target_of
from gateway.transport.websocket.frame_lane import MAX_FRAMES, chunk_of_frames
from gateway.transport.websocket.socket_pool import PooledSocket, SocketKey
from gateway.transport.websocket.socket_response import SocketResponse
from gateway.transport.websocket.upgrade import client_protocol
from gateway.transport.websocket.web_socket import WebSocket
from tests.protocols_answers import translation
from tests.test_transport_fast_lane import (
    ClientSocket,
    Frames,
    Stream,
    UpstreamSocket,
    attempt_of,
    settled,
)

LANE, NO_LANE = True, False
TARGET = target_of("GET", URL("http://h/responses"), None, must_tunnel=True)


def message(kind: str, **members: Any) -> bytes:
    return json.dumps({"type": kind, **members}, separators=(",", ":")).encode()


def frame(data: bytes, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def delta(text: str) -> bytes:
    return message("response.output_text.delta", delta=text)


FIRST = message("response.created", response={"id": "resp_1", "model": "m"})
DELTA = delta("it is")
AT = {"output_index": 0, "item": {"type": "message", "id": "m1"}}
ADDED = message("response.output_item.added", **AT)
ITEM = message("response.output_item.done", **AT)
ODD = b'{"type":"response.output_text.delta",%b"delta":"a"}'
EURO = '{"type":"response.output_text.delta","delta":"€😀"}'.encode()
DONE = message("response.completed", response={"id": "resp_1", "status": "completed"})
MESSAGES = [
    *[DELTA] * 6,
    delta("x" * 200),
    delta("x" * 2_000),
    delta("x" * 70_000),
    ADDED,
    EURO,
    b'{"type":"response.output_text.delta","delta":"\xff"}',
    b'{"type": "response.output_text.delta","delta":"a"}',
    b'{"delta":"a","type":"response.output_text.delta"}',
    ODD % b"\n",
    ODD % b"\r",
    b'{"type":"codex.rate_limits"}',
    b'{"type":"a"}',
    b'{"type":"a',
    b"[DONE]",
    b"",
    ITEM,
    DONE,
    message("error", status=500, error={"message": "no"}),
    message("response.failed", response={"error": {"code": "server_error"}}),
    message("note", error=""),
    message("response.metadata", headers={"openai-model": "m"}),
]
FRAMES = [
    *map(frame, MESSAGES),
    *[frame(DELTA)] * 10,
    frame(b"?", Opcode.PING),
    frame(b"", Opcode.PONG),
    frame(b"\x03\xe8", Opcode.CLOSE),
    frame(b"x", Opcode.BINARY),
    frame(DELTA[:9], fin=False) + frame(DELTA[9:], Opcode.CONT),
    frame(DELTA[:9], fin=False) + frame(b"", Opcode.PING),
    Frame(Opcode.TEXT, DELTA).serialize(mask=True),
    b"\xc1" + frame(DELTA)[1:],
]


class ServerSocket(UpstreamSocket):
    """One that may also be closed."""

    def close(self) -> None: ...


class Run:
    """One answer: its frames by the test, its end by the pump."""

    def __init__(self, *, lane: bool, frames: int = -1, target: str = "") -> None:
        self.upstream, self.client = ServerSocket(), ClientSocket()
        self.stream = Stream(self.client, HttpVersion11)
        if frames >= 0:
            self.stream = Frames(self.client, "responses", frames)
        owner: Any = SimpleNamespace(discard=lambda _: None, take_back=lambda _: None)
        self.connection = Connection(TARGET.route, owner)
        self.upstream.protocol = self.connection
        self.connection.connection_made(self.upstream)
        protocol = client_protocol(TARGET)
        protocol.state = State.OPEN
        self.socket = WebSocket(self.connection, protocol, is_harmless)
        self.socket._reader = None
        self.parsed = 0
        self._receive = self.socket.receive
        cast(Any, self.socket).receive = self._count
        body = b'{"model":"m","stream":true,"input":"x"}'
        key = SocketKey("a", "u", b"")
        self.back: list[Any] = []
        source = SimpleNamespace(put_back=lambda *how: self.back.append(how))
        self.response = SocketResponse(
            cast(Any, source), SocketCreate(body), PooledSocket(key, self.socket), 0.0
        )
        record = Record("r-12345678", 0.0, 0.0)
        self.answer = ClientAnswer(cast(Any, self.stream), record, 10.0)
        self.attempt = attempt_of(self.answer, "responses")
        if target:
            self.attempt._codec = translation("responses", target)
        if not lane:
            cast(Any, self.attempt)._lane = lambda: None
        self.record = self.attempt._context.attempt
        self._task: asyncio.Task[Batch]

    def _count(self, data: bytes) -> None:
        self.parsed += 1
        self._receive(data)

    async def begin(self) -> None:
        asking = asyncio.ensure_future(self.response.begin())
        await settled()
        self.upstream.send(frame(FIRST) + frame(DELTA))
        await asking
        batch = self.attempt._codec.feed(await self.response.read())
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
        self.response.close()
        counts = self.record.received_bytes, self.socket._overhead_bytes
        return self.stream.sent(), *counts, str(how), len(self.back)


@st.composite
def reads(draw: st.DrawFn) -> list[bytes]:
    """Frames, cut anywhere into reads."""
    frames = draw(st.lists(st.sampled_from(FRAMES), max_size=14))
    cuts, size = [], 0
    for one in frames:
        size += len(one)
        if draw(st.integers(0, 3)):
            cuts.append(size)
    cuts += draw(st.lists(st.integers(0, size), max_size=4))
    made = b"".join(frames)
    edges = [0, *sorted(cuts), size]
    return [piece for a, b in zip(edges, edges[1:]) if (piece := made[a:b])]


async def outcome(
    pieces: list[bytes],
    behind: dict[int, int],
    gone: int,
    *,
    lane: bool,
    frames: int = -1,
    target: str = "",
) -> tuple[Any, ...]:
    run = Run(lane=lane, frames=frames, target=target)
    await run.begin()
    for number, piece in enumerate(pieces):
        if number in behind:
            run.stream.fall_behind(behind[number])
        if number == gone:
            run.client.closing = True
        run.upstream.send(piece)
        if number % 3 == 0:
            await settled()
    return await run.end()


@given(
    reads(),
    st.dictionaries(st.integers(0, 6), st.sampled_from([0, 16385, 40000, 70000])),
    st.integers(0, 40),
    st.sampled_from(
        [{"frames": -1}, {"frames": 0}, {"frames": 15}]
        + [{"target": "chat"}, {"target": "messages"}]
    ),
)
def test_the_lane_changes_nothing(
    pieces: list[bytes], behind: dict[int, int], gone: int, to: dict[str, Any]
) -> None:
    """
    To a client of HTTP, of a websocket, of one that deflates, of another protocol.
    """

    async def both() -> tuple[Any, Any]:
        on = await outcome(pieces, behind, gone, lane=LANE, **to)
        return on, await outcome(pieces, behind, gone, lane=NO_LANE, **to)

    on, off = asyncio.run(both())
    assert on == off


WHOLE = frame(DELTA)
LONG = frame(delta("x" * 200))
HALF = len(WHOLE) // 2


@pytest.mark.parametrize(
    ("pieces", "parsed"),
    [
        pytest.param([WHOLE] * 3, 0, id="whole"),
        pytest.param([LONG] * 3, 0, id="longer"),
        pytest.param([WHOLE * 3, LONG * 2, WHOLE], 0, id="several"),
        pytest.param([frame(EURO), WHOLE], 0, id="not-ascii"),
        pytest.param([WHOLE[:HALF], WHOLE[HALF:], WHOLE], 2, id="half"),
        pytest.param([WHOLE + WHOLE[:1], WHOLE[1:], WHOLE], 2, id="half-a-head"),
        pytest.param([frame(ITEM), WHOLE], 1, id="item"),
        pytest.param([frame(ODD % b"\r"), WHOLE], 1, id="cr"),
        pytest.param([frame(ODD % b"\n"), WHOLE], 1, id="lf"),
        pytest.param([frame(message("note", error="")), WHOLE], 1, id="needle"),
        pytest.param([frame(delta("x" * 20_000)), WHOLE], 1, id="large"),
        pytest.param([WHOLE * (MAX_FRAMES + 1), WHOLE], 1, id="many"),
        pytest.param([frame(b"", Opcode.PONG), WHOLE], 1, id="control"),
        pytest.param([FRAMES[-4], WHOLE], 1, id="two-frames"),
        pytest.param([FRAMES[-3], WHOLE], 2, id="inside-two-frames"),
        pytest.param([frame(DONE), WHOLE], 2, id="behind-the-terminal"),
    ],
)
@pytest.mark.parametrize("frames", [-1, 0], ids=["http", "websocket"])
async def test_what_takes_the_lane(
    pieces: list[bytes], parsed: int, frames: int
) -> None:
    run = Run(lane=LANE, frames=frames)
    await run.begin()
    before = run.parsed
    for piece in pieces:
        run.upstream.send(piece)

    assert run.parsed - before == parsed
    await run.end()


@pytest.mark.parametrize("target", ["chat", "messages"])
async def test_what_takes_the_lane_and_is_converted(target: str) -> None:
    run = Run(lane=LANE, target=target)
    await run.begin()
    before = run.parsed
    for piece in (WHOLE, WHOLE, LONG * 2, frame(ADDED), WHOLE, WHOLE):
        run.upstream.send(piece)

    assert run.parsed - before == 2
    await run.end()


async def test_what_a_client_gets_in_another_form_does_not_take_it() -> None:
    """Items are kept for the next turn; a long text is deflated."""
    run = Run(lane=LANE, frames=15)
    await run.begin()
    before = run.parsed
    for piece in (frame(ADDED), frame(delta("x" * 2000)), WHOLE, LONG):
        run.upstream.send(piece)

    assert run.parsed - before == 2
    await run.end()


@given(st.lists(st.sampled_from(MESSAGES), max_size=10))
def test_what_frames_say(messages: list[bytes]) -> None:
    """The events that the ordinary way would make, or nothing."""
    answer = SocketAnswer(stream=True)
    answer.passes = True
    passed = chunk_of_frames(b"".join(map(frame, messages)))

    assert passed is None or passed[0] == answer.take(messages)


async def test_what_passes_counts_as_life() -> None:
    """For the idle timeout, and against the bound of control frames."""
    run = Run(lane=LANE)
    await run.begin()
    run.upstream.send(frame(b"?", Opcode.PING))
    assert run.socket._overhead_bytes
    run.upstream.send(WHOLE)
    run.response._idle_timeout.last_received_at = 0.0

    run.response.settle()

    assert run.response._idle_timeout.last_received_at > 0.0
    assert not run.socket._overhead_bytes
    await run.end()
