"""
The sockets that a daemon listens on.

Rule 1: an address belongs to one daemon. A unix socket whose listener is alive is left
        alone, as the kernel does with a TCP port; a stale one is replaced.
Rule 2: a socket file is removed only by the daemon that made it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from gateway.daemon.systemd import address_text

BACKLOG = 1024


class ServedSocket(NamedTuple):
    """A listening socket of the parent, as a worker has it, and its address."""

    socket: socket.socket
    address: str


class ListeningSocket:
    """
    A listening socket.

    Attributes:
        address: as a config writes it, with the port that was given for port 0.
    """

    def __init__(self, sock: socket.socket, path: str = "") -> None:
        self.socket = sock
        self.address = address_text(sock)
        self._path = path
        self._file = _identity(path) if path else None

    @property
    def owned_path(self) -> str:
        """The socket's file; "" for none, and once it is another's."""
        with suppress(OSError):
            if self._file is not None and _identity(self._path) == self._file:
                return self._path
        return ""

    def close(self) -> None:
        """Stop listening; the socket's file goes too, unless it is another's by now."""
        with suppress(OSError):
            if self.owned_path:
                os.unlink(self.owned_path)
        self._file = None
        self.socket.close()


def listen(address: str, mode: int | None = None) -> list[ListeningSocket]:
    """
    Listen on *address*; a host name may have several addresses.

    Args:
        mode: the permissions of a unix socket; None for those of the umask.

    Raises:
        OSError: it is taken, or the system refuses it.
    """
    if address.startswith("unix:"):
        return [ListeningSocket(_bind_unix(address[5:], mode), address[5:])]
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[ListeningSocket] = []
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            listeners.append(ListeningSocket(_bind_tcp(family, kind, protocol, place)))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_tcp(family: int, kind: int, protocol: int, place: object) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        # A restart need not wait for the last connections' TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)  # type: ignore[arg-type]  # an address of its family
        # At once: Linux lets two sockets be bound to a port until one listens.
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: str, mode: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked(os.path.dirname(path) or "."):
            _remove_stale(path)
            sock.bind(path)
            if mode is not None:  # before anyone can connect
                os.chmod(path, mode)
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keep daemons that start together from taking the same socket for stale."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    """
    Remove a socket file without a listener.

    Raises:
        OSError: EADDRINUSE: it has a listener, or it is no socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(mode) and _is_stale(path):
        Path(path).unlink(missing_ok=True)
        return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _is_stale(path: str) -> bool:
    """Whether a connection is refused; a full backlog is a sign of life."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) in (errno.ECONNREFUSED, errno.ENOENT)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
