"""
From a host name to its addresses, by the system's own resolver.

The system's resolver (``getaddrinfo``) knows /etc/hosts, search domains and every
source that nsswitch.conf names, as curl and ssh do; a DNS library knows some of them.
But it blocks a thread, and can do so for a minute. Hence:

Rule 1: one lookup per name is in flight, however many waiters it has. A waiter that is
        cancelled does not cancel it.
Rule 2: each lookup has its own thread, so a name that hangs takes one thread.
        ``MAX_LOOKUPS`` bounds them all.
Rule 3: answers and failures are remembered. While a new answer cannot be had, the
        old one is used (RFC 8767).
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  getaddrinfo needs it, also with no descriptor left
import errno
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.transport.shortage import AddressInfo, is_own

ADDRESSES_TTL_S = 30.0
"""How long an answer is used without another lookup."""

STALE_TTL_S = 3600.0
"""How long an answer is used while no newer one can be had."""

STALE_WAIT_S = 1.0
"""How long a stale answer is held back while a lookup may bring a newer one."""

FAILURE_TTL_S = 5.0
"""How long a failure is used without another lookup."""

LOOKUP_TIMEOUT_S = 5.0
"""How long waiters wait for a lookup."""

MAX_LOOKUPS = 64
"""Lookups that run at once; further names are queued."""

MAX_NAMES = 1024
"""Names that are remembered."""


class LookupFailed(OSError):
    """A name could not be resolved."""


@dataclass(slots=True)
class _Name:
    """
    What is known about one name; times are the loop's.

    Attributes:
        outcome: what waiters wait for: None, or the reason for no answer.
        in_flight: a thread runs the lookup, or the name is queued for one.
    """

    addresses: list[AddressInfo] = field(default_factory=list)
    known_at: float = 0.0
    fresh_until: float = 0.0
    failure: str = ""
    failed_until: float = 0.0
    outcome: asyncio.Future[OSError | None] | None = None
    timer: asyncio.TimerHandle | None = None
    in_flight: bool = False


class Resolver:
    """Looks names up for one event loop, with a cache."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._running = 0
        self._queue: dict[str, _Name] = {}  # names without a thread yet

    async def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """
        The addresses of *host*, for connections to *port*.

        Raises:
            OSError: there are none (``LookupFailed``), or this process has a shortage
                (``shortage.is_own``).
        """
        return [_with_port(info, port) for info in await self._known(host)]

    def expire(self, host: str) -> None:
        """Look *host* up before its next use: no address was reachable."""
        if name := self._names.get(host):
            name.fresh_until = 0.0

    async def _known(self, host: str) -> list[AddressInfo]:
        now = asyncio.get_running_loop().time()
        name = self._name(host)
        if name.addresses and now < name.fresh_until:
            return name.addresses
        has_stale = bool(name.addresses) and now < name.known_at + STALE_TTL_S
        if now < name.failed_until:
            if has_stale:
                return name.addresses
            raise LookupFailed(name.failure)
        outcome = self._start_lookup(host, name)
        # Unlike ``wait_for``, it cancels nothing.
        await asyncio.wait([outcome], timeout=STALE_WAIT_S if has_stale else None)
        error = outcome.result() if outcome.done() else None
        if error is None or has_stale:
            return name.addresses
        raise type(error)(*error.args)

    def _name(self, host: str) -> _Name:
        """The entry of *host*; the least recently used one makes room for a new one."""
        name = self._names.pop(host, None) or _Name()
        if len(self._names) >= MAX_NAMES:
            idle = (one for one, known in self._names.items() if not known.in_flight)
            self._names.pop(next(idle, ""), None)
        self._names[host] = name
        return name

    # --- the lookup -------------------------------------------------------------------

    def _start_lookup(self, host: str, name: _Name) -> asyncio.Future[OSError | None]:
        """The lookup that is in flight; a new one if there is none."""
        outcome = name.outcome
        if outcome is None:
            loop = asyncio.get_running_loop()
            outcome = name.outcome = loop.create_future()
            name.timer = loop.call_later(LOOKUP_TIMEOUT_S, self._time_out, name)
            if not name.in_flight:
                name.in_flight = True
                self._queue[host] = name
                self._start_next(loop)
        return outcome

    def _start_next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start queued lookups as long as threads are allowed."""
        while self._queue and self._running < MAX_LOOKUPS:
            host = next(iter(self._queue))
            name = self._queue.pop(host)
            thread = threading.Thread(
                target=self._look_up, args=(loop, host, name), daemon=True
            )
            self._running += 1
            try:
                thread.start()
            except RuntimeError as error:  # no thread is left
                self._finish_lookup(name, OSError(errno.ENOMEM, str(error)))

    def _look_up(self, loop: asyncio.AbstractEventLoop, host: str, name: _Name) -> None:
        """Run in a thread: look *host* up and hand the outcome to the loop."""
        found: list[AddressInfo] | OSError
        try:
            found = _getaddrinfo(host)
        except OSError as error:
            found = error
        except UnicodeError as error:
            found = LookupFailed(f"not a host name: {error}")
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._finish_lookup, name, found)

    def _finish_lookup(self, name: _Name, found: list[AddressInfo] | OSError) -> None:
        loop = asyncio.get_running_loop()
        self._running -= 1
        name.in_flight = False
        self._start_next(loop)
        if isinstance(found, OSError):
            self._fail(name, found)
            return
        name.addresses, name.known_at = found, loop.time()
        name.fresh_until = loop.time() + ADDRESSES_TTL_S
        name.failed_until = 0.0
        self._end(name, None)

    def _time_out(self, name: _Name) -> None:
        """Release the waiters; the thread stays the only one for this name."""
        if any(name is waiting for waiting in self._queue.values()):
            text = f"{self._running} names are being looked up"
            self._fail(name, OSError(errno.ENOBUFS, text))
        else:
            self._fail(name, LookupFailed(f"no answer after {LOOKUP_TIMEOUT_S:g} s"))

    def _fail(self, name: _Name, error: OSError) -> None:
        if not is_own(error):
            error = LookupFailed(error.strerror or str(error))
            name.failure = str(error)
            now = asyncio.get_running_loop().time()
            name.failed_until = now + FAILURE_TTL_S
        self._end(name, error)

    def _end(self, name: _Name, error: OSError | None) -> None:
        """Release the waiters."""
        if name.timer is not None:
            name.timer.cancel()
            name.timer = None
        if name.outcome is not None:
            outcome, name.outcome = name.outcome, None
            outcome.set_result(error)


def _getaddrinfo(host: str) -> list[AddressInfo]:
    try:
        return list(
            socket.getaddrinfo(
                host,
                0,
                type=socket.SOCK_STREAM,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_ADDRCONFIG,
            )
        )
    except socket.gaierror:
        # The C library reports a missing descriptor as "temporary failure".
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        raise


def _with_port(info: AddressInfo, port: int) -> AddressInfo:
    family, kind, protocol, name, address = info
    return family, kind, protocol, name, (address[0], port, *address[2:])
