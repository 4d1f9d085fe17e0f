"""The program of an engine on this machine, for processes that share one host alone."""

from __future__ import annotations

import os

PROGRAMS = ("valkey-server", "redis-server")
MISSING = (
    "more than one process needs an engine, and neither valkey-server nor redis-server "
    "is on the PATH: apt install valkey-server (Debian 12: redis-server), or set "
    "shared.url"
)


def engine_program() -> str:
    """The path of the program; "" where there is none."""
    for program in PROGRAMS:
        for folder in os.get_exec_path():
            path = os.path.join(folder, program)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return ""
