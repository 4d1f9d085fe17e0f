"""What ``gateway plan`` prints: how the past was, as it is replayed, and as asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from gateway.admission.simulation import Arrival, Passage, Waits, by_user, waits_of
from gateway.ledger.arrivals import PastRequest

WIDTH = 100
PLOT_WIDTH = 50
HOUR_S = 3600.0


class SlotUse(NamedTuple):
    """How many slots of an account were in use on average, of how many (0 = all)."""

    mean: float
    slots: int

    def text(self) -> str:
        """``3.87 of 4 (97%)``"""
        if not self.slots:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} of {self.slots} ({self.mean / self.slots:.0%})"


class Replay(NamedTuple):
    """All requests under one setting."""

    passages: Sequence[Passage]
    slots: Mapping[str, int]
    busy_s: Mapping[str, float]


class PlanAnswer:
    """
    What is printed.

    Args:
        be: as asked; None where nothing was.
    """

    def __init__(
        self,
        past: Sequence[PastRequest],
        arrivals: Sequence[Arrival],
        was: Replay,
        be: Replay | None,
    ) -> None:
        self._past = past
        self._arrivals = arrivals
        self._recorded = [Passage(one.wait_s, one.account, one.refused) for one in past]
        self._was, self._be = was, be
        last = past[-1].at - past[0].at
        self._span_s = max(1.0, last.total_seconds())

    @property
    def _columns(self) -> list[tuple[str, Sequence[Passage]]]:
        columns = [("recorded", self._recorded), ("as it is", self._was.passages)]
        return columns + ([("as asked", self._be.passages)] if self._be else [])

    def document(self) -> dict[str, Any]:
        """For machines: the same numbers."""
        return {
            "since": self._past[0].at,
            "until": self._past[-1].at,
            "requests": len(self._past),
            "waits": {
                name.replace(" ", "_"): {
                    "all": waits_of(passages)._asdict(),
                    "users": {
                        user: waits._asdict()
                        for user, waits in by_user(self._arrivals, passages)
                    },
                }
                for name, passages in self._columns
            },
            "accounts": [
                {
                    "name": name,
                    "as_it_is": was and was._asdict(),
                    "as_asked": asked and asked._asdict(),
                }
                for name, was, asked in self._uses()
            ],
        }

    def text(self, plot: bool) -> str:
        """For people."""
        first, last = self._past[0].at, self._past[-1].at
        lines = [
            f"{len(self._past)} requests, {first:%Y-%m-%d %H:%M} to"
            f" {last:%Y-%m-%d %H:%M} UTC",
            "",
            _text(self._waits_table()),
            "",
            _text(self._use_table()),
        ]
        if plot:
            lines += ["", *self._plot()]
        return "\n".join(lines)

    def _waits_table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("user")
        table.add_column("", no_wrap=True)
        for name in ("requests", "waited", "p50 s", "p95 s", "refused", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        rows = [
            ("all", [(name, waits_of(some)) for name, some in self._columns]),
            *self._user_rows(),
        ]
        for user, columns in rows:
            for n, (name, waits) in enumerate(columns):
                table.add_row("" if n else user, name, *_cells(waits))
        return table

    def _user_rows(self) -> list[tuple[str, list[tuple[str, Waits]]]]:
        found: dict[str, list[tuple[str, Waits]]] = {}
        for name, passages in self._columns:
            for user, waits in by_user(self._arrivals, passages):
                found.setdefault(user, []).append((name, waits))
        return list(found.items()) if len(found) > 1 else []

    def _uses(self) -> Iterator[tuple[str, SlotUse | None, SlotUse | None]]:
        """Of each account: its mean slots in use, and how many it has, as it is; the
        same as asked, if anything was."""
        for name in (self._be or self._was).slots:
            yield name, self._use(self._was, name), self._use(self._be, name)

    def _use(self, outcome: Replay | None, name: str) -> SlotUse | None:
        if outcome is None or name not in outcome.slots:
            return None
        return SlotUse(outcome.busy_s[name] / self._span_s, outcome.slots[name])

    def _use_table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("account")
        columns = ["slots in use as it is", *(["as asked"] if self._be else [])]
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for name, *uses in self._uses():
            cells = ["-" if use is None else use.text() for use in uses]
            table.add_row(name, *cells[: len(columns)])
        return table

    def _plot(self) -> Iterator[str]:
        """The 95th percentile of the waits of each hour, one bar a column."""
        hours: dict[int, list[int]] = {}
        for n, one in enumerate(self._past):
            hours.setdefault(int(one.at.timestamp() // HOUR_S), []).append(n)
        columns = self._columns[1:]
        values = {
            hour: [
                waits_of([passages[n] for n in some]).p95_s for _, passages in columns
            ]
            for hour, some in hours.items()
        }
        most = max((max(row) for row in values.values()), default=0.0)
        yield f"wait p95 by hour (UTC), a full bar is {most:.1f} s"
        for hour in sorted(values):
            at = datetime.fromtimestamp(hour * HOUR_S, UTC)
            for n, ((name, _), value) in enumerate(
                zip(columns, values[hour], strict=True)
            ):
                bar = "█" * round(value / most * PLOT_WIDTH) if most else ""
                when = f"{at:%m-%d %H:00}" if n == 0 else ""
                yield f"{when:<11} {name} |{bar:<{PLOT_WIDTH}}| {value:7.1f} s"


def _cells(waits: Waits) -> list[str]:
    return [
        str(waits.requests),
        str(waits.waited),
        f"{waits.p50_s:.1f}",
        f"{waits.p95_s:.1f}",
        str(waits.refused),
        str(waits.left),
    ]


def _text(table: Table) -> str:
    console = Console(width=WIDTH, color_system=None, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")
