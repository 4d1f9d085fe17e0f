"""
``gateway trace`` and ``gateway usage``: one question to the ledger, one answer.

They read beside a running daemon or without it, and need of the config only where the
ledger is: no other secret has to be in the environment. A request that has not ended is
asked for at the daemon, if that is there: what it does now is in no ledger.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text
from sqlalchemy import Connection

from gateway.commands.refusal import CANNOT, refuse, refuse_config
from gateway.config.load import load_ledger_url
from gateway.config.parse import ConfigError
from gateway.ledger import render, report, terminal, usage_plot
from gateway.ledger.database import Database, LedgerError
from gateway.ledger.report import QuestionError, RequestHistory

DAEMON_S = 5.0  # that the daemon has to say what it knows


def trace(args: argparse.Namespace, path: Path) -> int:
    """
    Print what happened to the request ``args.id``, or list requests.

    Returns 0; 1 when nothing is known of it; 2 when the ledger cannot be asked.
    """
    if args.id is None:
        return _answered(args, path, lambda connection: _list(connection, args))
    return _answered(args, path, lambda connection: _trace(connection, args, path))


def usage(args: argparse.Namespace, path: Path) -> int:
    """Print sums; returns 0, or 2 when the ledger cannot be asked."""
    return _answered(args, path, lambda connection: _usage(connection, args))


def _answered(
    args: argparse.Namespace,
    path: Path,
    question: Callable[[Connection], str | Text | None],
) -> int:
    """Ask, print the answer; the exit status."""
    try:
        database = Database(load_ledger_url(path), path.parent)
        try:
            with database.inspect() as connection:
                answer = question(connection)
        finally:
            database.dispose()
    except ConfigError as error:
        return refuse_config(args, error)
    except LedgerError as error:
        return refuse(args, "ledger_unavailable", str(error), status=CANNOT)
    except QuestionError as error:
        return refuse(args, "invalid_argument", str(error), status=CANNOT)
    if answer is None:
        return refuse(args, "not_found", "Nothing is known of this id.")
    if isinstance(answer, Text):
        terminal.print_drawing(answer)
    else:
        print(answer)
    return 0


def _trace(connection: Connection, args: argparse.Namespace, path: Path) -> str | None:
    found = report.find(connection, args.id)
    if len(found) > 1:
        return render.as_json(found) if args.json else render.request_list(found)
    history = report.history(connection, found[0]) if found else None
    if history is None or history.request["outcome"] == "open":
        history = _served_now(path, args.id) or history
    if history is None:
        return None
    if args.json:
        return render.as_json(render.history_json(history))
    return render.timeline(history)


def _served_now(path: Path, wanted: str) -> RequestHistory | None:
    """What the daemon knows of the request; None where it cannot be asked."""
    from gateway.commands.admin_client import CommandError, DaemonClient, part
    from gateway.endpoints.admin.page.requests import history_of

    try:
        client = DaemonClient(path, DAEMON_S)
        return history_of(client.ask("GET", f"/requests/{part(wanted)}"))
    except (CommandError, ConfigError):
        return None


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
