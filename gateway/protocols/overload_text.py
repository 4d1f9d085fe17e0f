"""
An overload message that an upstream sends as the answer itself.

Some servers write a sentence about their load where the model's words should stand.
Such an answer is held back until it is clear that it is a real one.
"""

from __future__ import annotations

from typing import Literal

ANSWERS: tuple[str, ...] = (
    "Selected model is at capacity. Please try a different model.",
    "The model is currently overloaded. Please try again later.",
    "The server is currently overloaded. Please try again later.",
    "The service is temporarily overloaded. Please try again later.",
)
"""Sentences that upstreams were seen to give as a whole answer when overloaded."""


_ANSWERS = frozenset(text.casefold() for text in ANSWERS)
_BEGINNINGS = frozenset(text[:end] for text in _ANSWERS for end in range(len(text)))

MAX_OPENING_CHARS = 1024
"""A longer text is an answer, whatever it says; all of those above are shorter."""


def answer_so_far(text: str) -> Literal["no", "maybe", "yes"]:
    """
    Whether the whole answer *text* is an overload message in plain text.

    "maybe": it could still become one, hold it back; "yes": it is one if the
    answer ends here, without a tool call. Anything longer is a real answer.
    """
    if len(text) > MAX_OPENING_CHARS:
        return "no"
    said = text.strip().casefold()
    if said in _ANSWERS:
        return "yes"
    return "maybe" if said in _BEGINNINGS else "no"
