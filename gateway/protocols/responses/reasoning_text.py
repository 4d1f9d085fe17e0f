"""
The text of a reasoning item that is still arriving: which of it is already sent.

Rule 1: of summary and raw text, the one that comes first is sent, the other is not.
Rule 2: a blank line separates parts.
Rule 3: of a done event, only the text that its deltas left out is sent.
"""

from __future__ import annotations

from typing import Any, Literal

from gateway.protocols.event_json import string

Source = Literal["summary", "raw"]


class ReasoningText:
    """The text of one reasoning item."""

    __slots__ = ("_source", "_part", "_sent", "_length")

    def __init__(self) -> None:
        self._source = ""
        self._part = -1  # the last one that was sent
        self._sent: dict[int, int] = {}  # characters sent, by part
        self._length = 0

    def more(self, source: Source, part: int, text: str) -> str:
        """What to send of *text*, the next piece of *part*."""
        self._source = self._source or source
        if not text or self._source != source:
            return ""
        separator = "\n\n" if self._length and part != self._part else ""
        self._part = part
        self._sent[part] = self._sent.get(part, 0) + len(text)
        self._length += len(text)
        return separator + text

    def is_at(self, source: Source, part: int) -> bool:
        """Whether the last piece came from *part* of *source*."""
        return (self._source, self._part) == (source, part)

    def rest(self, source: Source, part: int, text: str) -> str:
        """What to send of *text*, the whole of *part*."""
        return self.more(source, part, text[self._sent.get(part, 0) :])

    def all(self, given: dict[str, Any]) -> str:
        """What to send of the whole item *given*."""
        source: Source = "raw" if self._source == "raw" else "summary"
        texts = _texts(given.get("summary" if source == "summary" else "content"))
        if not any(texts) and not self._source:
            source, texts = "raw", _texts(given.get("content"))
        if self._length >= sum(map(len, texts)):
            return ""
        return "".join(
            self.rest(source, part, text) for part, text in enumerate(texts) if text
        )


def _texts(parts: Any) -> list[str]:
    if not isinstance(parts, list):
        return []
    return [string(part, "text") if isinstance(part, dict) else "" for part in parts]
