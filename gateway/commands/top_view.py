"""What ``gateway top`` draws of its state, for a terminal of 80 columns or more."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.commands.tables import STYLES, seconds
from gateway.commands.top_state import Facts, TopState, left_s

KEYS = "↑↓ select  s sort  / filter  e end  p pause account  t timeline  q quit"
MAX_SHOWN_FAILURES = 4


def draw(state: TopState, now: float, height: int) -> RenderableType:
    """
    Everything.

    Args:
        now: seconds of the clock that the state was given.
        height: lines of the terminal.
    """
    if state.timeline:
        room = max(1, height - 2)
        first = max(0, min(state.top_line, len(state.timeline) - room))
        lines = state.timeline[first : first + room]
        rows = [Text(one, no_wrap=True, overflow="ellipsis") for one in lines]
        more = "↑↓ scroll  any other key: back"
        return Group(*rows, Text(more, style="dim"))
    room = (height - 8 - len(state.accounts)) // 3
    shown = max(1, min(MAX_SHOWN_FAILURES, room))
    failures = list(state.failures)[-shown:]
    used = 8 + len(state.accounts) + len(failures)
    return Group(
        _head(state),
        _accounts(state),
        _requests(state, now, max(1, height - used)),
        *(Text(one, "red", no_wrap=True, overflow="ellipsis") for one in failures),
        Text(state.message or KEYS, style="dim", no_wrap=True, overflow="ellipsis"),
    )


def _head(state: TopState) -> Text:
    rates = state.rates
    if not state.connected:
        return Text("the daemon does not answer; trying again", style="bold red")
    text = (
        f"running {rates.get('running', 0)}  waiting {rates.get('waiting', 0)}  "
        f"{rates.get('requests_per_s', 0):.1f} requests/s  "
        f"{rates.get('tokens_per_s', 0):.0f} tokens/s  "
        f"{rates.get('failures_per_min', 0):.0f} failures/min"
    )
    return Text(text, style="bold", no_wrap=True, overflow="ellipsis")


def _table(*columns: tuple[str, int, bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for name, width, is_number in columns:
        table.add_column(
            name,
            min_width=width,
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _accounts(state: TopState) -> Table:
    table = _table(
        ("account", 16, False),
        ("state", 7, False),
        ("why", 14, False),
        ("back in", 7, True),
        ("slots", 6, True),
        ("waiting", 7, True),
        ("wait", 5, True),
    )
    now = datetime.now(UTC)
    for one in state.accounts.values():
        slots = one["slots"]
        table.add_row(
            Text(one["name"]),
            _word(one["state"]),
            Text(one["reason"]),
            _back_in(one, now),
            f"{slots['in_use']}/{slots['limit'] or '∞'}",
            str(one["waiting"]),
            seconds(one["wait_s"]) or "-",
        )
    return table


def _back_in(one: Facts, now: datetime) -> str:
    """The cooldown, counting down."""
    left = left_s(one["until"], now)
    return "-" if left is None else f"{left:.0f} s"


def _requests(state: TopState, now: float, room: int) -> Table:
    more = f", /{state.filter}" if state.filter else ""
    table = _table(
        (f"request (by {state.sort}{more})", 20, False),
        ("user", 8, False),
        ("account", 9, False),
        ("state", 7, False),
        ("place", 5, True),
        ("wait", 5, True),
        ("age", 5, True),
        ("tok/s", 5, True),
    )
    rows = state.rows(now)
    ids = [row["request_id"] for row in rows]
    at = ids.index(state.selected) if state.selected in ids else 0
    first = max(0, min(at - room // 2, len(rows) - room))
    for row in rows[first : first + room]:
        chosen = row["request_id"] == state.selected
        rate = row.get("tokens_per_s")
        table.add_row(
            Text(("▶ " if chosen else "  ") + (row.get("model") or row["request_id"])),
            Text(row["user"]),
            Text(row["account"] or "-"),
            _word(row["state"]),
            str(row.get("position") or "-"),
            seconds(row.get("wait_s")) or "-",
            seconds(state.age_s(row, now)) or "-",
            "-" if rate is None else f"{rate:.0f}",
            style="reverse" if chosen else "",
        )
    return table


def _word(state: str) -> Text:
    return Text(state, style=STYLES.get(state, ""))
