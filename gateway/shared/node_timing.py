"""How often a node speaks with the engine."""

from __future__ import annotations

from typing import NamedTuple

from gateway.shared.steps import TTL_S

BEAT_S = 0.7
RETRY_S = (0.1, 1.0)


class NodeTiming(NamedTuple):
    """
    Seconds; tests shorten them together. *still_s*: after so long without a beat a node
    may have been declared dead.
    """

    beat_s: float = BEAT_S
    ttl_s: float = TTL_S
    still_s: float = TTL_S
    retry_s: tuple[float, float] = RETRY_S
