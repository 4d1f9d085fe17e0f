"""
How a command says that it cannot do what it was asked for.

Rule 1: people read one line for each thing that is wrong, on stderr.
Rule 2: with ``--json`` a script reads the form of the admin API's errors on stdout:
        ``{"error": {"code", "message", "mistakes"?}}``.
Rule 3: what the daemon answered is passed on as it came.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gateway.commands.tables import print_json
from gateway.config.parse import ConfigError
from gateway.endpoints.admin.errors import ConfigMistake

FAILED = 1
CANNOT = 2


def refuse(
    args: argparse.Namespace,
    code: str,
    message: str,
    *,
    status: int = FAILED,
    answer: Any = None,
) -> int:
    """
    Print why *args* cannot be done; returns *status*, the exit status.

    Args:
        code: stable snake_case, for scripts.
        answer: the daemon's own; None where there is none.
    """
    if args.json:
        print_json(answer or {"error": {"code": code, "message": message}})
    print(f"gateway: {message}", file=sys.stderr)
    return status


def refuse_config(
    args: argparse.Namespace, error: ConfigError, *, status: int = CANNOT
) -> int:
    """The same for a config with mistakes."""
    if args.json:
        print_json(mistakes_document(error.mistakes))
    print(*error.mistakes, sep="\n", file=sys.stderr)
    return status


def mistakes_document(texts: Sequence[str]) -> dict[str, Any]:
    """Mistakes of a config, each with its path, as the admin API says them."""
    mistakes = [asdict(ConfigMistake.of(text)) for text in texts]
    number = "a mistake" if len(texts) == 1 else f"{len(texts)} mistakes"
    message = f"The config has {number}"
    return {
        "error": {"code": "invalid_config", "message": message, "mistakes": mistakes}
    }
