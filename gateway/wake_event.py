"""Wakes one thread."""

from __future__ import annotations

import threading


class WakeEvent:
    """
    Wakes one thread.

    It is a bare lock, held while the event is not set. ``queue.SimpleQueue`` would do,
    but its ``get`` may wait for ever where its timeout ends just as it begins (CPython
    3.11), and a condition takes the interpreter several times as often.
    """

    def __init__(self) -> None:
        self._unset = threading.Lock()
        self._unset.acquire()

    def set(self) -> None:
        """Wake the thread that waits, or its next wait; twice is the same as once."""
        try:
            self._unset.release()
        except RuntimeError:
            pass  # it is set already

    def wait(self, seconds: float) -> None:
        """Return when the event is set, or after *seconds*; it is unset again then."""
        self._unset.acquire(timeout=seconds)
