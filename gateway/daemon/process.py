"""What a daemon sets up for its whole process: open files and garbage collection."""

from __future__ import annotations

import gc
import os
import resource
from contextlib import suppress

MIN_OPEN_FILES = 16
# A request's objects are freed without the cycle collector, and a test keeps it so.
# The collector need not look through the young objects as often as by default (700).
GC_THRESHOLDS = (10_000, 20, 50)


class StartError(Exception):
    """The daemon cannot start; the text is for the operator."""


def occupy_standard_files() -> None:
    """
    Open the standard files that were closed at the start. Otherwise the next file or
    socket would get such a number, and a line for stderr would be written into it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def raise_file_limit() -> int:
    """
    Let the process open as many files as the system allows it; returns how many.

    Raises:
        StartError: not even the event loop can start with so few.
    """
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        limit = hard
    if 0 <= limit < MIN_OPEN_FILES:
        raise StartError(
            f"only {limit} files may be open (RLIMIT_NOFILE); at least "
            f"{MIN_OPEN_FILES} are needed to start, and two for each request"
        )
    return limit


def tune_garbage_collection() -> None:
    """Leave what the start has made out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
