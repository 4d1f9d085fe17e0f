"""
The life of the process: listen, take signals, reload, drain, stop.

    SIGTERM, SIGINT   drain: stop listening, let open streams finish, end the rest
    a second one      do not wait: end what is open now
    SIGHUP            read the config again, by the rules of a start

Ready means listening, alive means that the loop turns, stopping means draining: that
is what systemd is told.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from sqlalchemy.exc import DBAPIError

from gateway import __version__
from gateway.config.changes import compare
from gateway.config.load import Served, load_served
from gateway.config.parse import ConfigError
from gateway.daemon import systemd
from gateway.daemon.app import build_app, build_runner, components_of
from gateway.daemon.greeting import greet
from gateway.daemon.http_server import Runner
from gateway.daemon.listeners import BACKLOG, Listener, listen
from gateway.daemon.wiring import Components
from gateway.telemetry import log

LAG_PROBE_S = 0.5
MIN_OPEN_FILES = 16
# Objects made before the youngest are looked through. What a request makes is freed
# without the cycle collector, and a test keeps it so: it need not look as often as
# Python's own 700 would have it.
GC_THRESHOLDS = (10_000, 20, 50)


T = TypeVar("T")


class StartError(Exception):
    """The daemon cannot start; the text is for the operator."""


class Daemon:
    """
    Args:
        path: the config file, read again on SIGHUP.
        served: as it was read first.
        passed: the sockets that systemd opened; they take precedence.
        max_open_files: how many files the process may open, for the log.
    """

    def __init__(
        self,
        path: Path,
        served: Served,
        passed: list[systemd.PassedSocket],
        max_open_files: int = 0,
    ) -> None:
        self._path = path
        self._config, self._key = served
        self._passed = passed
        self._max_open_files = max_open_files
        self._listeners: list[Listener] = []
        self._log = log.get()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._news = asyncio.Event()  # of what a drain waits for
        self._hurry = False
        self._notifier = systemd.Notifier()

    async def run(self) -> None:
        """
        Serve until a signal says stop.

        Raises:
            StartError, LedgerError: it could not start.
        """
        asyncio.get_running_loop().set_exception_handler(_loop_failed)
        try:
            # Before the ledger: who cannot listen must not touch another's rows.
            addresses = self._listen()
            app = await self._started(build_app(self._config, self._path.parent))
            components = components_of(app)
            runner = await build_runner(app, shutdown_timeout_s=2.0)
            try:
                await self._started(self._accept(runner))
                self._log.info(
                    "server.started",
                    version=__version__,
                    listen=addresses,
                    max_open_files=self._max_open_files,
                )
                if self._key:
                    greet(addresses[0], self._key, self._config.server.log_format)
                await self._serve(components, runner)
            finally:
                await runner.cleanup()
        finally:
            self._close_listeners()
            self._notifier.close()
        self._log.info("server.stopped")

    async def _serve(self, components: Components, runner: Runner) -> None:
        """From ready to drained."""
        loop = asyncio.get_running_loop()
        self._take_signals()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._notifier.ready()
        await components.warm_up()
        gc.freeze()
        tasks = [
            loop.create_task(self._beat(components), name="heart-beat"),
            loop.create_task(self._reload_when_asked(components), name="reloader"),
        ]
        await self._stop.wait()
        await self._drain(components, runner)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- listening -----------------------------------------------------------------

    def _listen(self) -> list[str]:
        """Open every listener; returns their addresses."""
        if self._passed:
            return [passed.address for passed in self._passed]
        for address in self._config.server.listen:
            try:
                self._listeners += listen(address)
            except OSError as error:
                reason = error.strerror or repr(error)
                raise StartError(f"cannot listen on {address}: {reason}") from None
        return [listener.address for listener in self._listeners]

    async def _accept(self, runner: Runner) -> None:
        for one in self._passed or self._listeners:
            await web.SockSite(runner, one.socket, backlog=BACKLOG).start()

    async def _started(self, step: Coroutine[Any, Any, T]) -> T:
        """Do *step* of the start; what the system refuses is told in one line."""
        try:
            return await step
        except OSError as error:
            reason = error.strerror or repr(error)
            raise StartError(f"cannot start: {reason}") from None
        except DBAPIError as error:
            raise StartError(f"cannot start: the ledger: {error.orig}") from None

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    # --- signals -------------------------------------------------------------------

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    def _on_stop(self) -> None:
        self._hurry = self._stop.is_set()
        self._stop.set()
        self._news.set()

    # --- reloading ------------------------------------------------------------------

    async def _reload_when_asked(self, components: Components) -> None:
        """One reload after the other, also while draining."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            if not self._stop.is_set():
                self._notifier.reloading()
            try:
                await self._read_again(components)
            except ConfigError as error:
                self._log.error("config.rejected", mistakes=error.mistakes)
            except Exception:  # the old config serves on
                self._log.exception("config.failed")
            if not self._stop.is_set():
                self._notifier.ready()
            self._news.set()

    async def _read_again(self, components: Components) -> None:
        """
        Take up the config file as it is now, by the rules of a start.

        Raises:
            ConfigError: with every mistake; nothing has changed.
        """
        config, key = await asyncio.to_thread(
            load_served,
            self._path,
            passed=[passed.address for passed in self._passed],
            open_addresses=self._config.server.listen,
            key=self._key,
        )
        changes = compare(self._config, config)
        components.reload(changes.config)
        self._config = changes.config
        if key and not self._key:
            self._key = key
            address = [one.address for one in self._passed or self._listeners][0]
            greet(address, key, self._config.server.log_format)
        self._log.info(
            "config.reloaded",
            changed=changes.changed,
            restart_needed=changes.restart_needed,
        )

    # --- stopping -------------------------------------------------------------------

    async def _drain(self, components: Components, runner: Runner) -> None:
        """Open streams may finish; what is left is ended properly."""
        self._notifier.stopping()
        components.drain(self._news.set)
        runner.drain()
        for site in list(runner.sites):
            await site.stop()
        self._close_listeners()
        self._log.info(
            "server.draining",
            requests=components.serving,
            drain_timeout_s=self._config.server.drain_timeout_s,
        )
        began = time.monotonic()
        while components.serving and not self._hurry:
            # a reload may change it
            left_s = began + self._config.server.drain_timeout_s - time.monotonic()
            if left_s <= 0:
                break
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()
        await components.end_open()

    # --- heart-beat ------------------------------------------------------------------

    async def _beat(self, components: Components) -> None:
        """Measure how late the loop is; tell systemd that it turns."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            components.tick(max(0.0, loop.time() - due))
            self._notifier.watchdog()


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


def _loop_failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """
    What nobody awaits has failed. An exception that leaves this function would stop
    the loop, and writing a traceback may need a descriptor that is not there.
    """
    with suppress(Exception):
        loop.default_exception_handler(context)
