"""
Requests whose row is to be written ahead, unless they end before.

Rule 1: a lone request is handed on at once; under load they are gathered, and one
        timer for all of them hands on those that are still open. So a short request
        is written once, as it ended.
Rule 2: what was begun is handed on or dropped: within two turns of the timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from gateway.record import Record

OPEN_EVERY_S = 0.025
"""The timer's turn: an ``open`` row is on its way one to two turns after its begin."""


class Ahead:
    """
    Args:
        hand_on: called with the records that are still open.
    """

    def __init__(self, hand_on: Callable[[Collection[Record]], None]) -> None:
        self._hand_on = hand_on
        self._loop = asyncio.get_running_loop()
        # By identity: a record has no hash. The value keeps the id its own.
        self._young: dict[int, Record] = {}
        self._old: dict[int, Record] = {}  # since before the timer's last turn
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def begin(self, record: Record) -> None:
        """*record* is being sent upstream."""
        if id(record) not in self._old:
            self._young[id(record)] = record
        if self._timer is None:
            self._timer = self._loop.call_later(OPEN_EVERY_S, self._turn)

    def drop(self, record: Record) -> None:
        """*record* has ended, or its row is written otherwise."""
        if self._young.pop(id(record), None) is None:
            self._old.pop(id(record), None)

    def finish(self) -> None:
        """Hand on all that is left; the timer ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = [*self._old.values(), *self._young.values()]
        self._old, self._young = {}, {}
        if left:
            self._hand_on(left)

    def _turn(self) -> None:
        left = self._old
        self._old, self._young = self._young, {}
        self._timer = (
            self._loop.call_later(OPEN_EVERY_S, self._turn) if self._old else None
        )
        if left:
            self._hand_on(left.values())
