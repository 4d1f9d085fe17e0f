"""
Where a worker that has lost its parent is found by those of a new one.

A parent that was killed leaves workers which finish what runs. A new instance of the
same config must not exceed a limit together with them: its worker follows them as it
would follow one that is replaced (``daemon.takeover``).

    FOLDER/orphan-PID.sock   where such a worker listens, in the folder of mode 0700
                             that is the config's (``private_folder``)

Rule 1: it listens before it gives up the public listeners. So a new instance, which
        needs these addresses, cannot start without finding it.
Rule 2: one that is found and does not answer stands still, and is killed, as a parent
        kills a worker that is silent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway.daemon.private_folder import private_folder
from gateway.daemon.process import StartError
from gateway.telemetry import log

MAX_ORPHANS = 64  # that are looked for; more workers than that have no gateway
BACKLOG = 8
_PEER = struct.Struct("3i")  # pid, uid, gid: ``struct ucred`` of unix(7)


class Orphan:
    """
    This worker, without its parent, on the event loop that runs.

    Args:
        config: the config file.
        follow: called with the descriptor of each worker that follows; owns it.
    """

    def __init__(self, config: Path, follow: Callable[[int], object]) -> None:
        self._config = config
        self._follow = follow
        self._sock: socket.socket | None = None
        self._path = ""

    def open(self) -> bool:
        """Be found from now on; False, and a line in the log, where that cannot be."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            folder = private_folder(self._config)
            self._path = os.path.join(folder, f"orphan-{os.getpid()}.sock")
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            sock.bind(self._path)
            sock.listen(BACKLOG)
        except (OSError, StartError) as error:
            sock.close()
            log.get().warning("takeover.failed", detail=str(error))
            return False
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)
        return True

    def close(self) -> None:
        """Be found no more; what follows already goes on following."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
            with suppress(OSError):
                os.unlink(self._path)
            with suppress(OSError):  # unless an engine is there
                os.rmdir(os.path.dirname(self._path))

    def _accept(self) -> None:
        assert self._sock is not None
        with suppress(BlockingIOError, ConnectionError):
            connection, _ = self._sock.accept()
            connection.setblocking(False)
            self._follow(connection.detach())


def find_orphans(config: Path) -> list[int]:
    """A descriptor to each worker of *config* that has no parent any more."""
    try:
        folder = Path(private_folder(config, make=False))
        paths = sorted(folder.glob("orphan-*.sock"))[:MAX_ORPHANS]
    except (OSError, StartError):
        return []
    found = []
    for path in paths:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(str(path))
            found.append(sock.detach())
        except BlockingIOError:  # too many wait to follow it
            sock.close()
        except OSError:  # it has ended
            sock.close()
            with suppress(OSError):
                path.unlink()
    if not found:
        with suppress(OSError):
            folder.rmdir()
    return found


def kill_peer(fd: int) -> None:
    """End the process behind *fd*, which stands still."""
    sock = socket.socket(fileno=os.dup(fd))
    with sock:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(_PEER.unpack(data)[0], signal.SIGKILL)
