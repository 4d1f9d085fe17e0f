"""Wakes one thread."""

from __future__ import annotations

import threading
from contextlib import suppress


class WakeEvent:
    """
    Wakes one thread.

    It is a bare lock, taken while nobody has rung. ``queue.SimpleQueue`` would do, but
    its ``get`` may wait for ever where its timeout runs out just as it begins (CPython
    3.11), and a condition takes the interpreter several times as often.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake who sleeps, or who will sleep next; to ring twice is to ring once."""
        with suppress(RuntimeError):  # it has been rung
            self._silent.release()

    def sleep(self, seconds: float) -> None:
        """Return when it rings, or after so many *seconds*."""
        self._silent.acquire(timeout=seconds)
