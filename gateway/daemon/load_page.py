"""
How many connections each worker has, in memory that all of them see.

One number a slot, written by the worker that accepts for it; ABSENT where none does.
"""

from __future__ import annotations

import os

SLOTS = 1024
_BYTES = 4
ABSENT = 0xFFFFFFFF
_ABSENT = b"\xff" * _BYTES


def make_page() -> int:
    """A descriptor of a page in which no worker accepts."""
    fd = os.memfd_create("gateway-load", os.MFD_CLOEXEC)
    os.pwrite(fd, _ABSENT * SLOTS, 0)
    return fd


def mark_absent(fd: int, slot: int) -> None:
    """The worker of *slot* has ended."""
    os.pwrite(fd, _ABSENT, slot * _BYTES)


class LoadPage:
    """
    Args:
        fd: of the page; it is closed.
        slot: this worker's.
    """

    def __init__(self, fd: int, slot: int) -> None:
        from mmap import mmap  # not above: the parent, which stays small, needs none

        self._map = mmap(fd, SLOTS * _BYTES)
        os.close(fd)
        self._loads = memoryview(self._map).cast("I")
        self._slot = slot

    def write(self, connections: int) -> None:
        """This worker has so many connections."""
        self._loads[self._slot] = connections

    def leave(self) -> None:
        """This worker accepts no more."""
        self._loads[self._slot] = ABSENT

    @property
    def is_least(self) -> bool:
        """Whether no worker that accepts has fewer connections than this one."""
        return self._loads[self._slot] <= min(self._loads)
