"""
The life of the process: listen, take signals, reload, drain, stop.

    SIGTERM, SIGINT   drain: stop listening, let open streams finish, end the rest
    a second one      end what is open now
    SIGHUP            read the config again, by the rules of a start

For systemd, ready means listening, alive means that the event loop turns, and stopping
means draining.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from sqlalchemy.exc import DBAPIError

from gateway import __version__
from gateway.config.changes import compare
from gateway.config.load import ServedConfig, load_served
from gateway.config.parse import ConfigError
from gateway.daemon import systemd
from gateway.daemon.admin_side import AdminSide
from gateway.daemon.app import build_app, build_runner, components_of
from gateway.daemon.greeting import greet
from gateway.daemon.http_server import HttpRunner
from gateway.daemon.listeners import BACKLOG, ListeningSocket, listen
from gateway.daemon.process import StartError, tune_garbage_collection
from gateway.daemon.wiring import Components
from gateway.ledger.runtime_users import stored_users
from gateway.telemetry import log

LAG_PROBE_S = 0.5

T = TypeVar("T")


class Daemon:
    """
    The process that serves, from its listeners to its stop.

    Args:
        path: the config file, read again on SIGHUP.
        served: as it was read first.
        passed: the sockets that systemd opened; they take precedence.
        max_open_files: how many files the process may open, for the log.
    """

    def __init__(
        self,
        path: Path,
        served: ServedConfig,
        passed: list[systemd.PassedSocket],
        max_open_files: int = 0,
    ) -> None:
        self._path = path
        self._config, self._key, self._admin_token = served
        self._admin = AdminSide(self._config.admin, path.parent)
        self._passed = passed
        self._max_open_files = max_open_files
        self._listeners: list[ListeningSocket] = []
        self._log = log.get()
        self._stop = asyncio.Event()
        self._reload_requested = asyncio.Event()
        self._drain_changed = asyncio.Event()  # wakes a drain that waits
        self._end_now = False
        self._notifier = systemd.Notifier()

    async def run(self) -> None:
        """
        Serve until a signal says stop.

        Raises:
            StartError, LedgerError: it could not start.
        """
        asyncio.get_running_loop().set_exception_handler(_loop_failed)
        try:
            # Before the ledger: a daemon that cannot listen must not touch the rows
            # of the one that does.
            self._listen()
            self._admin.open()
            app = await self._start(build_app(self._config, self._path.parent))
            components = components_of(app)
            runner = await build_runner(app, shutdown_timeout_s=2.0)
            try:
                await self._start(self._accept(runner))
                await self._start(self._admin.serve(components.admin_app()))
                # Before the line that says so: the next thing may be a signal.
                self._handle_signals()
                self._log.info(
                    "server.started",
                    version=__version__,
                    listen=self._addresses,
                    admin=self._admin.addresses,
                    max_open_files=self._max_open_files,
                )
                self._greet()
                await self._serve(components, runner)
            finally:
                await self._admin.close()
                await runner.cleanup()
        finally:
            await self._admin.close()
            self._close_listeners()
            self._notifier.close()
        self._log.info("server.stopped")

    async def _serve(self, components: Components, runner: HttpRunner) -> None:
        """From ready to drained."""
        loop = asyncio.get_running_loop()
        tune_garbage_collection()
        self._notifier.ready()
        await components.warm_up()
        gc.freeze()
        tasks = [
            loop.create_task(self._watch_loop(components), name="loop-watch"),
            loop.create_task(self._reload_on_request(components), name="reloader"),
        ]
        await self._stop.wait()
        await self._drain(components, runner)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- listening -----------------------------------------------------------------

    @property
    def _sockets(self) -> Sequence[systemd.PassedSocket | ListeningSocket]:
        return self._passed or self._listeners

    @property
    def _addresses(self) -> list[str]:
        return [one.address for one in self._sockets]

    def _listen(self) -> None:
        """Open every listener, unless systemd has passed some."""
        for address in () if self._passed else self._config.server.listen:
            try:
                self._listeners += listen(address)
            except OSError as error:
                reason = error.strerror or repr(error)
                raise StartError(f"cannot listen on {address}: {reason}") from None

    async def _accept(self, runner: HttpRunner) -> None:
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

    def _greet(self) -> None:
        """Show the throwaway key and the link to the page, where there are any."""
        link = self._admin_token and self._admin.page_link(self._admin_token)
        if not self._key and not link:
            return
        log_format = self._config.server.log_format
        greet(self._addresses[0], self._key, log_format, link)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    # --- signals -------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_requested.set)

    def _on_stop(self) -> None:
        self._end_now = self._stop.is_set()
        self._stop.set()
        self._drain_changed.set()

    # --- reloading ------------------------------------------------------------------

    async def _reload_on_request(self, components: Components) -> None:
        """Reload once for each request, one after the other, also while draining."""
        while True:
            await self._reload_requested.wait()
            self._reload_requested.clear()
            if not self._stop.is_set():
                self._notifier.reloading()
            try:
                await self._reload(components)
            except ConfigError as error:
                self._log.error("config.rejected", mistakes=error.mistakes)
            except Exception:  # the old config serves on
                self._log.exception("config.failed")
            if not self._stop.is_set():
                self._notifier.ready()
            self._drain_changed.set()

    async def _reload(self, components: Components) -> None:
        """
        Take up the config file as it is now, by the rules of a start.

        Raises:
            ConfigError: with every mistake; nothing has changed.
        """
        served = await asyncio.to_thread(
            load_served,
            self._path,
            passed=[one.address for one in self._passed],
            open_addresses=self._config.server.listen,
            key=self._key,
            admin_token=self._admin_token,
            stored_users=partial(stored_users, base=self._path.parent),
        )
        changes = compare(self._config, served.config)
        components.reload(changes.config)
        self._config = changes.config
        self._admin_token = self._admin_token or served.admin_token
        if served.key and not self._key:
            self._key = served.key
            self._greet()
        self._log.info(
            "config.reloaded",
            changed=changes.changed,
            restart_needed=changes.restart_needed,
        )

    # --- stopping -------------------------------------------------------------------

    async def _drain(self, components: Components, runner: HttpRunner) -> None:
        """Let open streams finish; then give the rest its protocol's ending."""
        self._notifier.stopping()
        components.drain(self._drain_changed.set)
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

    # --- the event loop --------------------------------------------------------------

    async def _watch_loop(self, components: Components) -> None:
        """Measure how late the event loop is; feed systemd's watchdog."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            components.tick(max(0.0, loop.time() - due))
            self._notifier.watchdog()


def _loop_failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """
    Log a failure that no task awaits. An exception that leaves this function would
    stop the loop, and writing a traceback may need a descriptor that is not there.
    """
    with suppress(Exception):
        loop.default_exception_handler(context)
