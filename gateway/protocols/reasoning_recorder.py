"""
The reasoning of an answer whose client has no place for it, by the call it led to.

Chat has none, and a Messages client shows none that it did not ask for; yet with the
call's result the server wants its own back.
"""

from __future__ import annotations

from gateway.protocols.call_ids import wide
from gateway.protocols.delta_template import Note
from gateway.protocols.event_json import joined
from gateway.protocols.events import (
    CallOpen,
    Delta,
    Event,
    ItemClose,
    ItemOpen,
    ReasoningDelta,
    Signature,
)
from gateway.protocols.model import Reasoning
from gateway.protocols.opaque import unpacked

MAX_CHARS = 1_000_000
"""Of one answer's reasoning; of more nothing is kept."""
_KINDS = frozenset((CallOpen, ItemClose, ItemOpen, ReasoningDelta, Signature))


class ReasoningRecorder:
    """
    Attributes:
        kept: by call id, what led to the call since the one before.
    """

    def __init__(self) -> None:
        self.kept: dict[str, list[Reasoning]] = {}
        self._open: dict[int, Reasoning] = {}
        self._pending: list[Reasoning] = []
        self._last: list[Reasoning] | None = None  # of the latest call
        self._chars = 0

    def note(self, event: Event) -> None:
        """Note one event of the answer."""
        if type(event) not in _KINDS:
            return
        if isinstance(event, CallOpen):
            self._last = self.kept[wide(event.call_id)] = self._pending
            self._pending = []
        elif isinstance(event, ItemOpen):
            if event.kind == "reasoning":
                self._open[event.key] = Reasoning([])
        elif isinstance(event, ItemClose):
            self._close(event.key)
        elif isinstance(event, (ReasoningDelta, Signature)):
            if reasoning := self._open.get(event.key):
                self._grow(reasoning, event)

    def note_of(self, event: Delta) -> Note | None:
        """What notes more deltas like *event*; None if they are not kept."""
        if not isinstance(event, ReasoningDelta):
            return None
        return lambda text: self.note(ReasoningDelta(event.key, text))

    def whole(self) -> dict[str, list[Reasoning]]:
        """What was kept, of calls that have any; nothing if it is too much."""
        if self._chars > MAX_CHARS:
            return {}
        return {call_id: kept for call_id, kept in self.kept.items() if kept}

    def _grow(self, reasoning: Reasoning, event: ReasoningDelta | Signature) -> None:
        if isinstance(event, ReasoningDelta):
            self._chars += len(event.text)
            if self._chars <= MAX_CHARS:
                reasoning.texts.append(event.text)
            return
        self._chars += len(event.value)
        if event.form == "opaque":
            reasoning.opaque = unpacked(event.value)
        elif event.form == "blob":
            reasoning.blob, reasoning.id = event.value, event.id
        elif event.form == "redacted":
            reasoning.redacted = event.value
        else:
            reasoning.signature = event.value

    def _close(self, key: int) -> None:
        reasoning = self._open.pop(key, None)
        if reasoning is None:
            return
        reasoning.texts = [joined(reasoning.texts)] if reasoning.texts else []
        late = self._last is not None and reasoning.opaque is not None
        if late and self._last is not None:
            self._last.append(reasoning)
        else:
            self._pending.append(reasoning)
