"""
Bars of characters, for answers in a terminal.

Rule: nothing here knows a terminal; how wide it is, and what it can show, is given.
"""

from __future__ import annotations

from collections.abc import Sequence

EIGHTHS = " ▏▎▍▌▋▊▉█"
ASCII_FILL = "#"


def bar(value: float, most: float, width: int, plain: bool = False) -> str:
    """
    *value* as a bar that is *width* characters long for *most*.

    Anything above 0 is seen. Not padded.

    Args:
        plain: in ASCII alone, without fractions of a character.
    """
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(min(value, most) / most * width * 8))
    if plain:
        return ASCII_FILL * max(1, round(eighths / 8))
    whole, rest = divmod(eighths, 8)
    return EIGHTHS[8] * whole + (EIGHTHS[rest] if rest else "")


def lengths(values: Sequence[float], most: float, width: int) -> list[int]:
    """
    How many characters each part of a stacked bar takes; *most* takes *width*.

    The sum is that of the bar as a whole: a part may vanish, but none is added.
    """
    ends, at = [0], 0.0
    for value in values:
        at += max(0.0, value)
        ends.append(round(min(at, most) / most * width) if most > 0 else 0)
    return [end - start for start, end in zip(ends, ends[1:])]


def si(value: float) -> str:
    """A number in at most five characters: 950, 12.3k, 4.56M."""
    for unit, size in (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        scaled = value / size
        if abs(scaled) < 999.5 or unit == "T":
            if not unit:
                return f"{scaled:.0f}"
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f}{unit}"
    raise AssertionError("unreachable")
