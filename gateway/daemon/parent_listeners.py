"""
The parent's listeners, which stay open whatever becomes of the workers.

Rule 1: sockets that systemd passed take precedence over ``server.listen``.
Rule 2: a listener that the next program goes on with keeps its descriptor.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gateway.daemon.listeners import ListeningSocket, listen
from gateway.daemon.process import StartError
from gateway.daemon.systemd import PassedSocket

PUBLIC, ADMIN = "public", "admin"
MODES = {ADMIN: 0o600}  # of unix sockets; others have that of the umask


class OpenListener(NamedTuple):
    """
    Attributes:
        kind: which side of the gateway it belongs to.
        wanted: the address as the config writes it; "" if systemd has opened it.
    """

    kind: str
    wanted: str
    held: ListeningSocket | PassedSocket

    @property
    def fd(self) -> int:
        """Its descriptor."""
        return self.held.socket.fileno()

    @property
    def described(self) -> dict[str, str]:
        """What a worker has to know of it."""
        return {"kind": self.kind, "address": self.held.address}


class Listeners:
    """
    Args:
        passed: the sockets that systemd opened.
    """

    def __init__(self, passed: Sequence[PassedSocket]) -> None:
        self.open = [OpenListener(PUBLIC, "", one) for one in passed]

    @property
    def passed(self) -> list[str]:
        """The addresses of the sockets that systemd opened."""
        return [one.held.address for one in self.open if not one.wanted]

    def addresses(self, kind: str = PUBLIC) -> list[str]:
        """Where it listens."""
        return [one.held.address for one in self.open if one.kind == kind]

    def add(self, wanted: dict[str, Sequence[str]]) -> list[OpenListener]:
        """
        Open what is not open yet; returns what the config does not name any more.

        Args:
            wanted: addresses by kind.

        Raises:
            StartError: one cannot be opened; then none of them is.
        """
        passed = bool(self.passed)
        have = {(one.kind, one.wanted) for one in self.open}
        wants = {
            (kind, address): None
            for kind, addresses in wanted.items()
            for address in addresses
            if not (kind == PUBLIC and passed)
        }
        fresh: list[OpenListener] = []
        try:
            for kind, address in wants:
                if (kind, address) not in have:
                    fresh += [
                        OpenListener(kind, address, s) for s in _open(kind, address)
                    ]
        except BaseException:
            self.close(fresh)
            raise
        named = [one for one in self.open if one.wanted]
        gone = [one for one in named if (one.kind, one.wanted) not in wants]
        self.open += fresh
        return gone

    def close(self, some: Iterable[OpenListener] | None = None) -> None:
        """Close *some* of them, or all."""
        for one in list(self.open if some is None else some):
            if isinstance(one.held, ListeningSocket):
                one.held.close()
            else:
                one.held.socket.close()
            if one in self.open:
                self.open.remove(one)

    def dump(self) -> list[dict[str, Any]]:
        """What new code has to know."""
        known = []
        for one in self.open:
            path = one.held.owned_path if isinstance(one.held, ListeningSocket) else ""
            known.append(
                {"kind": one.kind, "wanted": one.wanted, "fd": one.fd, "path": path}
            )
        return known

    @classmethod
    def load(cls, known: Iterable[dict[str, Any]]) -> Listeners:
        """The listeners that ``dump`` described, in a new program."""
        listeners = cls([])
        for one in known:
            sock = socket.socket(fileno=one["fd"])
            sock.set_inheritable(False)
            held = ListeningSocket(sock, one["path"])
            listeners.open.append(OpenListener(one["kind"], one["wanted"], held))
        return listeners


def _open(kind: str, address: str) -> list[ListeningSocket]:
    try:
        return listen(address, MODES.get(kind))
    except OSError as error:
        reason = error.strerror or repr(error)
        if kind == ADMIN and error.errno == errno.EADDRINUSE:
            reason += " (admin.listen)"
        raise StartError(f"cannot listen on {address}: {reason}") from None
