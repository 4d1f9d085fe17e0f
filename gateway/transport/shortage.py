"""
The process's own shortage: no descriptor, no memory or no local port is left.

Rule 1: an account is not blamed for a socket that this process could not create.
Rule 2: the log names a shortage once when it begins and once when it is over.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from gateway.errors import Overloaded
from gateway.telemetry import log

OWN_ERRORS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)
"""The kernel's errors when this process or machine has run out of something."""

QUIET_S = 10.0
"""A shortage is over after this long without a refused socket."""

SPARE_DESCRIPTORS = 4
"""With fewer descriptors left, connections are or will soon be refused."""

AddressInfo = tuple[Any, Any, int, str, Any]
"""One address as ``socket.getaddrinfo`` returns it."""


class ConnectAttempts:
    """The calls of ``create_socket`` inside a ``recorded`` block."""

    def __init__(self) -> None:
        self.errors: list[OSError] = []
        self.addresses: list[AddressInfo] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the calls in the block and in the tasks that it starts."""
        token = _attempts.set(self)
        try:
            yield
        finally:
            _attempts.reset(token)

    def shortage(self, error: BaseException | None) -> OSError | None:
        """
        The shortage that made a connection fail, None if it failed otherwise.

        EADDRNOTAVAIL says that no local port is left, or that there is no route.

        Args:
            error: what was raised; with several addresses it may be the failure of
                another one.
        """
        if self.errors:
            return self.errors[0]
        if not isinstance(error, OSError) or not is_own(error):
            return None
        if error.errno != errno.EADDRNOTAVAIL:
            return error
        return error if any(map(_has_source, self.addresses)) else None


_attempts: ContextVar[ConnectAttempts | None] = ContextVar("attempts", default=None)


def is_own(error: BaseException | None) -> bool:
    """Whether *error* is a shortage of this process, not a peer's failure."""
    return isinstance(error, OSError) and error.errno in OWN_ERRORS


def create_socket(info: AddressInfo) -> socket.socket:
    """A socket for *info*: the factory of ``aiohappyeyeballs``."""
    family, kind, protocol, _, _ = info
    attempts = _attempts.get()
    if attempts is not None:
        attempts.addresses.append(info)
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        if attempts is not None and is_own(error):
            attempts.errors.append(error)
        raise


def _has_source(info: AddressInfo) -> bool:
    """Whether the machine has an address of its own to reach *info* from."""
    family, _, _, _, address = info
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


class Shortage:
    """The current shortage, if there is one."""

    def __init__(self) -> None:
        self._began_at = 0.0
        self._last_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def note(self, error: OSError | ImportError) -> None:
        """
        Count *error* to the shortage; the first one is logged.

        Args:
            error: an ImportError is what a compiled module raises that could not be
                opened.
        """
        loop = asyncio.get_running_loop()
        self._last_at = loop.time()
        if self._timer is None:
            self._began_at = self._last_at
            self._timer = loop.call_later(QUIET_S, self._check)
            log.get().error("resources.exhausted", detail=_text(error))

    def probe(self) -> None:
        """
        Note whether connections could be accepted now.

        The event loop does not report it: it closes connections that it cannot accept,
        and may then have a descriptor left again.
        """
        with ExitStack() as stack:
            try:
                for _ in range(SPARE_DESCRIPTORS):
                    stack.enter_context(socket.socket(socket.AF_UNIX))
            except OSError as error:
                if is_own(error):
                    self.note(error)

    def refusal(self, error: OSError) -> Overloaded:
        """
        What a client gets for *error*. The longer the shortage has lasted, the longer
        is its ``Retry-After``.
        """
        self.note(error)
        return Overloaded(
            "gateway_overloaded",
            detail=_text(error),
            retry_after_s=self._last_at - self._began_at,
        )

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        over_at = self._last_at + QUIET_S
        if loop.time() < over_at:
            self._timer = loop.call_at(over_at, self._check)
            return
        self._timer = None
        lasted_s = round(self._last_at - self._began_at, 1)
        log.get().info("resources.recovered", lasted_s=lasted_s)


def _text(error: OSError | ImportError) -> str:
    if isinstance(error, ImportError):
        return str(error)
    return error.strerror or (os.strerror(error.errno) if error.errno else repr(error))
