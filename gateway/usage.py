"""
The tokens of one answer, counted the same for every protocol.

``input_tokens`` is everything that was read, cached and cache-written tokens
included (as Responses counts); ``output_tokens`` includes reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """Tokens of one answer; None for a count that the upstream has not reported."""

    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None  # all of them
    cache_write_1h_tokens: int | None = None  # the share that is kept for an hour
    output_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def reported(self) -> bool:
        """Whether the upstream has reported what the answer cost."""
        return self.input_tokens is not None and self.output_tokens is not None


MAX_TOKENS = 10**12  # above it a count is nonsense
_DIGITS = len(str(MAX_TOKENS))


def count(value: object) -> int | None:
    """
    A token count as an upstream wrote it; None for what cannot be one.

    Some write a whole float (``11.0``), some a string of digits.
    """
    if type(value) is int:  # nearly always
        return value if 0 <= value <= MAX_TOKENS else None
    if type(value) is float and value.is_integer():
        value = int(value)
    elif type(value) is str and len(value) <= _DIGITS and value.isascii():
        value = int(value) if value.isdecimal() else None
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
