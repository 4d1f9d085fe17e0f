"""
The life of the process: listen, take signals, drain, stop.

    SIGTERM, SIGINT   drain: stop listening, let open streams finish, end the rest
    a second one      do not wait: end what is open now
    SIGHUP            read the config again: users, limits and accounts change live

Ready means listening, alive means that the loop turns, stopping means draining: that
is what systemd is told.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from gateway import __version__, log, systemd
from gateway.app import House, build_app, build_runner, house_of
from gateway.config import Config
from gateway.config_file import ConfigError
from gateway.http_server import Runner
from gateway.load import load

BACKLOG = 1024
HELLO = Path(__file__).with_name("trial") / "hello.json"  # no quotes to escape in a log
GREETING = """
The gateway listens on {address}. There is no [[user]] in the config, so here is a key
that is good until the gateway stops:

    {key}

Paste this into another terminal:

    {curl}
"""
LAG_PROBE_S = 0.5
# Objects made before the youngest are looked through. What a request makes is freed
# without the cycle collector, and a test keeps it so: it need not look as often as
# Python's own 700 would have it.
GC_THRESHOLDS = (10_000, 20, 50)
DRAIN_LOOK_S = 0.05


class StartError(Exception):
    """The daemon cannot start; the text is for the operator."""


class Server:
    """
    Args:
        path: the config file, read again on SIGHUP.
        config: as it was read first.
        passed: the sockets that systemd opened; they take precedence.
        key: the throwaway key, if there is no user of the operator's.
    """

    def __init__(
        self, path: Path, config: Config, passed: list[systemd.Passed], key: str
    ) -> None:
        self._path = path
        self._config = config
        self._passed = passed
        self._key = key
        self._log = log.get()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._notifier = systemd.Notifier()

    async def run(self) -> None:
        """Serve until a signal says stop."""
        app = await build_app(self._config, self._path.parent)
        house = house_of(app)
        runner = await build_runner(app, shutdown_timeout_s=2.0)
        try:
            addresses = await self._listen(runner)
            self._take_signals(house)
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            self._log.info("server.started", version=__version__, listen=addresses)
            if self._key:
                self._greet(addresses[0])
            self._notifier.ready()
            await house.warm_up()
            gc.freeze()
            beat = asyncio.create_task(self._beat(house), name="heart-beat")
            await self._stop.wait()
            await self._drain(house, runner)
            beat.cancel()
        finally:
            await runner.cleanup()
        self._log.info("server.stopped")

    # --- listening -----------------------------------------------------------------

    async def _listen(self, runner: web.AppRunner) -> list[str]:
        """Open every listener; port 0 is told as the port that was given."""
        for passed in self._passed:
            await web.SockSite(runner, passed.socket, backlog=BACKLOG).start()
        if self._passed:
            return [passed.address for passed in self._passed]
        for address in self._config.server.listen:
            try:
                await _site(runner, address).start()
            except OSError as error:
                reason = error.strerror or repr(error)
                raise StartError(f"cannot listen on {address}: {reason}") from None
        return [
            f"unix:{address}" if isinstance(address, str) else _host_port(address)
            for address in runner.addresses
        ]

    def _greet(self, address: str) -> None:
        """A newcomer's first line to paste, with the key that lives until the stop."""
        url, unix = f"http://{address}/v1/responses", ""
        if address.startswith("unix:"):
            url, unix = "http://localhost/v1/responses", f"--unix-socket {address[5:]} "
        curl = (
            f"curl -N {unix}{url} -H 'Authorization: Bearer {self._key}' "
            f"-H 'Content-Type: application/json' -d @{HELLO}"
        )
        if log.is_console(self._config.server.log_format):
            log.say(GREETING.format(address=address, key=self._key, curl=curl))
        else:
            self._log.info("server.greeted", address=url, key=self._key, curl=curl)

    # --- signals -------------------------------------------------------------------

    def _take_signals(self, house: House) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload, house)

    def _on_stop(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _on_reload(self, house: House) -> None:
        self._notifier.reloading()
        try:
            config = load(self._path)
            house.reload(config)
        except ConfigError as error:
            self._log.error("config.rejected", mistakes=error.mistakes)
        else:
            self._log.info("config.reloaded")
        self._notifier.ready()

    # --- stopping -------------------------------------------------------------------

    async def _drain(self, house: House, runner: Runner) -> None:
        """Open streams may finish; what is left is ended properly."""
        self._notifier.stopping()
        timeout_s = self._config.server.drain_timeout_s
        house.drain()
        runner.drain()
        for site in list(runner.sites):
            await site.stop()
        self._unlink_sockets()
        self._log.info(
            "server.draining", requests=house.serving, drain_timeout_s=timeout_s
        )
        deadline = time.monotonic() + timeout_s
        while house.serving and time.monotonic() < deadline:
            if self._hurry.is_set():
                break
            await asyncio.sleep(DRAIN_LOOK_S)
        await house.end_open()

    def _unlink_sockets(self) -> None:
        """Remove the socket files that we made ourselves."""
        for address in () if self._passed else self._config.server.listen:
            if address.startswith("unix:"):
                with suppress(OSError):
                    os.unlink(address[5:])

    # --- heart-beat ------------------------------------------------------------------

    async def _beat(self, house: House) -> None:
        """Measure how late the loop is; tell systemd that it turns."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            house.tick(max(0.0, loop.time() - due))
            self._notifier.watchdog()


def _remove_stale(path: str) -> None:
    """A socket file that nobody listens on any more; anything else stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)


def _site(runner: web.AppRunner, address: str) -> web.BaseSite:
    if address.startswith("unix:"):
        _remove_stale(address[5:])
        return web.UnixSite(runner, address[5:], backlog=BACKLOG)
    host, _, port = address.rpartition(":")
    return web.TCPSite(runner, host.strip("[]"), int(port), backlog=BACKLOG)


def _host_port(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
