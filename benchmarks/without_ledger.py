"""
The daemon with a ledger that stores nothing: the difference is the ledger's cost.

``python -m benchmarks.without_ledger serve --config …``
"""

from __future__ import annotations

import sys

from gateway.__main__ import main
from gateway.daemon import worker_handle
from gateway.ledger.ledger import Ledger
from gateway.ledger.writer import LedgerEntry
from gateway.record import Record


def _forget(ledger: Ledger, *of: Record | LedgerEntry) -> None:
    """Store nothing."""


async def _durable(ledger: Ledger, of: Record | LedgerEntry) -> None:
    """Return as if it were stored."""


INSTEAD = {
    **{"begin": _forget, "add": _forget, "_put": _forget},
    **{"close": _durable, "_written": _durable},
}


def _program() -> list[str]:
    """What the parent starts its workers with: this module, too."""
    return [sys.executable, "-m", "benchmarks.without_ledger"]


if __name__ == "__main__":
    worker_handle.own_program = _program  # before the command imports it
    for name, replacement in INSTEAD.items():
        getattr(Ledger, name)  # fails if the ledger has been changed
        setattr(Ledger, name, replacement)
    sys.exit(main())
