"""
The daemon with a ledger that keeps nothing: what the real one costs is the difference.

``python -m benchmarks.without_ledger serve --config …``
"""

from __future__ import annotations

import sys

from gateway.__main__ import main
from gateway.ledger.ledger import Ledger
from gateway.ledger.writer import Entry


async def _written(self: Ledger, entry: Entry) -> None:
    """Say that *entry* is durable."""


def _put(self: Ledger, entry: Entry) -> None:
    """Forget *entry*."""


if __name__ == "__main__":
    Ledger._written = _written  # type: ignore[method-assign]
    Ledger._put = _put  # type: ignore[method-assign]
    sys.exit(main())
