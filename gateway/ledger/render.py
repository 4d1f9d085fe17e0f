"""Answers of the ledger as people and machines read them; every function gives text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from textwrap import wrap
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from gateway.ledger.narrative import sentences
from gateway.ledger.narrative_words import held_slots
from gateway.ledger.report import ReportRow, RequestHistory
from gateway.ledger.spans import spans_of

WIDTH = 200  # of tables: they are as wide as they need, a pager can cut
EVENT_WIDTH = 16
TEXT_WIDTH = 88  # of sentences
BAR_WIDTH = 40
LABEL_WIDTH = 24
FILLS = {
    "read": ".",
    "queue": "·",
    "connect": "-",
    "think": "░",
    "answer": "█",
    "drain": "▒",
}
SHORT = {
    "requests": "requests",
    "client_gone": "gone",
    "input_tokens": "input",
    "cached_tokens": "cached",
    "cache_write_tokens": "cache write",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
    "cost_usd": "USD",
}


def as_json(value: Any) -> str:
    """Any answer for machines."""
    return json.dumps(value, indent=2, default=_json_value, ensure_ascii=False)


def as_csv(rows: Sequence[ReportRow], columns: Sequence[str]) -> str:
    """Rows for a spreadsheet, with a head even when there are none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def usage_table(rows: Sequence[ReportRow], by: Sequence[str]) -> str:
    """Sums for people; a last line adds them up."""
    if not rows:
        return "No requests."
    numbers = [name for name in rows[0] if name not in by]
    table = Table(box=box.SIMPLE_HEAD, show_footer=len(rows) > 1, pad_edge=False)
    for index, name in enumerate(by):
        table.add_column(name, footer="" if index else "all", overflow="fold")
    for name in numbers:
        total = sum(row[name] for row in rows)
        table.add_column(
            SHORT.get(name, name), _cell(name, total), justify="right", no_wrap=True
        )
    for row in rows:
        keys = (str(row[name]) or "-" for name in by)
        table.add_row(*keys, *(_cell(name, row[name]) for name in numbers))
    return _text(table)


def request_list(rows: Sequence[ReportRow]) -> str:
    """One line a request."""
    if not rows:
        return "No requests."
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("started (UTC)", "request id", "user", "model", "account"):
        table.add_column(name, no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for name in ("tries", "ms", "input", "output"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['started_at']:%Y-%m-%d %H:%M:%S}",
            *(row[name] or "-" for name in ("request_id", "user", "model", "account")),
            _outcome(row),
            str(row["attempts"]),
            *(
                _number(row[name])
                for name in ("duration_ms", "input_tokens", "output_tokens")
            ),
        )
    return _text(table)


def timeline(history: RequestHistory) -> str:
    """What happened to one request, in order, in milliseconds."""
    return "\n".join(
        [
            *_head(history.request),
            "",
            *why_lines(history),
            *try_lines(history),
            *bar_lines(history),
            *mark_lines(history),
        ]
    )


def history_json(history: RequestHistory) -> ReportRow:
    """The same for machines."""
    return {
        **history.request,
        "why": sentences(history),
        "attempts": history.attempts,
        "timeline": [
            {"at_ms": round(at_s * 1000, 3), "event": event, **facts}
            for at_s, event, facts in history.marks
        ],
    }


def _head(row: ReportRow) -> Iterator[str]:
    ids = " ".join(filter(None, (row["request_id"], row["response_id"])))
    yield f"request   {ids}"
    if row["outcome"] == "open":
        yield f"state     {_outcome(row)}"
    else:
        yield f"ended     {_outcome(row)}, HTTP {row['status'] or '-'}"
    yield _facts("user", row["user"], key=row["key"], client=row["client"])
    if row["session"]:
        yield f"session   {row['session']}"
    how = "stream" if row["stream"] else "not streamed"
    yield f"asked     {row['protocol']} {row['model'] or '-'}, {how}"
    if row["account"]:
        protocol, model = row["upstream_protocol"], row["upstream_model"]
        upstream = row["upstream_request_id"]
        yield _facts("sent to", f"{row['account']} {protocol} {model}", id=upstream)
    yield _facts(
        "times",
        f"{row['started_at']:%Y-%m-%d %H:%M:%S.%f} UTC",
        queue=_milliseconds(row["queue_ms"]),
        first=_milliseconds(row["first_event_ms"]),
        all=_milliseconds(row["duration_ms"]),
    )
    if row["input_tokens"] is not None or row["output_tokens"] is not None:
        yield f"tokens    {_tokens(row)}"
    if row["dropped"]:
        yield f"left out  {row['dropped']}"


def _tokens(row: ReportRow) -> str:
    """Counts, whether they are estimated, and what they cost."""
    counts = (
        f"{SHORT[name]} {row[name]}"
        for name in SHORT
        if name.endswith("_tokens") and row[name] is not None
    )
    cost = row["cost_usd"]
    money = "price unknown" if cost is None else f"{cost:.6f} USD"
    return (
        ", ".join(counts)
        + (" (estimated)" if row["estimated"] else "")
        + (f", {money}")
    )


def try_lines(history: RequestHistory) -> Iterator[str]:
    """One line an attempt."""
    if not history.attempts:
        return
    width = max(len(one["account"]) for one in history.attempts)
    for one in history.attempts:
        code = one["error_code"]
        how = f"{code}, not finished" if code else "still running"
        if one["ended_at"]:
            took_s = (one["ended_at"] - one["started_at"]).total_seconds()
            how = f"{code or 'ok'}, {_milliseconds(max(0.0, took_s * 1000))}"
        status = one["status"] or "-"
        yield f"attempt {one['n']} {one['account']:<{width}} {status:>3}  {how}"
    yield ""


def why_lines(history: RequestHistory) -> Iterator[str]:
    """The sentences, indented where they go on."""
    for sentence in sentences(history):
        yield from wrap(sentence, TEXT_WIDTH, subsequent_indent="  ")
    yield ""


def bar_lines(history: RequestHistory) -> Iterator[str]:
    """What took the time: one bar a span, all on one scale."""
    spans = spans_of(history)
    whole_s = max((span.end_s for span in spans), default=0.0)
    if not whole_s:
        return
    labels = [f"{span.kind} {span.name}".strip() for span in spans]
    width = min(LABEL_WIDTH, max(map(len, labels)))
    for span, label in zip(spans, labels, strict=True):
        start = min(BAR_WIDTH - 1, int(span.start_s / whole_s * BAR_WIDTH))
        end = max(start + 1, round(span.end_s / whole_s * BAR_WIDTH))
        bar = " " * start + FILLS[span.kind] * (end - start)
        took = _milliseconds((span.end_s - span.start_s) * 1000)
        line = f"{label[:width]:<{width}} |{bar:<{BAR_WIDTH}}| {took:>12}  {span.code}"
        yield line.rstrip()
    yield ""


def mark_lines(history: RequestHistory) -> Iterator[str]:
    """The timeline, a mark a line."""
    if not history.marks:
        yield "No timeline: the request is running, or its trace was too old to keep."
        return
    yield f"{'ms':>12} {'+ms':>10}  event"
    before = 0.0
    for at_s, event, facts in history.marks:
        step = (at_s - before) * 1000
        before = at_s
        first, *more = _fact_lines(facts)
        line = f"{event:<{EVENT_WIDTH}} {first}".rstrip()
        yield f"{at_s * 1000:12.1f} {step:10.1f}  {line}"
        for line in more:
            yield f"{'':<{25 + EVENT_WIDTH}} {line}".rstrip()


def _fact_lines(given: dict[str, Any]) -> list[str]:
    """The facts of a mark: a first line, and one for each account that it names."""
    facts = dict(given)
    rejected = facts.pop("rejected", None) or []
    taken = facts.pop("taken", None) or []
    lines = [" ".join(f"{key}={_value(value)}" for key, value in facts.items())]
    lines += filter(None, (held_slots(*one) for one in taken))
    pairs = rejected.items() if isinstance(rejected, dict) else rejected
    return lines + [_rejection(*pair) for pair in pairs]


def _rejection(
    name: str, reason: str, left_s: float | None = None, dated: bool = False
) -> str:
    back = "" if left_s is None else f", back in {_value(left_s)} s"
    return f"not {name}, {reason}{back}{' (its own time)' if dated else ''}"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(one, (list, tuple)) for one in value)
        return (" | " if nested else ", ").join(map(_value, value)) or "-"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict)
        else (str(value))
    )


def _outcome(row: ReportRow) -> str:
    if row["outcome"] == "open":
        return str(row.get("state", "running"))
    why = " ".join(filter(None, (row["origin"], row["error_code"])))
    return f"{row['outcome']} ({why})" if why else str(row["outcome"])


def _facts(name: str, value: str, **others: str) -> str:
    more = ", ".join(f"{key} {other}" for key, other in others.items() if other)
    return f"{name:<9} {value or '-'}" + (f", {more}" if more else "")


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"


def _cell(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "cost_usd" else f"{value:,}".replace(",", " ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _text(table: Table) -> str:
    out = io.StringIO()
    # Text in brackets or between colons is a client's word, not a style.
    plain = Console(file=out, width=WIDTH, color_system=None, markup=False, emoji=False)
    plain.print(table)
    return "\n".join(_right_stripped(out.getvalue().splitlines())).strip("\n")


def _right_stripped(lines: Iterable[str]) -> Iterator[str]:
    return (line.rstrip() for line in lines)


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
