"""
Any bytes that an upstream can send, cut anywhere.

The parser is a library's; what is fuzzed is our use of it: which bytes are the body,
when the answer has ended, and whether the connection may serve another request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.transport.connection import Connection
from gateway.transport.http_response import HttpResponse

FAILURES = {"upstream_malformed", "upstream_reset", "upstream_cut", "upstream_idle"}


class Loop:
    """As much of an event loop as a response needs while no task waits."""

    def time(self) -> float:
        return 0.0

    def call_later(self, delay: float, callback: Any, *args: Any) -> Any:
        return self.call_at(delay, callback, *args)

    def call_at(self, when: float, callback: Any, *args: Any) -> Any:
        return asyncio.TimerHandle(when, callback, args, cast(Any, self))

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass


@dataclass
class Socket:
    """A connection that remembers what became of it."""

    loop: Loop = field(default_factory=Loop)
    is_reading: bool = True
    is_request_sent: bool = True
    aborted: bool = False
    kept: bool = False

    @property
    def is_usable(self) -> bool:
        return not self.aborted

    def pause(self) -> None:
        self.is_reading = False

    def resume(self) -> None:
        self.is_reading = True

    def stop_sending(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True

    def release(self) -> None:
        self.kept = True


@dataclass(frozen=True)
class Outcome:
    """What a client of the transport saw of one connection."""

    status: int
    body: bytes
    failure: str
    kept: bool


def run(coroutine: Any) -> Any:
    """The value of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def outcome_of(chunks: Sequence[bytes], method: str = "POST") -> Outcome:
    """What becomes of an answer that arrives in *chunks*, then the upstream closes."""
    socket = Socket()
    reply = HttpResponse(cast(Connection, socket), method, 0.0)
    for chunk in chunks:
        if not socket.aborted:
            reply.receive(chunk)
    if not reply._parser.ended:
        reply.receive_eof()
    body, failure = bytearray(), ""
    try:
        run(reply.head())
        while piece := run(reply.read()):
            body += piece
    except UpstreamError as error:
        failure = error.code
    reply.close()
    assert socket.kept is not socket.aborted
    return Outcome(reply.status, bytes(body), failure, socket.kept)


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in zip(ends, ends[1:])]


def chunked(pieces: Sequence[bytes], extension: bytes, trailer: bytes) -> bytes:
    lines = [b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in pieces if one]
    return b"".join(lines) + b"0\r\n" + trailer + b"\r\n"


@dataclass(frozen=True)
class Answer:
    """An answer that is whole."""

    wire: bytes
    status: int
    body: bytes
    until_close: bool


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    pieces = draw(st.lists(st.binary(max_size=40), max_size=5))
    body = b"".join(pieces)
    status = draw(st.sampled_from([200, 201, 400, 401, 429, 500, 529]))
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    head = b"HTTP/1.1 %d Reason\r\nX-One: two\r\n" % status
    framing = draw(st.sampled_from(["chunked", "sized", "until-close"]))
    if framing == "chunked":
        extension = draw(st.sampled_from([b"", b";a=b"]))
        trailer = draw(st.sampled_from([b"", b"X-Trailer: 1\r\n"]))
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        wire = chunked(pieces, extension, trailer)
    elif framing == "sized":
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        wire = body
    else:
        head += b"\r\n"
        wire = body
    return Answer(interim + head + wire, status, body, framing == "until-close")


CUTS = st.lists(st.integers(0, 500), max_size=8)
BEHIND = st.sampled_from(
    [
        b"data: [DONE]\n\n",
        b"0\r\n\r\n",
        b"\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"\x00\xff",
    ]
)


@given(answers(), CUTS)
def test_a_whole_answer_is_the_same_at_every_cut(
    answer: Answer, places: list[int]
) -> None:
    kept = not answer.until_close

    assert outcome_of(cut(answer.wire, places)) == Outcome(
        answer.status, answer.body, "", kept
    )


@given(answers(), BEHIND, CUTS)
def test_bytes_behind_an_answer_are_not_part_of_it(
    answer: Answer, behind: bytes, places: list[int]
) -> None:
    """They neither lengthen nor spoil it, and the connection is not used again."""
    if answer.until_close:
        return
    got = outcome_of(cut(answer.wire + behind, places))

    assert (got.status, got.body, got.failure) == (answer.status, answer.body, "")
    assert not got.kept or not behind.strip(b"\r\n")


@given(answers(), st.integers(1, 400), CUTS)
def test_an_answer_that_was_cut_is_never_whole(
    answer: Answer, missing: int, places: list[int]
) -> None:
    """By its framing; a body that only a close ends has none."""
    whole = answer.wire
    length = len(whole) - min(missing, len(whole))
    head_bytes = whole.index(b"\r\n\r\n", whole.index(b"X-One")) + 4
    got = outcome_of(cut(whole[:length], places))

    if answer.until_close and length >= head_bytes:
        assert got.failure == ""
    elif length < head_bytes:
        assert got.failure in FAILURES
    else:
        assert got.failure == "upstream_cut"
    assert answer.body.startswith(got.body)
    assert not got.kept


@given(answers(), st.integers(0, 400), st.binary(min_size=1, max_size=4), CUTS)
@example(Answer(b"HTTP/1.1 200 OK\r\n\r\n", 200, b"", True), 17, b"\x00", [])
def test_damaged_bytes_end_in_an_answer_or_in_a_known_failure(
    answer: Answer, place: int, damage: bytes, places: list[int]
) -> None:
    at = place % len(answer.wire)
    wire = answer.wire[:at] + damage + answer.wire[at + len(damage) :]
    got, again = outcome_of(cut(wire, places)), outcome_of([wire])

    assert got.failure in FAILURES | {""}
    assert (got.failure == "") == (again.failure == "")
    if not got.failure:
        assert (got.status, got.body) == (again.status, again.body)


@given(st.binary(max_size=300), CUTS)
def test_any_bytes_are_survived(wire: bytes, places: list[int]) -> None:
    assert outcome_of(cut(wire, places)).failure in FAILURES


@given(answers(), CUTS)
def test_an_answer_to_head_has_no_body(answer: Answer, places: list[int]) -> None:
    got = outcome_of(cut(answer.wire, places), "HEAD")

    assert (got.status, got.body, got.failure) == (answer.status, b"", "")
