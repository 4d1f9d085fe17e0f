"""
What a streamed answer writes, and when: its state, its keepalives, its one ending.

The transport is a double in memory, so the rules are seen without a socket. The tables
are read as: in this state, when this happens, that is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from gateway.client import answer as answer_module
from gateway.client.answer import ClientAnswer
from gateway.client.interface import QueuePlace
from gateway.errors import ClientError, GatewayError
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import CLOSED, STREAMING, WAITING, StreamState
from gateway.record import Record

OUTPUT, TERMINAL = b"output\n\n", b"terminal\n\n"
PING, FAILURE = b"ping\n\n", b"failure "
HEAD, LAST = b"(head)", b"(last)"


class MemoryStream:
    """A ``ClientStream`` that notes what is written; its client can leave or stall."""

    lane = None

    def __init__(self, *, has_http_head: bool = True) -> None:
        self.written: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.late_headers: dict[str, str] = {}
        self.has_left = self.is_behind = self.is_aborted = False
        self.taken = asyncio.Event()
        self._has_http_head = has_http_head

    @property
    def has_http_head(self) -> bool:
        return self._has_http_head

    def begin(self, headers: Mapping[str, str]) -> None:
        self.headers = dict(headers)
        self.written.append(HEAD)

    def add_headers(self, headers: Mapping[str, str]) -> None:
        self.late_headers.update(headers)

    def put(self, data: bytes, *, last: bool = False) -> bool:
        if self.has_left:
            raise ConnectionResetError("left")
        self.written.append(data)
        if last:
            self.written.append(LAST)
        return self.is_behind

    async def drain(self) -> None:
        await self.taken.wait()
        if self.has_left:
            raise ConnectionResetError("left")

    def abort(self) -> None:
        self.is_aborted = True

    def keepalive(
        self, place: QueuePlace | None, now: float, last_output_at: float
    ) -> bytes:
        return b": %d\n\n" % place.position if place else PING

    def failure(self, error: GatewayError, seen: StreamFacts) -> bytes:
        return FAILURE + error.code.encode() + seen.response_id.encode()


def answer_over(stream: MemoryStream, interval_s: float = 60.0) -> ClientAnswer:
    return ClientAnswer(stream, Record("request-1", 0.0, 0.0), interval_s)


STEPS = {
    "headers": lambda answer: answer.add_headers({"x-more": "1"}),
    "push-nothing": lambda answer: answer.push(b""),
    "push": lambda answer: answer.push(OUTPUT),
    "send": lambda answer: answer.send(OUTPUT),
    "finish": lambda answer: answer.finish(TERMINAL),
    "fail": lambda answer: answer.fail(GatewayError("internal_error")),
    "tick": lambda answer: answer.on_timer(),
}
FAILED = FAILURE + b"internal_error"


async def take(answer: ClientAnswer, step: str) -> None:
    """Let *step* happen, and wait for what it wants to be awaited."""
    waiting = STEPS[step](answer)
    if waiting is not None and step != "headers":
        await waiting


TABLE: list[tuple[list[str], list[bytes], StreamState]] = [
    # WAITING
    ([], [], WAITING),
    (["headers"], [], WAITING),
    (["push-nothing"], [], WAITING),
    (["tick"], [HEAD, PING], WAITING),
    (["tick", "tick"], [HEAD, PING, PING], WAITING),
    (["push"], [HEAD, OUTPUT], STREAMING),
    (["send"], [HEAD, OUTPUT], STREAMING),
    (["finish"], [HEAD, TERMINAL, LAST], CLOSED),
    (["tick", "finish"], [HEAD, PING, TERMINAL, LAST], CLOSED),
    (["tick", "fail"], [HEAD, PING, FAILED, LAST], CLOSED),
    # STREAMING
    (["push", "push"], [HEAD, OUTPUT, OUTPUT], STREAMING),
    (["push", "tick"], [HEAD, OUTPUT, PING], STREAMING),
    (["push", "finish"], [HEAD, OUTPUT, TERMINAL, LAST], CLOSED),
    (["push", "fail"], [HEAD, OUTPUT, FAILED, LAST], CLOSED),
    # CLOSED
    (["finish", "tick"], [HEAD, TERMINAL, LAST], CLOSED),
    (["fail", "tick"], [HEAD, FAILED, LAST], CLOSED),
]


@pytest.mark.parametrize(
    ("steps", "written", "state"),
    TABLE,
    ids=["-then-".join(steps) or "nothing" for steps, *_ in TABLE],
)
async def test_what_is_written_follows_from_what_happens(
    steps: list[str], written: list[bytes], state: StreamState
) -> None:
    stream = MemoryStream()
    answer = answer_over(stream, interval_s=0.0)
    for step in steps:
        await take(answer, step)
    answer.stop_keepalives()

    assert stream.written == written
    assert answer.state is state
    assert answer.opened is bool(written)
    assert answer.keepalives == written.count(PING)


@pytest.mark.parametrize("second", ["push", "send", "finish", "fail"])
@pytest.mark.parametrize("first", ["finish", "fail"])
async def test_nothing_is_written_behind_an_ending(first: str, second: str) -> None:
    stream = MemoryStream()
    answer = answer_over(stream)
    await take(answer, first)
    before = list(stream.written)
    with pytest.raises(RuntimeError, match="ended"):
        await take(answer, second)

    assert stream.written == before


async def test_an_answer_is_closed_before_its_terminal_is_taken() -> None:
    """Who stops it then must write no second ending."""
    stream = MemoryStream()
    stream.is_behind = True
    answer = answer_over(stream)
    finishing = asyncio.create_task(answer.finish(TERMINAL))
    await asyncio.sleep(0)

    assert answer.state is CLOSED
    assert not finishing.done()
    stream.taken.set()
    await finishing


@pytest.mark.parametrize("opened", [False, True], ids=["waiting", "streaming"])
@pytest.mark.parametrize("step", ["push", "send", "finish", "fail"])
async def test_a_client_that_has_left_is_a_client_error(
    step: str, opened: bool
) -> None:
    stream = MemoryStream()
    answer = answer_over(stream)
    if opened:
        answer.push(OUTPUT)
    stream.has_left = True
    with pytest.raises(ClientError) as caught:
        await take(answer, step)

    assert caught.value.code == "client_gone"
    assert answer.state is not CLOSED


async def test_a_client_that_leaves_while_it_is_waited_for_is_a_client_error() -> None:
    stream = MemoryStream()
    stream.is_behind = True
    answer = answer_over(stream)
    sending = asyncio.create_task(answer.send(OUTPUT))
    await asyncio.sleep(0)
    stream.has_left = True
    stream.taken.set()
    with pytest.raises(ClientError) as caught:
        await sending

    assert caught.value.code == "client_gone"


async def test_a_keepalive_to_a_client_that_has_left_raises_nothing() -> None:
    """The handler that serves it notices by itself."""
    stream = MemoryStream()
    stream.has_left = True
    answer = answer_over(stream, interval_s=0.0)
    answer.on_timer()
    answer.stop_keepalives()

    assert answer.keepalives == 0


async def test_a_keepalive_waits_for_nothing() -> None:
    """A slow client gets another one; only a write that is waited for stops them."""
    stream = MemoryStream()
    stream.is_behind = True
    answer = answer_over(stream, interval_s=0.0)
    answer.on_timer()
    answer.on_timer()
    answer.stop_keepalives()

    assert stream.written == [HEAD, PING, PING]


@pytest.mark.parametrize("step", ["send", "finish"])
async def test_a_client_that_takes_nothing_gets_no_keepalives_and_is_cut_off(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = MemoryStream()
    stream.is_behind = True
    answer = answer_over(stream, interval_s=0.0)
    waiting = asyncio.create_task(take(answer, step))
    await asyncio.sleep(0)
    answer.on_timer()

    assert PING not in stream.written
    assert not stream.is_aborted
    monkeypatch.setattr(answer_module, "STALL_S", 0.0)
    await asyncio.sleep(0.01)
    answer.on_timer()
    assert stream.is_aborted
    answer.stop_keepalives()
    waiting.cancel()


async def test_keepalives_go_on_once_the_client_has_taken_what_it_was_sent() -> None:
    stream = MemoryStream()
    stream.is_behind = True
    stream.taken.set()
    answer = answer_over(stream, interval_s=0.0)
    await answer.send(OUTPUT)
    answer.on_timer()
    answer.stop_keepalives()

    assert stream.written[-1] == PING


async def test_a_keepalive_says_where_the_request_waits() -> None:
    stream = MemoryStream()
    answer = answer_over(stream, interval_s=0.0)
    answer.queue_place = lambda: QueuePlace(2, None, 1.0)
    answer.on_timer()
    answer.stop_keepalives()

    assert stream.written == [HEAD, b": 2\n\n"]


async def test_output_puts_a_keepalive_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = MemoryStream()
    answer = answer_over(stream, interval_s=10.0)
    found = []
    for now, step in [(0.0, "push"), (6.0, "push"), (10.0, "tick"), (16.0, "tick")]:
        monkeypatch.setattr(answer._loop, "time", lambda now=now: now)
        await take(answer, step)
        answer.stop_keepalives()
        found.append(answer.keepalives)

    assert found == [0, 0, 0, 1]


async def test_the_headers_are_those_that_came_before_the_head_was_out() -> None:
    stream = MemoryStream()
    answer = answer_over(stream)
    answer.add_headers({"x-before": "1"})
    answer.push(OUTPUT)
    answer.add_headers({"x-after": "1"})
    answer.push(OUTPUT)

    assert stream.headers["x-before"] == "1"
    assert stream.headers["x-request-id"] == "request-1"
    assert "x-after" not in stream.headers
    assert {"x-after": "1"} == stream.late_headers  # a stream without a head may use it


@pytest.mark.parametrize(
    ("steps", "seen"),
    [
        pytest.param(["tick"], "", id="what-was-held-back"),
        pytest.param(["push"], "resp_1", id="what-the-client-has"),
    ],
)
async def test_a_failure_bears_the_id_that_the_client_has_read(
    steps: list[str], seen: str
) -> None:
    stream = MemoryStream()
    answer = answer_over(stream, interval_s=0.0)
    answer.facts = StreamFacts()
    answer.facts.response_id = "resp_1"
    for step in steps:
        await take(answer, step)
    await answer.fail(GatewayError("internal_error"))

    assert stream.written[-2:] == [FAILED + seen.encode(), LAST]


@pytest.mark.parametrize(
    ("has_http_head", "steps", "can_refuse"),
    [
        pytest.param(True, [], True, id="http-before-the-head"),
        pytest.param(True, ["tick"], False, id="http-behind-a-keepalive"),
        pytest.param(True, ["push"], False, id="http-streaming"),
        pytest.param(False, [], False, id="a-socket-that-has-no-head"),
    ],
)
async def test_a_refusal_is_an_http_status_while_no_head_is_out(
    has_http_head: bool, steps: list[str], can_refuse: bool
) -> None:
    answer = answer_over(MemoryStream(has_http_head=has_http_head), interval_s=0.0)
    for step in steps:
        await take(answer, step)
    answer.stop_keepalives()

    assert answer.can_refuse is can_refuse
