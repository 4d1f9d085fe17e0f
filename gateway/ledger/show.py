"""
``gateway trace`` and ``gateway usage``: one question to the ledger, one answer.

They read beside a running daemon, and need of the config only where the ledger is: no
other secret has to be in the environment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text
from sqlalchemy import Connection

from gateway.config.load import load_ledger_url
from gateway.config.parse import ConfigError
from gateway.ledger import render, report, terminal, usage_plot
from gateway.ledger.database import Database, LedgerError
from gateway.ledger.report import QuestionError

NO_SUCH = 1
CANNOT = 2


def trace(args: argparse.Namespace, path: Path) -> int:
    """
    Print what happened to the request ``args.id``, or list requests.

    Returns 0; 1 when nothing is known of it; 2 when the ledger cannot be asked.
    """
    if args.id is None:
        return _answered(path, lambda connection: _list(connection, args))
    return _answered(path, lambda connection: _trace(connection, args))


def usage(args: argparse.Namespace, path: Path) -> int:
    """Print sums; returns 0, or 2 when the ledger cannot be asked."""
    return _answered(path, lambda connection: _usage(connection, args))


def _answered(path: Path, question: Callable[[Connection], str | Text | None]) -> int:
    """Ask, print the answer; the exit status."""
    try:
        database = Database(load_ledger_url(path), path.parent)
        try:
            with database.inspect() as connection:
                answer = question(connection)
        finally:
            database.dispose()
    except ConfigError as exc:
        print(*exc.mistakes, sep="\n", file=sys.stderr)
        return CANNOT
    except (LedgerError, QuestionError) as exc:
        print(exc, file=sys.stderr)
        return CANNOT
    if answer is None:
        print("Nothing is known of this id.", file=sys.stderr)
        return NO_SUCH
    if isinstance(answer, Text):
        terminal.print_drawing(answer)
    else:
        print(answer)
    return 0


def _trace(connection: Connection, args: argparse.Namespace) -> str | None:
    found = report.find(connection, args.id)
    if not found:
        return None
    if len(found) == 1:
        history = report.history(connection, found[0])
        if args.json:
            return render.as_json(render.history_json(history))
        return render.timeline(history)
    return render.as_json(found) if args.json else render.request_list(found)


def _list(connection: Connection, args: argparse.Namespace) -> str:
    found = report.requests(
        connection, args.user or "", _since(args.since), bool(args.failed)
    )
    return render.as_json(found) if args.json else render.request_list(found)


def _usage(connection: Connection, args: argparse.Namespace) -> str | Text:
    by = report.parse_by(args.by)
    rows = report.usage(connection, by, args.user or "", _since(args.since))
    if args.json:
        return render.as_json(rows)
    if args.csv:
        return render.as_csv(rows, [*by, *report.SUMS])
    if args.plot is not None:
        return usage_plot.plot(rows, by, args.plot, terminal.look())
    return render.usage_table(rows, by)


def _since(text: str | None) -> datetime | None:
    return report.parse_since(text, datetime.now(UTC)) if text else None
