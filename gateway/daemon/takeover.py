"""
A worker follows another: what the one knows and holds goes to the other.

    leaving   ``Leaving``                              following   ``Following``
      stops accepting, then sends: ──── state ───▶  takes it up, then accepts
      its idle connections         ──── fds   ───▶  serves them; their clients notice
                                                    nothing
      what it needs of the limits  ◀──────────▶     ``admission.handover``
      what its requests used       ───── used ───▶  counts it towards the budgets

Rule 1: whatever of it fails, requests are served. A process that is followed may end at
        any moment; then its slots are free.
Rule 2: limits hold for both only where both count at the same place: in themselves, or
        at one engine. One that counts elsewhere is asked to end what it has at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from gateway.admission.handover import LimitHeir, LimitLeaver
from gateway.admission.overlap import OverlapRegistry
from gateway.config.schema import SharedSettings
from gateway.daemon.channel import Message
from gateway.daemon.engine_use import EngineChoice
from gateway.daemon.handed_state import dump_state, load_state
from gateway.daemon.http_server import HttpRunner
from gateway.daemon.orphan import kill_peer
from gateway.daemon.socket_link import SocketLink
from gateway.daemon.wiring import Components
from gateway.record import Record
from gateway.telemetry import log

STATE_S = 5.0  # for a leaving worker to say what it has
LOOK_S = 0.02  # between two looks at what can be given away


def counting_place(engine: EngineChoice | None, shared: SharedSettings) -> str:
    """A name of the engine that counts the slots; "" where the process does."""
    if engine is not None:
        return engine.folder
    if not shared.url:
        return ""
    text = f"{shared.url} {shared.prefix}"  # it may have a password
    return hashlib.sha256(text.encode()).hexdigest()


class Leaving:
    """
    The side of the worker that leaves.

    Args:
        fd: to the worker that follows.
        counts_at: where this one counts: an engine; "" for itself.
        hurry: called when the other asks it to end what it has.
    """

    def __init__(
        self,
        components: Components,
        runner: HttpRunner,
        fd: int,
        counts_at: str,
        hurry: Callable[[], object],
    ) -> None:
        self._components = components
        self._runner = runner
        self._counts_at = counts_at
        self._hurry = hurry
        self._limits: LimitLeaver | None = None
        self._link = SocketLink(fd, self._take, lambda: None)
        if isinstance(components.registry, OverlapRegistry):
            self._limits = LimitLeaver(components.registry, self._link.send)

    def begin(self) -> None:
        """Say what this worker has and knows. It accepts nothing from now on."""
        limits = self._limits.begin() if self._limits else None
        state = dump_state(self._components)
        self._say(state, limits)
        self._components.on_used = self._used
        self._runner.leave()

    async def finish(self) -> None:
        """Return once everything that this worker has is finished, or given away."""
        while self._components.unfinished or self._runner.connected:
            self._components.websockets.drain()
            if self._limits:
                self._limits.look()
            self._give_connections()
            await asyncio.sleep(LOOK_S)
        self._link.close()

    def again(self, fd: int) -> None:
        """Another worker follows now, since the last one has ended or leaves, too."""
        self._link.send({"moved": True})
        self._link.close()
        self._link = SocketLink(fd, self._take, lambda: None)
        if isinstance(self._components.registry, OverlapRegistry):
            self._limits = LimitLeaver(self._components.registry, self._link.send)
        limits = self._limits.begin() if self._limits else None
        self._say(None, limits)

    def _say(self, state: dict[str, Any] | None, limits: dict[str, Any] | None) -> None:
        counts_at = self._counts_at
        self._link.send({"state": state, "limits": limits, "counts_at": counts_at})

    def _give_connections(self) -> None:
        for fd in self._runner.idle_connections() if self._link.is_open else ():
            self._link.send({"connection": True}, [fd])
            os.close(fd)

    def _take(self, message: Message, fds: Sequence[int]) -> None:
        if "end" in message:
            self._hurry()
        elif self._limits is not None and "gives" in message:
            self._limits.answered(message)

    def _used(self, record: Record) -> None:
        usage = record.usage
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        used = [record.user, record.started_at, record.cost_usd, tokens]
        if record.user and (tokens or record.cost_usd):
            self._link.send({"used": used})


class Following:
    """
    The side of the worker that follows one or more that leave.

    Args:
        fds: to each of those, who began to leave first comes first.
        counts_at: where this one counts: an engine; "" for itself.
        orphans: to those without a parent, that no parent ends.
    """

    def __init__(
        self,
        components: Components,
        runner: HttpRunner,
        fds: Sequence[int],
        counts_at: str,
        orphans: Sequence[int] = (),
    ) -> None:
        fds = [*orphans, *fds]
        self._orphans = {n: fd for n, fd in enumerate(orphans)}
        self._counts_at = counts_at
        self._components = components
        self._runner = runner
        self._heir: LimitHeir | None = None
        if fds and isinstance(components.registry, OverlapRegistry):
            self._heir = LimitHeir(components.registry)
        self._unheard = set(range(len(fds)))
        self._heard = asyncio.Event()
        self._moved: set[int] = set()
        self._serving: set[asyncio.Task[object]] = set()
        self._waiting: list[int] = []  # connections that came before the state
        self._ready = not fds
        self._links = [self._follow(number, fd) for number, fd in enumerate(fds)]

    def _follow(self, number: int, fd: int) -> SocketLink:
        def take(message: Message, fds: list[int]) -> None:
            self._take(number, message, fds)

        def lost() -> None:
            self._lost(number)

        return SocketLink(fd, take, lost)

    async def ready(self) -> None:
        """Return once all have said what they have; then accepting may begin."""
        if not self._links:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(STATE_S):
                while self._unheard:
                    self._heard.clear()
                    await self._heard.wait()
        for number in self._unheard & self._orphans.keys():
            kill_peer(self._orphans[number])
        self._ready = True
        if self._heir:
            self._heir.open()
        for fd in self._waiting:
            self._serve(fd)

    def leave(self) -> None:
        """This worker leaves, too: the next one follows all of them."""
        if self._heir:
            self._heir.stop()

    def close(self) -> None:
        """Follow no more."""
        for link in self._links:
            link.close()

    def _take(self, number: int, message: Message, fds: list[int]) -> None:
        try:
            self._take_up(number, message, fds)
        except Exception:  # what another version says: requests are served
            log.get().exception("takeover.failed")

    def _take_up(self, number: int, message: Message, fds: list[int]) -> None:
        if "state" in message:
            if message.get("counts_at", self._counts_at) != self._counts_at:
                self._links[number].send({"end": True})
                return  # it is heard of once it has ended
            self._hear(number)
            if self._heir and message["limits"]:
                send = self._links[number].send
                self._heir.begin(number, message["limits"], send)
            if message["state"]:
                load_state(self._components, message["state"])
        elif "connection" in message:
            self._serve(fds[0])
        elif "moved" in message and self._heir:
            self._moved.add(number)
            self._heir.moved(number)
        elif "needs" in message and self._heir:
            self._heir.asked(number, message)
        elif "used" in message:
            self._components.budget_guard.add_use(*message["used"])

    def _lost(self, number: int) -> None:
        self._hear(number)
        if self._heir and number not in self._moved:
            self._heir.gone(number)

    def _hear(self, number: int) -> None:
        self._unheard.discard(number)
        self._heard.set()

    def _serve(self, fd: int) -> None:
        """Serve a client's connection that another worker has accepted."""
        if not self._ready:
            self._waiting.append(fd)
            return
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None
        task: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(server, socket.socket(fileno=fd)),
            name="takeover",
        )
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
