"""``gateway serve``: the process around a daemon, from its files to its exit status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.config.load import ServedConfig, load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Config
from gateway.daemon import systemd
from gateway.daemon.process import StartError, occupy_standard_files, raise_file_limit
from gateway.telemetry import log, log_routes


def serve(path: Path) -> int:
    """
    Serve the config *path* until a signal stops it.

    Returns 0 after a clean stop, 1 when it could not start, 2 for a bad config.
    """
    occupy_standard_files()
    log.set_up()
    log_routes.take_over()
    try:
        passed = systemd.passed_sockets()
        addresses = [one.address for one in passed]
        served = load_served(
            path, passed=addresses, stored_users=partial(_stored_users, path.parent)
        )
    except (ConfigError, ValueError) as error:
        mistakes = getattr(error, "mistakes", None) or [str(error)]
        log.get().error("config.rejected", path=str(path), mistakes=mistakes)
        return 2
    except StartError as error:
        log.get().error("server.failed", detail=str(error))
        return 1
    log.set_up(served.config.server.log_level, served.config.server.log_format)
    return _run(path, served, passed)


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


def _run(path: Path, served: ServedConfig, passed: list[systemd.PassedSocket]) -> int:
    # Not above: the other commands need not load what only a daemon needs.
    from gateway.daemon.server import Daemon
    from gateway.ledger.database import LedgerError

    try:
        daemon = Daemon(path, served, passed, raise_file_limit())
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(daemon.run())
    except (LedgerError, StartError) as error:
        log.get().error("server.failed", detail=str(error))
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
