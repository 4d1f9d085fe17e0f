"""``GET /api/v1/status``: the process, and how much it serves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from gateway import __version__
from gateway.admission.interface import AdmissionView, HolderInfo
from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.open_requests import OpenRequests

EngineState = Literal["none", "up", "lost"]


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """
    Attributes:
        workers: processes that serve.
        engine: ``none`` where the config names none.
        running: requests that have a slot, on every node; those whose client has left
            too, while they are read to their end.
        waiting: requests that wait for a slot, on every node, and those whose body
            is arriving here.
    """

    version: str
    pid: int
    started_at: datetime
    uptime_s: float
    workers: int
    engine: EngineState
    draining: bool
    running: int
    waiting: int


class StatusOperations(OperationSource):
    """
    Args:
        workers, engine: what is known of them at this moment.
    """

    def __init__(
        self,
        admission: AdmissionView,
        open_requests: OpenRequests,
        workers: Callable[[], int] = lambda: 1,
        engine: Callable[[], EngineState] = lambda: "none",
    ) -> None:
        self._admission = admission
        self._open = open_requests
        self._workers = workers
        self._engine = engine
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC)

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET", "/status", "The process", self._status, answer=GatewayStatus
        )

    async def _status(self, call: AdminCall) -> GatewayStatus:
        holders = await self._admission.holders()
        waiting = count_waiting(holders)
        return GatewayStatus(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            uptime_s=round(time.monotonic() - self._started, 3),
            workers=self._workers(),
            engine=self._engine(),
            draining=self._open.draining,
            running=len(holders) - waiting,
            waiting=waiting + sum(scope.reading_body for scope in self._open),
        )


def count_waiting(holders: Sequence[HolderInfo]) -> int:
    """How many of *holders* wait for a slot."""
    return sum(one.state.startswith("queued") for one in holders)
