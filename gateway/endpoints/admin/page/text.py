"""
Figures as people read them, with their units; the filters of the templates.

A value that is not known is "–" everywhere, never 0.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, NamedTuple

UNKNOWN = "–"
THIN = "\u202f"  # between the groups of a number


class Moment(NamedTuple):
    """
    One moment for ``<time>``.

    Attributes:
        iso: for machines.
        utc: for people, to the second.
        unix: seconds.
    """

    iso: str
    utc: str
    unix: float


def moment(value: Any) -> Moment | None:
    """*value* (a datetime, ISO text, Unix seconds) as a moment; None if it is none."""
    when = _datetime(value)
    if when is None:
        return None
    when = when.astimezone(UTC)
    return Moment(
        when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        when.strftime("%Y-%m-%d %H:%M:%S"),
        when.timestamp(),
    )


def _datetime(value: Any) -> datetime | None:
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def number(value: Any, digits: int = 0) -> str:
    """``1 234 567``, or with *digits* behind the point."""
    if not _is_number(value):
        return UNKNOWN
    text = f"{value:,.{digits}f}".replace(",", THIN)
    return text.removeprefix("-") if text.strip("-0.") == "" else text


def usd(value: Any) -> str:
    """US dollars with four digits: a column of them stays aligned."""
    return number(value, 4)


def cents(value: Any) -> str:
    """US dollars to the cent."""
    return number(value, 2)


def share(value: Any) -> str:
    """A part of 1 in per cent; all is 100 %, nearly all is not."""
    if not _is_number(value):
        return UNKNOWN
    percent = value * 100
    shown = math.floor(percent * 10) / 10 if percent < 100 else 100.0
    return f"{shown:.1f}{THIN}%" if shown not in (0, 100) else f"{shown:.0f}{THIN}%"


def milliseconds(value: Any) -> str:
    """A time span in the unit that fits: ``31 ms``, ``12.4 s``, ``3 min 20 s``."""
    if not _is_number(value):
        return UNKNOWN
    if 0 < value < 10:
        return f"{value:.1f}{THIN}ms"
    if value < 1000:
        return f"{value:.0f}{THIN}ms"
    if value < 60_000:
        return f"{value / 1000:.1f}{THIN}s"
    return seconds(value / 1000)


def seconds(value: Any) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``; two units at most."""
    if not _is_number(value):
        return UNKNOWN
    whole = max(0, round(value))
    for size, unit, small, smaller in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{THIN}{unit} {rest}{THIN}{smaller}"
    return f"{whole}{THIN}s"


def tokens_per_second(value: Any) -> str:
    """``42 tokens/s``; "" where it is not known."""
    if not _is_number(value):
        return ""
    return f"{number(value, 1 if value < 10 else 0)}{THIN}tokens/s"


def short(identifier: Any) -> str:
    """The beginning of an id: enough to tell one from another in a list."""
    text = str(identifier or "")
    return text if len(text) <= 13 else text[:8] + "…"


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def figure(
    name: str, value: str, unit: str = "", *, rate: str = "", style: str = "number"
) -> dict[str, str]:
    """
    One of the large numbers on top of a view.

    Args:
        rate: the member of the event ``rates`` that renews it.
        style: how the browser writes it then.
    """
    return {"name": name, "value": value, "unit": unit, "rate": rate, "style": style}


FILTERS = {
    "moment": moment,
    "number": number,
    "usd": usd,
    "cents": cents,
    "share": share,
    "ms": milliseconds,
    "seconds": seconds,
    "short": short,
}
