"""
The daemon with a ledger that keeps nothing: what the real one costs is the difference.

``python -m benchmarks.without_ledger serve --config …``
"""

from __future__ import annotations

import sys

from gateway.__main__ import main
from gateway.ledger.ledger import Ledger
from gateway.ledger.writer import Entry
from gateway.record import Record


def _forget(ledger: Ledger, *of: Record | Entry) -> None:
    """Keep nothing of it."""


async def _durable(ledger: Ledger, of: Record | Entry) -> None:
    """Say that it is durable."""


INSTEAD = {
    **{"begin": _forget, "add": _forget, "_put": _forget},
    **{"close": _durable, "_written": _durable},
}


if __name__ == "__main__":
    for name, nothing in INSTEAD.items():
        setattr(Ledger, name, nothing)
    sys.exit(main())
