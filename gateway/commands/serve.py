"""``gateway serve``: the process around a daemon, from its files to its exit status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.config.load import ServedConfig, load_served
from gateway.config.parse import ConfigError
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
        served = load_served(path, passed=[one.address for one in passed])
    except (ConfigError, ValueError) as error:
        mistakes = getattr(error, "mistakes", None) or [str(error)]
        log.get().error("config.rejected", path=str(path), mistakes=mistakes)
        return 2
    log.set_up(served.config.server.log_level, served.config.server.log_format)
    return _run(path, served, passed)


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
