"""The last records of this process, kept after their end for the admin side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gateway.record import Record

MAX_ENDED = 500


class EndedRecords:
    """
    The last records, in the order of their end.

    Attributes:
        count: how many have ended since the start; the latest has this number.
    """

    def __init__(self) -> None:
        self.count = 0
        self._records: deque[Record] = deque(maxlen=MAX_ENDED)

    def add(self, record: Record) -> None:
        """*record* has ended; a sink of ``Accounting``."""
        self.count += 1
        self._records.append(record)

    def since(self, count: int) -> list[Record]:
        """Those that ended after the one of that number, as far as they are kept."""
        new = min(self.count - count, len(self._records))
        return [self._records[index] for index in range(-new, 0)] if new else []

    def __iter__(self) -> Iterator[Record]:
        """The latest first."""
        return iter(list(reversed(self._records)))
