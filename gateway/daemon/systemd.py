"""
The daemon's side of systemd: states, the watchdog, passed sockets.

Rule 1: without systemd (no variables in the environment) every call does nothing.
Rule 2: nothing here may stop the daemon: a state that cannot be sent is lost.

    READY=1       the listeners are open and work is taken
    RELOADING=1   the config is being read again; READY=1 ends it
    WATCHDOG=1    the event loop turns
    STOPPING=1    nothing new is taken, open streams finish

Source: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3) of systemd 252.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import NamedTuple

LISTEN_FDS_START = 3
"""The first passed descriptor; the others follow it."""

Environment = MutableMapping[str, str]


class Notifier:
    """Sends the daemon's state to systemd; each call returns whether it was sent."""

    def __init__(self, environment: Environment | None = None) -> None:
        environment = os.environ if environment is None else environment
        path = environment.get("NOTIFY_SOCKET", "")
        # "@" is written for the NUL byte of an abstract socket
        self._address = "\0" + path[1:] if path.startswith("@") else path
        # Opened once: the watchdog must be fed also with no descriptor left.
        self._socket: socket.socket | None = None
        if self._address.startswith(("/", "\0")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self) -> bool:
        """The daemon takes work."""
        return self._send("READY=1")

    def reloading(self) -> bool:
        """The config is being read again; ``ready`` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> bool:
        """The daemon takes nothing new."""
        return self._send("STOPPING=1")

    def watchdog(self) -> bool:
        """The event loop turns."""
        return self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Send nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class PassedSocket(NamedTuple):
    """A listening socket that systemd opened, and its address as text."""

    socket: socket.socket
    address: str  # "127.0.0.1:8080", "[::1]:8080", "unix:/run/x" or "unix:@x"


def passed_sockets(environment: Environment | None = None) -> list[PassedSocket]:
    """
    The sockets that systemd passed to this process, in their order.

    They are taken once: the variables are removed, so that no child takes them too.

    Raises:
        ValueError: when one of them is no listening stream socket.
    """
    environment = os.environ if environment is None else environment
    given = [
        environment.pop(name, "")
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    ]
    try:
        pid, count = int(given[0]), int(given[1])
    except ValueError:
        return []
    if pid != os.getpid():
        return []
    return [_passed(LISTEN_FDS_START + index) for index in range(count)]


def _passed(descriptor: int) -> PassedSocket:
    os.set_inheritable(descriptor, False)
    try:
        taken = socket.socket(fileno=descriptor)
        listens = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ValueError(f"passed descriptor {descriptor}: {error}") from None
    if taken.type != socket.SOCK_STREAM or not listens:
        taken.close()
        raise ValueError(f"passed descriptor {descriptor}: not a listening stream")
    return PassedSocket(taken, address_text(taken))


def address_text(listener: socket.socket) -> str:
    """The address of *listener* as a config writes it."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        path = name.decode() if isinstance(name, bytes) else str(name)
        return "unix:" + (f"@{path[1:]}" if path.startswith("\0") else path)
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
