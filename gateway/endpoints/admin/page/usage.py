"""The view Usage: sums by the keys that are asked for, a plot, and the same as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from gateway.endpoints.admin.page.plots import Plot, Series, stacked_bars

KEYS = ("user", "model", "account", "day", "protocol", "client")
DEFAULT_BY = ("day", "user")
DEFAULT_SINCE = "30d"
MAX_ROWS = 500  # shown; the CSV has all
MAX_BARS = 92

COLUMNS = (
    ("requests", "Requests"),
    ("ok", "Ok"),
    ("failed", "Failed"),
    ("refused", "Refused"),
    ("input_tokens", "Input tokens"),
    ("cached_tokens", "Cached"),
    ("output_tokens", "Output tokens"),
    ("reasoning_tokens", "Reasoning"),
    ("cost_usd", "USD"),
)
PLOTS = {
    "cost_usd": ("Cost", "USD", "usd"),
    "tokens": ("Tokens, input and output", "", "number"),
    "requests": ("Requests", "", "number"),
}

Row = Mapping[str, Any]
Values = dict[str, Any]


def chosen_keys(given: Sequence[str]) -> list[str]:
    """
    The known ones of *given*, also of lists as the API takes them (``user,model``); the
    day first: it is what a plot runs along.
    """
    asked = ",".join(given).split(",")
    known = [key for key in KEYS if key in asked] or list(DEFAULT_BY)
    return sorted(known, key=lambda key: key != "day")


def usage_values(
    asked: Mapping[str, str], by: list[str], rows: Sequence[Row]
) -> Values:
    """
    The values of ``usage.html``.

    Args:
        asked: ``user``, ``since``, ``plot``.
        rows: the sums by *by*.
    """
    what = asked["plot"] if asked["plot"] in PLOTS else "cost_usd"
    title, unit, kind = PLOTS[what]
    query = [("by", key) for key in by]
    query += [(name, asked[name]) for name in ("user", "since") if asked[name]]
    sums = [name for name, _ in COLUMNS] + ["estimated", "unpriced"]
    return {
        "asked": {**asked, "plot": what},
        "keys": KEYS,
        "by": by,
        "rows": rows[:MAX_ROWS],
        "hidden_rows": max(0, len(rows) - MAX_ROWS),
        "columns": [{"name": name, "title": title} for name, title in COLUMNS],
        "total": {name: math.fsum(row[name] or 0 for row in rows) for name in sums},
        "csv": f"/usage.csv?{urlencode(query)}",
        "plots": [(name, words[0]) for name, words in PLOTS.items()],
        "plot_title": f"{title} by {' and '.join(by)}",
        "plot_unit": unit,
        "plot_format": kind,
        "drawn": drawn(by, rows, what),
        "error": "",
    }


def drawn(by: Sequence[str], rows: Sequence[Row], what: str) -> Plot:
    """A bar for each value of the first key, stacked by the others."""
    labels = list(dict.fromkeys(_label(row, by[:1]) for row in rows))
    if by[0] != "day":
        heights = {label: 0.0 for label in labels}
        for row in rows:
            heights[_label(row, by[:1])] += _value(row, what)
        labels.sort(key=lambda label: -heights[label])
        labels = labels[:MAX_BARS]
    else:
        labels = labels[-MAX_BARS:]
    at = {label: index for index, label in enumerate(labels)}
    series: dict[str, list[float]] = {}
    for row in rows:
        index = at.get(_label(row, by[:1]))
        if index is not None:
            name = _label(row, by[1:]) if len(by) > 1 else ""
            values = series.setdefault(name, [0.0] * len(labels))
            values[index] += _value(row, what)
    return stacked_bars(
        labels, [Series(name, values) for name, values in series.items()]
    )


def _label(row: Row, by: Sequence[str]) -> str:
    return ", ".join(str(row[key]) or "none" for key in by)


def _value(row: Row, what: str) -> float:
    if what == "tokens":
        return float((row["input_tokens"] or 0) + (row["output_tokens"] or 0))
    return float(row[what] or 0)


def as_csv(by: Sequence[str], rows: Sequence[Row]) -> str:
    """
    Every column of *rows* for a spreadsheet.

    A text that a spreadsheet would take for a formula gets an apostrophe in front: a
    client may choose the name of a model.
    """
    out = io.StringIO()
    columns = list(rows[0]) if rows else [*by, *(name for name, _ in COLUMNS)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value
