"""
``gateway usage --plot``: sums of the ledger as bars in a terminal.

Days are the axis where they are asked for, in their order and without a gap; otherwise
the first key is, the largest first. The other keys divide each bar into parts.

    2026-11-27  █████████████████████▓▓▓▓▓▓▓▓▓                12.40
    2026-11-28  ██████████▓▓▓▓                                 5.61
    █ alice 12.13   ▓ bob 5.88
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

from rich.text import Text

from gateway.ledger.bars import ASCII_FILL, EIGHTHS, bar, lengths, si
from gateway.ledger.report import QuestionError, ReportRow

MEASURES = ("cost", "tokens", "requests")
TITLES = {"cost": "cost in USD", "tokens": "tokens", "requests": "requests"}
NO_KEY = "-"
OTHERS = "others"
MAX_PARTS = 6  # more would look alike; the rest is one part
MAX_BARS = 400  # of days: a longer time is asked for in two parts
MAX_LABEL = 32
MIN_BAR = 10
STYLES = ("cyan", "magenta", "yellow", "green", "blue", "red")
FILLS = "█▓▒░▞▚"
ASCII_FILLS = "#=+:o."


class PlotLook(NamedTuple):
    """
    Attributes:
        width: characters of a line.
        plain: nothing but ASCII can be shown.
    """

    width: int
    plain: bool = False


class _Parts(NamedTuple):
    """The numbers of a plot: by the label of a bar, then by the name of a part."""

    bars: dict[str, dict[str, float]]
    names: list[str]

    def of(self, name: str) -> float:
        return sum(parts.get(name, 0.0) for parts in self.bars.values())


def plot(
    rows: Sequence[ReportRow], by: Sequence[str], measure: str, look: PlotLook
) -> Text:
    """
    *rows*, which ``report.usage`` gave for the keys *by*, as bars.

    Args:
        measure: one of MEASURES; "" for the first that is not 0 everywhere.

    Raises:
        QuestionError: there is nothing to draw a bar for.
    """
    if not by:
        raise QuestionError("--plot needs --by: of which key is each bar?")
    if not rows:
        return Text("No requests.")
    chosen = measure or next(
        (one for one in MEASURES if any(_value(row, one) for row in rows)), "requests"
    )
    parts = _largest(_parts(rows, by, chosen))
    lines = [Text(f"{TITLES[chosen]} by {', '.join(by)}", style="bold")]
    lines += _bars(parts, chosen, look)
    if parts.names != [""]:
        lines.append(_legend(parts, chosen, look))
    return Text("\n").join(lines)


def _value(row: ReportRow, measure: str) -> float:
    if measure == "cost":
        return float(row["cost_usd"])
    if measure == "tokens":
        return float(row["input_tokens"] + row["output_tokens"])
    return float(row["requests"])


def _parts(rows: Sequence[ReportRow], by: Sequence[str], measure: str) -> _Parts:
    axis = "day" if "day" in by else by[0]
    others = [key for key in by if key != axis]
    bars: dict[str, dict[str, float]] = {}
    if axis == "day":
        bars = {day: {} for day in _days([str(row["day"]) for row in rows])}
    for row in rows:
        parts = bars.setdefault(str(row[axis]) or NO_KEY, {})
        name = " ".join(str(row[key]) or NO_KEY for key in others)
        parts[name] = parts.get(name, 0.0) + _value(row, measure)
    if axis != "day":
        bars = dict(sorted(bars.items(), key=lambda one: -sum(one[1].values())))
    names = dict.fromkeys(name for parts in bars.values() for name in parts)
    found = _Parts(bars, list(names))
    return found._replace(names=sorted(names, key=lambda name: -found.of(name)))


def _days(found: Sequence[str]) -> list[str]:
    """Every day from the first to the last of *found*, also those without a request."""
    first, last = date.fromisoformat(min(found)), date.fromisoformat(max(found))
    count = (last - first).days + 1
    if count > MAX_BARS:
        raise QuestionError(
            f"--plot: {count} days are too many for bars; say --since {MAX_BARS}d"
        )
    return [(first + timedelta(days=n)).isoformat() for n in range(count)]


def _largest(parts: _Parts) -> _Parts:
    """*parts* with the smallest ones, where there are too many, as one."""
    if len(parts.names) <= MAX_PARTS:
        return parts
    shown = parts.names[: MAX_PARTS - 1]
    bars = {
        label: {name: some[name] for name in shown if name in some}
        | {OTHERS: sum(value for name, value in some.items() if name not in shown)}
        for label, some in parts.bars.items()
    }
    return _Parts(bars, [*shown, OTHERS])


def _bars(parts: _Parts, measure: str, look: PlotLook) -> list[Text]:
    sums = {label: sum(some.values()) for label, some in parts.bars.items()}
    most, whole = max(sums.values()), sum(sums.values())
    numbers = {label: _number(value, measure) for label, value in sums.items()}
    right = max(map(len, numbers.values())) + len("  100%")
    left = min(MAX_LABEL, max(map(len, sums)), max(8, look.width - right - MIN_BAR - 4))
    width = max(MIN_BAR, look.width - left - right - 4)
    lines = []
    for label, value in sums.items():
        line = Text(f"{_short(label, left, look):<{left}}  ")
        line.append_text(_bar(parts, label, most, width, look))
        line.append(" " * (left + 2 + width - len(line)))
        share = f"{value / whole:.0%}" if whole else ""
        line.append(f"  {numbers[label]:>{right - 6}}  {share:>4}")
        lines.append(line)
    return lines


def _bar(parts: _Parts, label: str, most: float, width: int, look: PlotLook) -> Text:
    some = parts.bars[label]
    if len(parts.names) == 1:
        drawn = bar(sum(some.values()), most, width, look.plain)
        return Text(drawn, style=STYLES[0])
    found = Text()
    sizes = lengths([some.get(name, 0.0) for name in parts.names], most, width)
    for n, size in enumerate(sizes):
        found.append(_fill(n, look) * size, style=STYLES[n])
    if not found and sum(some.values()) > 0:
        found.append(ASCII_FILL if look.plain else EIGHTHS[1], style=STYLES[0])
    return found


def _legend(parts: _Parts, measure: str, look: PlotLook) -> Text:
    """What each part is, in as many lines as it takes."""
    found, used = Text(), 0
    for n, name in enumerate(parts.names):
        number = _number(parts.of(name), measure)
        entry = Text().append(_fill(n, look), style=STYLES[n])
        entry.append(f" {_short(name, look.width - len(number) - 3, look)} {number}")
        if used and used + 3 + len(entry) > look.width:
            found.append("\n")
            used = 0
        elif used:
            found.append("   ")
            used += 3
        found.append_text(entry)
        used += len(entry)
    return found


def _fill(n: int, look: PlotLook) -> str:
    """How the part number *n* is filled: colours alone would not reach a file."""
    return (ASCII_FILLS if look.plain else FILLS)[n]


def _number(value: float, measure: str) -> str:
    if measure != "cost":
        return si(value)
    return f"{value:.2f}" if value >= 0.01 or not value else f"{value:.4f}"


def _short(text: str, width: int, look: PlotLook) -> str:
    end = "~" if look.plain else "…"
    return text if len(text) <= width else text[: max(0, width - 1)] + end
