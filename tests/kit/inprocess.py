"""The gateway inside the test's own process: quick to start, and its log at hand."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.config.parse import parse
from gateway.daemon.admin_side import AdminSide
from gateway.daemon.app import build_app, build_runner, components_of
from gateway.daemon.engine_use import EngineChoice
from gateway.daemon.listeners import ListeningSocket, ServedSocket
from gateway.daemon.parent_listeners import ADMIN, Listeners
from gateway.daemon.settings import absolute
from gateway.daemon.systemd import PassedSocket
from gateway.telemetry import log as gateway_log
from gateway.telemetry import log_routes
from tests.kit import settings
from tests.kit.logs import Log


class InProcess:
    """
    A running application.

    Attributes:
        admin: its admin listeners, if the config has some.
        log: its log, which is the whole process's log while it runs.
        base_url: where it listens, without ``/v1``.
    """

    def __init__(
        self, app: web.Application, base_url: str, log: Log, admin: AdminSide
    ) -> None:
        self.app = app
        self.base_url = base_url
        self.log = log
        self.admin = admin

    async def waiting(self, user: str, number: int) -> None:
        """Return once *number* requests of *user* wait for a slot."""

        def reached() -> bool:
            counts = components_of(self.app).registry.counts()
            return any(
                (one.scope, one.name, one.waiting) == ("user", user, number)
                for one in counts
            )

        await self.log.wait_for(reached, f"{user} has not {number} waiting")


@asynccontextmanager
async def running(
    folder: Path, accounts: Sequence[settings.Table], **config: Any
) -> AsyncIterator[InProcess]:
    """An application on a free port for the duration of the block."""
    with logging_to(Log()) as log:
        async with serving(folder, accounts, log, **config) as one:
            yield one


@asynccontextmanager
async def serving(
    folder: Path,
    accounts: Sequence[settings.Table],
    log: Log,
    engine: EngineChoice | None = None,
    **config: Any,
) -> AsyncIterator[InProcess]:
    """
    The same, where the process's log is *log* already: one of several.

    Args:
        engine: as a parent's, where there are several workers.
    """
    text = settings.config_text(listen=["127.0.0.1:1"], accounts=accounts, **config)
    secrets = settings.environment(accounts)
    config_ = parse(text, lambda name: secrets[name.removeprefix("env:")])
    app = await build_app(config_, folder, engine)
    runner = await build_runner(app, shutdown_timeout_s=5.0)
    listeners = Listeners([])
    if config_.admin:
        listen = [absolute(one, folder) for one in config_.admin.listen]
        listeners.add({ADMIN: listen})
    admin = AdminSide([as_served(one.held) for one in listeners.open])
    try:
        await admin.serve(components_of(app).admin_app())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield InProcess(app, f"http://{host}:{port}", log, admin)
    finally:
        await admin.close()
        await runner.cleanup()
        listeners.close()


def as_served(held: ListeningSocket | PassedSocket) -> ServedSocket:
    return ServedSocket(held.socket, held.address)


class _Outlet(io.TextIOBase):
    """Where loggers write that keep their stream for good: to the log of the day."""

    log = Log()

    def write(self, text: str) -> int:
        return self.log.write(text)


_OUTLET = _Outlet()


@contextmanager
def logging_to(log: Log) -> Iterator[Log]:
    """The process's log goes to *log* for the duration of the block."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    _OUTLET.log = log
    gateway_log.set_up("info", "json", _OUTLET)  # type: ignore[arg-type]
    log_routes.route_libraries()
    try:
        yield log
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
