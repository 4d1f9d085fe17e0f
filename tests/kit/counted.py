"""Bytes that count what is copied out of them and searched through."""

from __future__ import annotations

from typing import Any


class CountedBytes(bytes):
    """
    Attributes:
        work_bytes: slices and sums of it, and what ``index`` has passed over.
    """

    work_bytes = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        if not isinstance(found, bytes):
            return found
        self.work_bytes += len(found)
        return _Part(self, found)

    def index(self, wanted: Any, start: Any = 0, *end: Any) -> int:
        try:
            found = super().index(wanted, start, *end)
        except ValueError:
            self.work_bytes += len(self) - start
            raise
        self.work_bytes += found - start
        return found


class _Part(bytes):
    """A slice, which tells its whole of sums that it becomes part of."""

    def __new__(cls, whole: CountedBytes, data: bytes) -> _Part:
        part = super().__new__(cls, data)
        part.whole = whole
        return part

    whole: CountedBytes

    def __add__(self, other: Any) -> Any:
        return self._sum(bytes(self) + bytes(other))

    def __radd__(self, other: Any) -> Any:
        return self._sum(bytes(other) + bytes(self))

    def _sum(self, added: bytes) -> _Part:
        self.whole.work_bytes += len(added)
        return _Part(self.whole, added)
