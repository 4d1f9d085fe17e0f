"""
``gateway serve``: the parent process, from its files to its exit status.

It imports nothing of what serves: the parent stays small for as long as it runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gateway.daemon import parent_state, systemd
from gateway.daemon.parent import Parent
from gateway.daemon.parent_exec import go_on
from gateway.daemon.parent_listeners import Listeners
from gateway.daemon.parent_log import ParentLog, made_lock
from gateway.daemon.phase import Phase
from gateway.daemon.process import StartError, occupy_standard_files, raise_file_limit
from gateway.daemon.worker_handle import own_program
from gateway.telemetry.log_writer import LogLock


def serve(path: Path) -> int:
    """
    Serve the config *path* until a signal stops it.

    Returns 0 after a clean stop, 1 when it could not start, 2 for a bad config.
    """
    occupy_standard_files()
    if state := parent_state.take():
        return _go_on(path, state)
    lock = made_lock()
    log = _log(lock)
    try:
        passed = systemd.passed_sockets()
    except ValueError as error:
        log.error("config.rejected", path=str(path), mistakes=[str(error)])
        log.close()
        return 2
    inherited = () if lock.fd is None else (lock.fd,)
    try:
        files = raise_file_limit()
    except StartError as error:
        log.error("server.failed", detail=str(error))
        log.close()
        return 1
    listeners = Listeners(passed)
    return Parent(path, log, listeners, own_program(), inherited, files).run()


def _go_on(path: Path, state: parent_state.ParentState) -> int:
    """The code before this one has executed it, in the middle of a restart."""
    inherited = state["inherited"]
    for fd in inherited:
        os.set_inheritable(fd, False)
    lock = LogLock(inherited[0] if inherited else None)
    log = _log(lock, state.get("lines_lost", 0))
    listeners = Listeners.load(state["listeners"])
    files = raise_file_limit()
    parent = Parent(path, log, listeners, own_program(), inherited, files)
    parent.phase = Phase.RUNNING
    go_on(parent, state)
    return parent.run()


def _log(lock: LogLock, lost: int = 0) -> ParentLog:
    log = ParentLog(lock, lost)
    sys.excepthook = lambda kind, error, trace: log.error(
        "process.crashed", detail=repr(error)
    )
    return log
