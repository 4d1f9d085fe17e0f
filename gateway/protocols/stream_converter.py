"""
An upstream's answer in the client's protocol: a reader of one, a writer of the other.

``StreamConverter`` follows a stream as ``PassThrough`` follows one that passes
unchanged, and gives the same batches.

    chunk ─▶ EventScanner ─▶ Reader ─▶ stages ─▶ Writer ─▶ Batch
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from gateway.errors import UpstreamError
from gateway.protocols import CODECS
from gateway.protocols.answer_stages import (
    CallBinding,
    CompactionStage,
    Stage,
    StopCut,
    SurrogateJoiner,
    WholeCalls,
)
from gateway.protocols.codec import AnswerSettings, ProtocolCodec
from gateway.protocols.delta_template import MAX_TRIES, DeltaTemplate, template_of
from gateway.protocols.event_json import Garbled
from gateway.protocols.events import (
    DELTAS,
    PREAMBLE,
    Delta,
    Event,
    Fail,
    Finish,
    ItemClose,
    Private,
    Signature,
    TextDelta,
)
from gateway.protocols.overload_text import MAX_OPENING_CHARS, answer_so_far
from gateway.protocols.protocol import END, FAIL, NEUTRAL, OUTPUT, Ending, Step
from gateway.protocols.reasoning_recorder import ReasoningRecorder
from gateway.protocols.request_converter import Converted
from gateway.protocols.sse import CR, EventScanner, EventTooLarge, events
from gateway.protocols.stray_failures import NO_STREAM, NonStreamBody
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import (
    CLOSED,
    STREAMING,
    TRANSITIONS,
    WAITING,
    Batch,
    StreamState,
)

_LAST = frozenset((Finish, Fail))
_PROVING = frozenset((Signature, Private))
_NO_ANSWER = PREAMBLE | {ItemClose}
_BOM = b"\xef\xbb\xbf"
_HALF = re.compile(rb"\\u[dD]")  # of a surrogate pair, as an escape


class StreamConverter:
    """
    One answer on its way from an upstream to a client of another protocol.

    Args:
        source: the upstream's protocol.
        target: the client's.
        facts: filled: usage as the upstream counts it, id and model as the client
            sees them.
        converted: the request, and what the client asked for.
        model: the client's name of the model.
        created_at: Unix seconds.
        now: gives Unix seconds, for the time at which the answer was whole.
        client_body: the client's request; needed for ``/responses/compact`` alone.
    """

    def __init__(
        self,
        source: str,
        target: str,
        facts: StreamFacts,
        converted: Converted,
        request_id: str,
        model: str,
        created_at: int,
        *,
        now: Callable[[], float] | None = None,
        client_body: dict[str, Any] | None = None,
    ) -> None:
        upstream, client = CODECS[source], CODECS[target]
        settings = AnswerSettings(converted.asked, request_id, model, created_at, now)
        settings.client_body = client_body or {}
        self.facts = facts
        self.state: StreamState = WAITING
        self._reader = upstream.reader(facts.usage, converted.tools.by_wire)
        self._writer = client.writer(settings)
        self._calls = WholeCalls(converted.tools)
        self._binding = _call_binding(client, converted, settings.seed)
        self._asked = converted.asked
        shown = client.shows_reasoning(converted.asked)
        self._keeping = None if shown else ReasoningRecorder()
        self._proof_of = client.proof_of
        self._stages = self._other_stages(upstream)
        self._scanner = EventScanner()
        self._begun = False
        self._misplaced: NonStreamBody | None = None
        self._opening = ""  # the text so far, while it may be an overload
        self._escaped = False  # surrogate pairs come as escapes
        self._template: DeltaTemplate | None = None
        self._part, self._tries = -1, 0  # the newest, and how many templates are left
        facts.response_id = self._writer.response_id
        facts.model = model
        facts.created_at = created_at

    def _other_stages(self, upstream: ProtocolCodec) -> list[Stage]:
        stages: list[Stage] = []
        if upstream.refusal_stage:
            stages.append(upstream.refusal_stage())
        if self._asked.cut:
            stages.append(StopCut(self._asked.cut, self.facts.usage))
        if self._asked.compaction:
            stages.append(CompactionStage())
        return stages

    # ------------------------------------------------------------ stream

    converts = True

    needles, plain_heads = None, ()  # nothing passes as it is

    @property
    def conversion(self) -> Callable[[bytes], bytes | None] | None:
        """What converts whole events like the last one; see ``DeltaTemplate``."""
        if self._template is None or self._scanner.held:
            return None
        return self._template.convert

    def passes(self, chunk: bytes) -> bool:
        """See ``StreamCodec``."""
        return False

    def feed(self, chunk: bytes) -> Batch:
        """Take the next piece of the stream, wherever it was broken."""
        if self.state is CLOSED:
            return Batch(b"", True)
        if not self._begun:
            chunk = chunk.removeprefix(_BOM)
            if first := chunk.lstrip()[:1]:
                self._begun = True
                if first in NO_STREAM:
                    self._misplaced = NonStreamBody()
        if self._misplaced is not None:
            return self._refuse(self._misplaced.take(chunk))
        try:
            data = self._scanner.feed(chunk)
        except EventTooLarge:
            return self._failed("upstream_too_large")
        if not data:
            return Batch(b"", self._started)
        if self._template is not None:
            if (out := self._template.convert(data)) is not None:
                return Batch(out, True, has_event=True)
        if not self._escaped and _HALF.search(data):
            self._escaped = True
            self._stages.insert(0, SurrogateJoiner())
        if CR in data:
            return self._take([*events(data)])
        return self._take(data.removesuffix(b"\n\n").split(b"\n\n"))

    def finish(self, *, clean: bool = True) -> Batch:
        """
        The upstream is at its end without a terminal so far.

        See ``PassThrough.finish``.
        """
        if self.state is CLOSED:
            return Batch(b"", True)
        if self._misplaced is not None:
            return self._refuse(self._misplaced.finish())
        started, rest = self._started, self._scanner.rest()
        found: list[Event] = []
        if (clean or self._scanner.lacks_lf_alone) and rest.strip():
            with suppress(Garbled):
                found = self._reader.handle(rest)
        if not (found and type(found[-1]) in _LAST):
            found += self._reader.finish()
        out: list[bytes] = []
        has_event = self._started or bool(found)
        batch = self._write(found, out) or self._batch(out, has_event=has_event)
        if batch.ending and batch.ending.outcome == "failed":
            return Batch(b"", started, b"", batch.ending)
        return batch

    @property
    def _started(self) -> bool:
        return self.state is not WAITING

    def _batch(self, out: list[bytes], *, has_event: bool) -> Batch:
        """What one read brought that has not ended the answer."""
        started = self._started
        return Batch(b"".join(out), started, has_event=started or has_event)

    def _take(self, frames: list[bytes]) -> Batch:
        """
        Convert whole events by a template as far as one fits, and read the others: one,
        then more and more at once, until there is a template for what follows.
        """
        out: list[bytes] = []
        at, step, has_event = 0, 1, False
        while at < len(frames):
            if self._template is not None:
                count, data = self._template.convert_some(frames, at)
                if count:
                    out.append(data)
                    at, step, has_event = at + count, 1, True
                    continue
            block = frames[at : at + step]
            found = self._read(block)
            if last := self._write(found, out):
                return last
            if found and self.state is STREAMING and isinstance(found[-1], DELTAS):
                self._template = self._template_of(block[-1], found[-1])
            has_event = has_event or bool(found)
            at, step = at + step, step * 2
        return self._batch(out, has_event=has_event)

    def _read(self, frames: Iterable[bytes]) -> list[Event]:
        """What whole events mean."""
        if self._template is not None and self._template.has_fitted:
            self._tries = MAX_TRIES
        self._template = None
        handle = self._reader.handle
        found: list[Event] = []
        try:
            for frame in frames:
                if frame:
                    found += handle(frame)
        except Garbled:
            found.append(Fail(UpstreamError("upstream_malformed")))
        return found

    def _template_of(self, frame: bytes, event: Delta) -> DeltaTemplate | None:
        """The template for more like *event*, which *frame* was read as."""
        if event.key > self._part:  # keys grow
            self._part, self._tries = event.key, MAX_TRIES
        if not (self._tries and all(stage.passes_deltas for stage in self._stages)):
            return None
        if not self._binding.passes_deltas_of(event.key):
            return None
        self._tries -= 1
        say = self._writer.repeats(event)
        if say is None:
            return None
        found = [self._calls.note_of(event.key)]
        if self._keeping:
            found.append(self._keeping.note_of(event))
        notes = [note for note in found if note is not None]
        return template_of(frame, event, self._reader, notes, say)

    def _write(self, found: list[Event], out: list[bytes]) -> Batch | None:
        """Add what *found* becomes to *out*; the batch that ends the answer, if any."""
        write = self._writer.write
        for event in self._staged(found):
            if type(event) in _LAST:
                return self._last(event, out)
            out.append(write(event))
            if self.state is WAITING:
                self._step(OUTPUT if self._is_answer(event) else NEUTRAL)
        return None

    def _step(self, step: Step) -> None:
        self.state = TRANSITIONS[self.state][step]

    def _is_answer(self, event: Event) -> bool:
        """Whether *event* is output, and not the text of an overload."""
        if isinstance(event, TextDelta):
            self._opening += event.text[: MAX_OPENING_CHARS + 1]
            return answer_so_far(self._opening) == "no"
        return type(event) not in _NO_ANSWER

    def _last(self, event: Event, out: list[bytes]) -> Batch:
        """The answer is whole, or has failed; what came before is the client's."""
        started = self._started
        if not started and answer_so_far(self._opening) == "yes":
            event, out = Fail(UpstreamError("upstream_overloaded")), []
        self._step(FAIL if isinstance(event, Fail) else END)
        if isinstance(event, Fail):
            ending = Ending("failed", event.error, event.failure)
            return Batch(b"".join(out), started, b"", ending)
        out.append(self._writer.write(event))
        terminal = self._writer.terminal
        return Batch(b"".join(out), True, terminal, self._ending(event), has_event=True)

    def _staged(self, found: list[Event]) -> list[Event]:
        """*found*, as the stages let it pass, up to the last event of the answer."""
        for stage in self._stages:
            found = [passed for event in found for passed in stage.take(event)]
        bound, bind = CallBinding.BOUND, self._binding.take
        out: list[Event] = []
        for event in found:
            begun = len(out)
            if type(event) in bound:
                for passed in self._calls.take(event):
                    out += bind(passed)
            else:
                out.append(event)
            if type(event) in _PROVING and self._proof_of:
                self._note_proofs(out[begun:])
            if out and type(out[-1]) in _LAST:
                break
        if self._keeping:
            for event in out:
                self._keeping.note(event)
        return out

    def _note_proofs(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Signature) and self._proof_of:
                self.facts.note_proof(self._proof_of(event))

    def _refuse(self, ending: Ending | None) -> Batch:
        """What JSON where a stream should be means, once it is there."""
        if ending is not None:
            self._step(FAIL)
        return Batch(b"", False, b"", ending)

    def _failed(self, code: str) -> Batch:
        return self._last(Fail(UpstreamError(code)), [])

    # ------------------------------------------------------------ non-stream

    def body(self, upstream_body: dict[str, Any]) -> tuple[dict[str, Any], Ending]:
        """
        A non-stream answer for the client, and how it ended.

        The answer is empty if it is a failure.
        """
        self._step(END)
        found = self._staged(self._reader.read_body(upstream_body))
        last = found[-1] if found else Fail(UpstreamError("upstream_malformed"))
        if not any(map(self._is_answer, found[:-1])):
            if answer_so_far(self._opening) == "yes":
                last = Fail(UpstreamError("upstream_overloaded"))
        if isinstance(last, Fail):
            return {}, Ending("failed", last.error, last.failure)
        return self._writer.body(found), self._ending(last)

    def _ending(self, event: Event) -> Ending:
        if not isinstance(event, Finish):
            return Ending("ok")
        self.facts.unknown_stop = event.unknown
        if self._keeping:
            self.facts.kept = self._keeping.whole()
        return Ending("incomplete" if event.cut_short else "ok")


def _call_binding(
    client: ProtocolCodec, converted: Converted, seed: str
) -> CallBinding:
    """The stage that gives calls the names and ids that *client* takes."""
    return CallBinding(
        converted.tools,
        seed,
        converted.maker,
        free_text_calls=client.free_text_calls,
        narrow_call_ids=client.narrow_call_ids,
    )
