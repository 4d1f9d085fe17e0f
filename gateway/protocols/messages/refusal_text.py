"""
Tell a refusal from an answer while it streams.

Messages says that the model refused only at the end, OpenAI's protocols have a place of
their own for the words of a refusal. So a first text that begins like one is held back
until it is clear; everything else passes at once. A text that begins otherwise is what
the model said before it was stopped: it stays a text, also in an answer that is whole.
"""

from __future__ import annotations

import re

from gateway.protocols.events import (
    Event,
    Finish,
    ItemClose,
    ItemOpen,
    RefusalDelta,
    Start,
    TextDelta,
)

HELD_CHARACTERS = 400
"""A longer text is passed on: a refusal is short."""

_OPENINGS = (
    "i can't",
    "i can not",
    "i cannot",
    "i won't",
    "i will not",
    "i'm sorry",
    "i am sorry",
    "sorry",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "i'm afraid",
    "i must decline",
    "i have to decline",
    "i need to decline",
    "i apologize",
    "i apologise",
    "my apologies",
    "unfortunately",
    "this request",
    "your request",
)
_LONGEST = max(map(len, _OPENINGS))
_QUOTES = re.compile("[\u2019\u02bc]")


def like_refusal(text: str) -> bool:
    """Whether *text* begins, as far as it goes, as refusals do."""
    begin = _QUOTES.sub("'", text.lstrip()[:_LONGEST].lower())
    return any(
        begin.startswith(opening) or opening.startswith(begin) for opening in _OPENINGS
    )


class RefusalText:
    """A stage behind the Messages reader."""

    def __init__(self) -> None:
        self._over = False
        self._held: list[Event] = []
        self._text = ""

    @property
    def passes_deltas(self) -> bool:
        """See ``Stage``."""
        return self._over

    def take(self, event: Event) -> list[Event]:
        """See ``Stage.take``."""
        if self._over:
            return [event]
        if isinstance(event, Start):
            return [event]
        self._held.append(event)
        if isinstance(event, TextDelta):
            self._text += event.text
        elif isinstance(event, Finish):
            return self._finish(event)
        elif isinstance(event, ItemClose) or _opens_text(event):
            return []
        else:
            return self._release()
        short = len(self._text) <= HELD_CHARACTERS and like_refusal(self._text)
        return [] if short else self._release()

    def _release(self) -> list[Event]:
        """It is an answer: everything passes from now on."""
        self._over = True
        held, self._held = self._held, []
        return held

    def _finish(self, event: Finish) -> list[Event]:
        if event.reason != "filter" or event.category or not self._text:
            return self._release()
        key = self._held[0].key if isinstance(self._held[0], ItemOpen) else 0
        self._over, self._held = True, []
        return [
            ItemOpen(key, "refusal"),
            RefusalDelta(key, self._text),
            ItemClose(key),
            Finish("end", event.usage, tier=event.tier),
        ]


def _opens_text(event: Event) -> bool:
    return isinstance(event, ItemOpen) and event.kind == "text"
