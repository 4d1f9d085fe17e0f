"""
Which response of a websocket runs next.

Rule 1: in a lane one runs at a time, in the order in which they were asked for.
Rule 2: lanes run side by side, up to ``MAX_RUNNING``; the lane that has waited longest
        is the next.
Rule 3: names of lanes and responses that wait are bounded.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from typing import Generic, TypeVar

from gateway.errors import ClientError, Overloaded

MAX_RUNNING = 16  # responses of one websocket at once
MAX_NAMES = 32  # of lanes, besides the one without a name
MAX_WAITING = 64  # responses of one websocket that wait for their lane

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")

T = TypeVar("T")


def name_of(lane: object) -> str:
    """*lane* if it may be the name of one, known or not; else ""."""
    return lane if isinstance(lane, str) and _NAME.fullmatch(lane) else ""


class Lanes(Generic[T]):
    """The lanes of one websocket; *T* is what runs in them."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._running: set[str] = set()
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()  # by their turn

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not (self._running or self._waiting)

    def enter(self, lane: object) -> str:
        """
        The name of a *lane* as a client wrote it; "" for the one without a name.

        Raises:
            ClientError: "invalid_stream_id", "websocket_stream_limit_reached".
        """
        if lane is None:
            return ""
        lane = name_of(lane)
        if not lane:
            raise ClientError("invalid_stream_id", param="stream_id")
        if lane not in self._names and len(self._names) >= MAX_NAMES:
            raise ClientError("websocket_stream_limit_reached", param="stream_id")
        self._names.add(lane)
        return lane

    def check(self) -> None:
        """
        Raises:
            Overloaded: "queue_full": as many wait as may.
        """
        if sum(map(len, self._waiting.values())) >= MAX_WAITING:
            raise Overloaded(
                "queue_full",
                f"Too many responses of this websocket wait: {MAX_WAITING} may",
                retry_after_s=1.0,
            )

    def add(self, lane: str, item: T) -> None:
        """*item* is asked for in *lane*."""
        self._waiting.setdefault(lane, deque()).append(item)

    def start(self) -> T | None:
        """What begins now: its lane is taken until it is ``done``; None: nothing."""
        if len(self._running) >= MAX_RUNNING:
            return None
        lane = next((one for one in self._waiting if one not in self._running), None)
        if lane is None:
            return None
        line = self._waiting.pop(lane)
        item = line.popleft()
        if line:
            self._waiting[lane] = line  # behind the other lanes
        self._running.add(lane)
        return item

    def done(self, lane: str) -> None:
        """What ran in *lane* has ended."""
        self._running.discard(lane)

    def clear(self) -> list[T]:
        """Forget what waits; it is returned."""
        left = [item for line in self._waiting.values() for item in line]
        self._waiting.clear()
        return left
