"""
``gateway worker``: one process that serves, started by ``gateway serve`` alone.

The parent says over its channel what to do: read the config, open the ledger, serve.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway.config.changes import compare
from gateway.config.load import ConfigSource, ServedConfig, load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Config
from gateway.daemon import aiohttp_alone
from gateway.daemon.channel import Message
from gateway.daemon.parent_link import ParentLink
from gateway.daemon.process import StartError
from gateway.daemon.settings import settings_of
from gateway.telemetry import log, log_routes
from gateway.telemetry.log_writer import LogLock


def work(descriptors: Sequence[int]) -> int:
    """
    Serve until the parent says stop; returns the exit status.

    Args:
        descriptors: of the channel, and of the lock of the log.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP))
    control = socket.socket(fileno=descriptors[0])
    control.set_inheritable(False)
    if len(descriptors) > 1:
        log.share(LogLock(descriptors[1]))
    log.set_up()
    log_routes.take_over()
    link = ParentLink(control)
    try:
        return _boot(link)
    except EOFError:
        return 0  # the parent has gone; nothing had begun


def _boot(link: ParentLink) -> int:
    boot = link.wait_for("boot").message
    assert boot is not None
    path = Path(boot["path"])
    try:
        served, started = _served(path, boot)
    except ConfigError as error:
        log.get().error("config.rejected", path=str(path), mistakes=error.mistakes)
        link.say("failed", status=2)
        return 2
    except StartError as error:  # the ledger cannot be asked for users
        link.say("failed", status=1, detail=log.detail(str(error)))
        return 1
    server = served.config.server
    log.set_up(server.log_level, server.log_format)
    # The parent listens while this process loads what serves: a bad config, and an
    # address that is taken, are said without that.
    link.say("configured", settings=settings_of(served, started, path.parent))
    aiohttp_alone.load()
    from gateway.daemon.server import Daemon
    from gateway.ledger.database import LedgerError

    opened, fds = link.wait_for("open")
    assert opened is not None
    try:
        daemon = Daemon(path, served, started, {**boot, **opened}, fds, link)
        daemon.load_parent = _load_parent
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(daemon.run())
    except (LedgerError, StartError) as error:
        link.say("failed", status=1, detail=log.detail(str(error)))
        return 1
    return 0


def _load_parent() -> None:
    from gateway.commands import serve

    assert serve


def _served(path: Path, boot: Message) -> tuple[ServedConfig, ConfigSource]:
    """
    The config to serve, and what the first config of all workers was made of. Only
    the first worker reads the file: what is in it later may not be meant yet.
    """
    known: dict[str, Any] = boot["served"] or {}

    def load(name: str) -> ServedConfig:
        return load_served(
            path,
            passed=boot["passed"],
            open_addresses=boot["open"],
            key=known.get("key", ""),
            admin_token=known.get("admin_token", ""),
            source=ConfigSource(**known[name]) if name in known else None,
            stored_users=partial(_stored_users, path.parent),
        )

    served = load("source")
    if known.get("source") == known.get("started"):
        return served, served.source
    first = load("started")
    return (
        served._replace(config=compare(first.config, served.config).config),
        first.source,
    )


def _stored_users(base: Path, config: Config) -> set[str]:
    """
    The names of the users in the ledger.

    Raises:
        StartError: it cannot be asked.
    """
    from gateway.ledger.database import LedgerError
    from gateway.ledger.runtime_users import stored_users

    try:
        return stored_users(config, base)
    except LedgerError as error:
        raise StartError(str(error)) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
