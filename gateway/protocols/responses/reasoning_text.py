"""
A reasoning item while it arrives: what of its text has been told.

Rule 1: of summary and raw text, what comes first is told, the other is not.
Rule 2: parts stand apart by a blank line.
Rule 3: what a done event repeats is told only as far as its deltas left it out.
"""

from __future__ import annotations

from typing import Any, Literal

from gateway.protocols.event_json import string

Source = Literal["summary", "raw"]


class ReasoningText:
    """The text of one reasoning item."""

    __slots__ = ("_source", "_part", "_told", "_length")

    def __init__(self) -> None:
        self._source = ""
        self._part = -1  # the one that was told last
        self._told: dict[int, int] = {}  # characters told, by part
        self._length = 0

    def more(self, source: Source, part: int, text: str) -> str:
        """What to tell of *text*, the next piece of *part*."""
        self._source = self._source or source
        if not text or self._source != source:
            return ""
        apart = "\n\n" if self._length and part != self._part else ""
        self._part = part
        self._told[part] = self._told.get(part, 0) + len(text)
        self._length += len(text)
        return apart + text

    def rest(self, source: Source, part: int, text: str) -> str:
        """What to tell of *text*, the whole of *part*."""
        return self.more(source, part, text[self._told.get(part, 0) :])

    def all(self, given: dict[str, Any]) -> str:
        """What to tell of the whole item *given*."""
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
