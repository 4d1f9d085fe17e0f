"""
``gateway serve``: the parent process, from its files to its exit status.

It imports nothing of what serves: the parent stays small for as long as it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.daemon import systemd
from gateway.daemon.parent import Parent
from gateway.daemon.parent_listeners import Listeners
from gateway.daemon.parent_log import ParentLog, made_lock
from gateway.daemon.process import StartError, occupy_standard_files, raise_file_limit
from gateway.daemon.worker_handle import own_program


def serve(path: Path) -> int:
    """
    Serve the config *path* until a signal stops it.

    Returns 0 after a clean stop, 1 when it could not start, 2 for a bad config.
    """
    occupy_standard_files()
    lock = made_lock()
    log = ParentLog(lock)
    sys.excepthook = lambda kind, error, trace: log.error(
        "process.crashed", detail=repr(error)
    )
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
    parent = Parent(path, log, listeners, own_program(), inherited, files)
    return parent.run()
