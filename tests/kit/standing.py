"""A process that stands still, as a paused machine does."""

from __future__ import annotations

import time


def stand_still(seconds: float) -> None:
    """Keep the event loop from everything else."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
