"""
The life of a worker: open the ledger, accept, reload, drain, as its parent says.

    serve    accept on the parent's listeners
    reload   read the config again, by the rules of a start
    adopt    take over the config that another worker has read
    drain    stop listening, let open streams finish, end the rest
    hurry    end what is open now
    leave    give everything to the worker that follows; finish what runs, and waits
    bury     close the rows that a dead worker has left open

Without its parent a worker takes nothing new, and finishes what runs; the workers of a
new parent follow it (``daemon.orphan``).
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from sqlalchemy.exc import DBAPIError

from gateway.config.load import ConfigSource, ServedConfig
from gateway.daemon.admin_side import AdminSide
from gateway.daemon.app import build_app, build_runner, components_of
from gateway.daemon.channel import Message
from gateway.daemon.engine_use import EngineChoice, EngineUse
from gateway.daemon.greeting import greet
from gateway.daemon.http_server import HttpRunner, HttpServer
from gateway.daemon.listeners import BACKLOG, ServedSocket
from gateway.daemon.load_page import LoadPage
from gateway.daemon.orphan import Orphan, find_orphans
from gateway.daemon.parent_link import ParentLink
from gateway.daemon.polite_listener import PoliteListener
from gateway.daemon.process import StartError, tune_garbage_collection
from gateway.daemon.process_control import ParentControl
from gateway.daemon.reloader import Reloader
from gateway.daemon.takeover import Following, Leaving, counting_place
from gateway.daemon.upstream_wiring import warm_up
from gateway.daemon.wiring import Components
from gateway.daemon.worker_counters import WorkerCounters
from gateway.errors import GatewayError

LAG_PROBE_S = 0.5
BURY_AGAIN_S = 1.0
FOLLOWED_S = 60.0

T = TypeVar("T")
Refused = Callable[[OSError], object]


class Daemon:
    """
    One process that serves.

    Args:
        path: the config file, read again by a reload.
        served: as it was read first.
        started: what the first config of all workers was made of.
        opened: what the parent says of the listeners.
        fds: the listeners, in the same order.
        link: to the parent.

    Attributes:
        load_parent: loads the parent's part of this code, which a restart tries.
    """

    def __init__(
        self,
        path: Path,
        served: ServedConfig,
        started: ConfigSource,
        opened: Message,
        fds: Sequence[int],
        link: ParentLink,
    ) -> None:
        self._path = path
        self._config = served.config
        self._sockets = _sockets(opened, fds, "public")
        self._admin = AdminSide(_sockets(opened, fds, "admin"))
        self._link = link
        self._engine = EngineChoice(**opened["engine"]) if opened["engine"] else None
        self._counts_at = counting_place(self._engine, self._config.shared)
        self._page: LoadPage | None = None
        if opened["page"]:
            self._page = LoadPage(fds[len(opened["listeners"])], opened["slot"])
        self._polite: PoliteListener | None = None
        self._control = ParentControl(link)
        self.load_parent: Callable[[], object] = lambda: None
        self._reloader = Reloader(
            path, served, started, opened["passed"], link, self._reloaded
        )
        self._stop = asyncio.Event()
        self._begin = asyncio.Event()  # the parent says: serve
        self._drain_changed = asyncio.Event()  # wakes a drain that waits
        self._end_now = False
        self._orphaned = False  # the parent is gone
        self._slot = opened["slot"]
        self._leave = asyncio.Event()  # another worker follows
        self._leave_fds: list[int] = []
        self._followed = asyncio.Event()  # every new worker serves
        self._follow_fds: list[int] = []
        self._leaving: Leaving | None = None
        self._following: Following | None = None
        self._finishing: asyncio.Task[None] | None = None  # for a new parent's worker
        self._dead: asyncio.Queue[str] = asyncio.Queue()

    async def run(self) -> None:
        """
        Serve until the parent says stop, or has gone.

        Raises:
            StartError, LedgerError: it could not start.
        """
        asyncio.get_running_loop().set_exception_handler(_loop_failed)
        self._listen_to_parent()
        folder, engine = self._path.parent, self._engine
        use = EngineUse(engine.folder) if engine else None
        app = await self._start(build_app(self._config, folder, engine))
        components = components_of(app)
        components.control = self._control
        runner = await build_runner(app, shutdown_timeout_s=2.0)
        try:
            counters = WorkerCounters(self._link, components.metrics)
            components.endpoints.status.other_counters = counters.others
            self._link.say("ready", node=components.ledger.node)
            await self._either(self._begin, self._stop)
            if not self._stop.is_set():
                if components.sharing:
                    await components.sharing.all_ready()
                following = await self._follow(components, runner)
                await self._start(self._accept(runner, components.shortage.note))
                await self._start(self._admin.serve(components.admin_app()))
                await self._serve(components, runner)
                following.close()
                counters.say()  # what it has counted in all stays in the sums
        finally:
            await self._admin.close()
            await runner.cleanup()
            if use is not None:
                await asyncio.to_thread(use.leave)
            self._link.stop()

    async def _serve(self, components: Components, runner: HttpRunner) -> None:
        """From ready to drained."""
        loop = asyncio.get_running_loop()
        tune_garbage_collection()
        self._link.say("serving")
        await warm_up(self._config)
        await components.price_list.warm_up()
        gc.freeze()
        tasks = [
            loop.create_task(self._watch_loop(components), name="loop-watch"),
            loop.create_task(self._reloader.run(components), name="reloader"),
            loop.create_task(self._bury(components), name="burials"),
            loop.create_task(components.upkeep.bury(), name="burials-of-the-engine"),
        ]
        await self._either(self._stop, self._leave)
        if not self._stop.is_set():
            await self._hand_over(components, runner)
        if self._stop.is_set():
            await self._drain(components, runner)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, components: Components, runner: HttpRunner) -> Following:
        """Take up what those leave who had this slot before."""
        orphans = find_orphans(self._path) if not self._slot else []
        following = Following(
            components, runner, self._follow_fds, self._counts_at, orphans
        )
        self._following = following
        await following.ready()
        return following

    async def _accept(self, runner: HttpRunner, refused: Refused) -> None:
        if self._page is not None and isinstance(runner.server, HttpServer):
            sockets = [one.socket for one in self._sockets]
            self._polite = PoliteListener(sockets, runner.server, self._page, refused)
            self._polite.start()
            return
        for one in self._sockets:
            await web.SockSite(runner, one.socket, backlog=BACKLOG).start()

    async def _start(self, step: Coroutine[Any, Any, T]) -> T:
        """Do *step* of the start; a refusal of the system becomes a StartError."""
        try:
            return await step
        except OSError as error:
            reason = error.strerror or repr(error)
            raise StartError(f"cannot start: {reason}") from None
        except DBAPIError as error:
            raise StartError(f"cannot start: the ledger: {error.orig}") from None

    async def _either(self, *events: asyncio.Event) -> None:
        """Return once one of *events* is set."""
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    # --- what the parent says --------------------------------------------------------

    def _listen_to_parent(self) -> None:
        link, loop = self._link, asyncio.get_running_loop()
        link.on("serve", self._on_serve)
        link.on("leave", self._on_leave)
        link.on("followed", lambda message, fds: self._followed.set())
        link.on("probe", self._on_probe)
        link.on("drain", lambda message, fds: self._on_drain())
        link.on("hurry", lambda message, fds: self._on_hurry())
        link.on("reload", lambda message, fds: self._reloader.read())
        link.on("adopt", lambda message, fds: self._reloader.adopt(message["served"]))
        link.on("bury", lambda message, fds: self._dead.put_nowait(message["node"]))
        link.on("greet", lambda message, fds: self._greet())
        link.start(self._on_lost)
        loop.add_signal_handler(signal.SIGTERM, self._on_drain)

    async def _bury(self, components: Components) -> None:
        """Close what dead workers have left open, whenever the ledger can."""
        while True:
            node = await self._dead.get()
            if components.sharing:
                await components.sharing.reap(node)
            while True:
                try:
                    await components.ledger.bury(node)
                    if components.sharing:
                        await components.sharing.reap(node)
                    break
                except GatewayError:
                    await asyncio.sleep(BURY_AGAIN_S)
            self._link.say("closed", node=node)

    def _on_serve(self, message: Message, fds: list[int]) -> None:
        self._follow_fds = fds
        self._begin.set()

    def _on_leave(self, message: Message, fds: list[int]) -> None:
        if self._leaving is not None:
            self._leaving.again(fds[0])
            return
        self._leave_fds = fds
        self._leave.set()

    def _on_probe(self, message: Message, fds: list[int]) -> None:
        """Say whether the parent's part of this code can go on with that state."""
        from gateway.daemon.parent_state import problem_of

        problem = problem_of(message["state"], self.load_parent)
        self._link.say("probed", problem=problem)

    def _on_lost(self) -> None:
        self._orphaned = True
        self._on_drain()

    def _on_drain(self) -> None:
        self._stop.set()
        self._drain_changed.set()

    def _on_hurry(self) -> None:
        self._end_now = True
        self._on_drain()

    def _reloaded(self, served: ServedConfig, *, new_key: bool) -> None:
        self._config = served.config
        self._drain_changed.set()
        if new_key:
            self._greet()

    def _greet(self) -> None:
        """Show the throwaway key and the link to the page, where there are any."""
        served = self._reloader.served
        link = served.admin_token and self._admin.page_link(served.admin_token)
        if served.key or link:
            log_format = served.config.server.log_format
            greet(self._sockets[0].address, served.key, log_format, link)

    # --- stopping -------------------------------------------------------------------

    async def _hand_over(self, components: Components, runner: HttpRunner) -> None:
        """Finish what this worker has, beside the one that follows."""
        await self._stop_accepting(runner)
        await self._admin.stop_accepting()
        leaving = self._begin_to_leave(components, runner, self._leave_fds[0])
        finishing = asyncio.ensure_future(leaving.finish())
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((finishing, stopped), return_when=asyncio.FIRST_COMPLETED)
        for one in (finishing, stopped):
            one.cancel()
        await asyncio.gather(finishing, stopped, return_exceptions=True)
        # An operator may wait here for the outcome of the restart.
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOWED_S):
                await self._either(self._followed, self._stop)

    def _begin_to_leave(
        self, components: Components, runner: HttpRunner, fd: int
    ) -> Leaving:
        if self._following is not None:
            self._following.leave()
        leaving = Leaving(components, runner, fd, self._counts_at, self._on_hurry)
        leaving.begin()
        self._leaving = leaving
        return leaving

    def _be_found(self, components: Components, runner: HttpRunner) -> Orphan:
        """Let the workers of a new parent follow this one, which has none any more."""

        def follow(fd: int) -> None:
            if self._leaving is not None:
                self._leaving.again(fd)
                return
            leaving = self._begin_to_leave(components, runner, fd)
            self._finishing = asyncio.create_task(leaving.finish(), name="orphan")

        orphan = Orphan(self._path, follow)
        if not orphan.open():  # then no limit would hold for both
            self._on_hurry()
        return orphan

    async def _stop_accepting(self, runner: HttpRunner) -> None:
        if self._polite is not None:
            self._polite.stop()
            self._polite = None  # another worker may accept in this slot from now on
        for site in list(runner.sites):
            await site.stop()
        for one in self._sockets:
            one.socket.close()

    async def _drain(self, components: Components, runner: HttpRunner) -> None:
        """Let open streams finish; then give the rest its protocol's ending."""
        orphan = self._be_found(components, runner) if self._orphaned else None
        components.drain(self._drain_changed.set)
        runner.drain()
        await self._stop_accepting(runner)
        self._link.say("draining", requests=components.serving)
        began = time.monotonic()
        while components.serving and not self._end_now:
            # Read anew each time: a reload may change the timeout.
            left_s = began + self._config.server.drain_timeout_s - time.monotonic()
            if left_s <= 0:
                break
            self._drain_changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._drain_changed.wait()
        await components.end_open()
        if orphan is not None:
            orphan.close()
        if self._finishing is not None:
            self._finishing.cancel()
            await asyncio.gather(self._finishing, return_exceptions=True)

    # --- the event loop --------------------------------------------------------------

    async def _watch_loop(self, components: Components) -> None:
        """Measure how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            components.tick(max(0.0, loop.time() - due))


def _sockets(opened: Message, fds: Sequence[int], kind: str) -> list[ServedSocket]:
    return [
        ServedSocket(socket.socket(fileno=fd), one["address"])
        for one, fd in zip(opened["listeners"], fds)
        if one["kind"] == kind
    ]


def _loop_failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """
    Log a failure that no task awaits. An exception that leaves this function would
    stop the loop, and writing a traceback may need a descriptor that is not there.
    """
    with suppress(Exception):
        loop.default_exception_handler(context)
