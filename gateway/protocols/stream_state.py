"""
The life of a stream, the same for every protocol.

Rule 1: ``TRANSITIONS`` alone says which state may follow which.
Rule 2: this file knows no protocol; a ``WireProtocol`` says what an event *means* (its
        ``Step``), this file says what follows from it.

    WAITING ──OUTPUT──▶ STREAMING ──END/FAIL──▶ CLOSED
       └──────────────END/FAIL───────────────────▲

``PassThrough`` follows a stream that passes unchanged. ``Batch`` is what crosses from
upstream to downstream: never an object per event, always the bytes of all events
that one read completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from gateway.errors import UpstreamError
from gateway.protocols.overload_text import answer_so_far
from gateway.protocols.protocol import (
    END,
    FAIL,
    HIDDEN,
    NEUTRAL,
    OUTPUT,
    Ending,
    Step,
    WireProtocol,
)
from gateway.protocols.sse import (
    EventScanner,
    EventTooLarge,
    Needle,
    event_finder,
    is_plain,
    next_telling,
)
from gateway.protocols.stray_failures import NO_STREAM, NonStreamBody
from gateway.protocols.stream_facts import StreamFacts


class StreamState(Enum):
    """What the client has: nothing of the answer, a part, its terminal."""

    WAITING = "waiting"
    STREAMING = "streaming"
    CLOSED = "closed"

    # A state is looked up for every event; Enum's own hash is Python code.
    __hash__ = object.__hash__


# A member costs ten times a global when it is taken from its Enum.
WAITING: Final = StreamState.WAITING
STREAMING: Final = StreamState.STREAMING
CLOSED: Final = StreamState.CLOSED

TRANSITIONS: dict[StreamState, dict[Step, StreamState]] = {
    StreamState.WAITING: {
        Step.IDLE: StreamState.WAITING,
        Step.NEUTRAL: StreamState.WAITING,
        Step.HIDDEN: StreamState.WAITING,
        Step.OUTPUT: StreamState.STREAMING,
        Step.END: StreamState.CLOSED,
        Step.FAIL: StreamState.CLOSED,
    },
    StreamState.STREAMING: {
        Step.IDLE: StreamState.STREAMING,
        Step.HIDDEN: StreamState.STREAMING,
        Step.NEUTRAL: StreamState.STREAMING,
        Step.OUTPUT: StreamState.STREAMING,
        Step.END: StreamState.CLOSED,
        Step.FAIL: StreamState.CLOSED,
    },
    StreamState.CLOSED: {},
}

_BOM = b"\xef\xbb\xbf"


class Batch(NamedTuple):
    """
    What one read brought.

    Attributes:
        data: whole events for the client, in order; never the terminal.
        started: real output has been seen, now or before.
        terminal: the client's terminal event; nothing may follow it.
        ending: what the terminal said; for a failure without ``terminal`` the
            gateway writes the ending itself.
        has_event: an event has come, not signs of life alone.
    """

    data: bytes
    started: bool
    terminal: bytes = b""
    ending: Ending | None = None
    has_event: bool = False


class PassThrough:
    """
    Follow a stream whose bytes pass unchanged.

    Attributes:
        plain_heads: see ``WireProtocol``.
    """

    converts = False
    conversion = None

    __slots__ = (
        "_wire",
        "_scanner",
        "_held",
        "_needles",
        "plain_heads",
        "_begun",
        "_misplaced",
        "state",
        "facts",
    )

    def __init__(self, wire: WireProtocol, facts: StreamFacts) -> None:
        self._wire = wire
        self._needles = wire.needles
        self.plain_heads = wire.plain_heads
        self._scanner = EventScanner()
        self._held = self._scanner.held
        self._begun = False
        self._misplaced: NonStreamBody | None = None
        self.state: StreamState = WAITING
        self.facts = facts

    def passes(self, chunk: bytes) -> bool:
        """
        Whether *chunk* is the client's as it is: whole events of an answer that has
        begun, none of which can mean anything. ``feed`` need not see it then, and would
        hand it out unchanged; any other chunk must be fed.
        """
        if self.state is not STREAMING or self._held or not chunk.endswith(b"\n\n"):
            return False
        if is_plain(chunk, self.plain_heads, 0, len(chunk)):
            return True
        for needle in self._needles:
            if needle.search(chunk):
                return False
        return True

    @property
    def needles(self) -> Sequence[Needle] | None:
        """
        What makes that ``passes`` is false for whole events, but for one that begins
        with one of ``plain_heads``; None: not that alone.
        """
        if self.state is not STREAMING or self._held:
            return None
        return self._needles

    def feed(self, chunk: bytes) -> Batch:
        """Take the next piece of the stream, wherever it was broken."""
        if self._misplaced is not None:
            return self._refuse(self._misplaced.take(chunk))
        if not self._begun and self._begins_wrong(chunk):
            return self.feed(chunk.removeprefix(_BOM))
        try:
            data = self._scanner.feed(chunk)
        except EventTooLarge:
            return self._failed("upstream_too_large")
        return self._look(data) if data else Batch(b"", self._started)

    def finish(self, *, clean: bool = True) -> Batch:
        """
        The upstream is at its end without a terminal so far.

        A terminal event that lacks only its blank line at a *clean* end counts (the LF
        of its CRLF alone: at any end), and so does an answer of which only the
        protocol's last word is missing.
        """
        if self._misplaced is not None:
            return self._refuse(self._misplaced.finish())
        rest, began = self._scanner.rest(), self._started
        finished, data = self.facts.finished, b""
        if (clean or self._scanner.lacks_lf_alone) and rest.strip():
            batch = self._look(_with_blank_line(rest))
            if batch.ending:
                return batch
            # Only the event that finished the answer is known to be whole.
            data = b"" if finished else batch.data
        ending = self._wire.ending_without_terminal(self.facts)
        if ending is not None:
            started, self.state = self._started, CLOSED
            if ending.outcome == "failed":
                return Batch(b"", started, b"", ending)
            return Batch(data, True, self._wire.last_word, ending)
        empty = not began and not rest
        return self._failed("upstream_empty" if empty else "upstream_cut")

    @property
    def _started(self) -> bool:
        return self.state is not WAITING

    def _begins_wrong(self, chunk: bytes) -> bool:
        """HTML or JSON where a stream should be shows in its first character."""
        first = chunk.removeprefix(_BOM).lstrip()[:1]
        self._begun = bool(first)
        if first in NO_STREAM:
            self._misplaced = NonStreamBody()
        return first in NO_STREAM

    def _refuse(self, ending: Ending | None) -> Batch:
        """What JSON where a stream should be means, once it is there."""
        if ending is not None:
            self.state = CLOSED
        return Batch(b"", False, b"", ending)

    def _look(self, data: bytes) -> Batch:
        """
        Read the events of *data* that may mean something: each one of a preamble,
        later those alone that a needle points at. The others pass.
        """
        read, facts, needles = self._wire.read, self.facts, self._needles
        passed: list[bytes] = []  # what of data is the client's, up to ``done``
        done, end, size, hits = 0, 0, len(data), [-1] * len(needles)
        state, at = self.state, event_finder(data)
        has_event = state is not WAITING
        while end < size:
            begin = end
            if state is not WAITING:
                if (begin := next_telling(data, end, needles, hits, at)) == size:
                    break
            event = at(data, begin)
            end = begin + len(event)
            step = read(event, facts)
            if step is OUTPUT and state is WAITING:
                if self._is_answer():
                    needles = self._streaming_needles()
                    hits = [-1] * len(needles)
                else:
                    step = NEUTRAL
            if step is NEUTRAL:  # it leaves every state as it is
                has_event = True
                continue
            state = TRANSITIONS[state][step]
            if state is CLOSED:
                passed.append(data[done:begin])
                return self._close(step, b"".join(passed), event)
            self.state = state
            has_event = has_event or step is OUTPUT
            if step is HIDDEN:
                passed.append(data[done:begin])
                done = end
        if passed:
            passed.append(data[done:])
            data = b"".join(passed)
        return Batch(data, state is not WAITING, has_event=has_event)

    def _streaming_needles(self) -> tuple[Needle, ...]:
        """What to look for in a running stream; proofs only where some may come."""
        if self.facts.thinks and self._wire.proof_needle:
            self._needles = *self._wire.needles, self._wire.proof_needle
        return self._needles

    def _close(self, step: Step, passed: bytes, event: bytes) -> Batch:
        """The terminal *event* has come, behind *passed*."""
        facts, started = self.facts, self._started
        ending = self._wire.ending(facts)
        facts.terminal = {}  # it may be as large as the whole answer
        if not started and step is END and _is_overload(facts):
            return self._failed("upstream_overloaded")
        self.state = CLOSED
        terminal = facts.held + event if step is FAIL else event
        return Batch(passed, started, terminal, ending, has_event=True)

    def _is_answer(self) -> bool:
        """Whether what has come is not the beginning of an overload's text."""
        facts = self.facts
        if facts.certain or not facts.opening:
            return True
        return answer_so_far(facts.opening) == "no"

    def _failed(self, code: str) -> Batch:
        started, self.state = self._started, CLOSED
        return Batch(b"", started, b"", Ending("failed", UpstreamError(code)))


def _with_blank_line(event: bytes) -> bytes:
    """*event* with the blank line that it lacks, in its own line ends."""
    end = b"\r\n" if b"\r\n" in event else b"\n"
    return event.rstrip(b"\r\n") + end + end


def _is_overload(facts: StreamFacts) -> bool:
    """Whether the whole answer is a sentence about overload."""
    return not facts.certain and answer_so_far(facts.opening) == "yes"
