"""``GET /api/v1/status``: the gateway of this host, and how much it serves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from gateway import __version__
from gateway.admission.interface import AdmissionView, HolderInfo
from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.admin.settings import ProcessControl
from gateway.endpoints.open_requests import OpenRequests

EngineState = Literal["none", "up", "lost"]
WorkerPhase = Literal["starting", "configured", "ready", "serving", "leaving"]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """
    One process of this host.

    Attributes:
        worker: which of those that serve it is, from 0; an old one that still finishes
            its requests (``leaving``) has the number of its follower.
        node: its name in the ledger and at the engine.
    """

    worker: int
    pid: int
    node: str
    state: WorkerPhase
    uptime_s: float


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """
    Attributes:
        pid: of the main process: for signals; it stays over every restart.
        started_at, uptime_s: of the main process.
        workers: processes of this host that serve.
        processes: every worker of this host, those that leave, too.
        nodes: processes of all hosts that share the engine; 1 without one.
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
    processes: list[WorkerStatus]
    nodes: int


class StatusOperations(OperationSource):
    """
    Args:
        node: the name of this process.
        control: None where the process has no parent: then it is the gateway itself.
        nodes, engine: what is known of them at this moment.
    """

    def __init__(
        self,
        admission: AdmissionView,
        open_requests: OpenRequests,
        node: str,
        control: ProcessControl | None = None,
        nodes: Callable[[], int] = lambda: 1,
        engine: Callable[[], EngineState] = lambda: "none",
    ) -> None:
        self._admission = admission
        self._open = open_requests
        self._node = node
        self._control = control
        self._nodes = nodes
        self._engine = engine
        self._started = time.monotonic()
        self._started_at = time.time()

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET", "/status", "The gateway", self._status, answer=GatewayStatus
        )

    async def _status(self, call: AdminCall) -> GatewayStatus:
        holders, known = await asyncio.gather(
            self._admission.holders(), self._processes()
        )
        waiting = count_waiting(holders)
        workers = [WorkerStatus(**one) for one in known["workers"]]
        started_at: float = known["started_at"]
        return GatewayStatus(
            version=__version__,
            pid=known["pid"],
            started_at=datetime.fromtimestamp(started_at, UTC),
            uptime_s=round(max(0.0, time.time() - started_at), 3),
            workers=sum(one.state == "serving" for one in workers),
            engine=self._engine(),
            draining=self._open.draining,
            running=len(holders) - waiting,
            waiting=waiting + sum(scope.reading_body for scope in self._open),
            processes=workers,
            nodes=self._nodes(),
        )

    async def _processes(self) -> Mapping[str, Any]:
        """What the parent knows; this process alone where there is none, or no word."""
        if self._control is not None:
            known = await self._control.processes()
            if known["ok"]:
                return known
        uptime_s = round(time.monotonic() - self._started, 3)
        own = {"worker": 0, "pid": os.getpid(), "node": self._node}
        state = "leaving" if self._open.draining else "serving"
        own |= {"state": state, "uptime_s": uptime_s}
        started_at = self._started_at
        return {"pid": os.getpid(), "started_at": started_at, "workers": [own]}


def count_waiting(holders: Sequence[HolderInfo]) -> int:
    """How many of *holders* wait for a slot."""
    return sum(one.state.startswith("queued") for one in holders)
