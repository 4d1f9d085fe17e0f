"""A channel to another worker on the event loop: messages in, messages out, its end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from gateway.daemon.channel import Channel, Message


class SocketLink:
    """
    Args:
        fd: of one end of a pair of sockets; it is owned from now on.
        take: called with each message and its descriptors, which it owns.
        lost: called once when the other is gone.
    """

    def __init__(
        self,
        fd: int,
        take: Callable[[Message, list[int]], object],
        lost: Callable[[], object],
    ) -> None:
        self._channel = Channel(socket.socket(fileno=fd))
        self._take = take
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._writing = False
        self._loop.add_reader(self._channel.fileno(), self._read)

    @property
    def is_open(self) -> bool:
        """Whether the other may still hear something."""
        return self._open

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send *message*; dropped if the other is gone."""
        if not self._open:
            return
        self._channel.send(message, fds)
        if self._channel.wants_write and not self._writing:
            self._writing = True
            self._loop.add_writer(self._channel.fileno(), self._write)

    def close(self) -> None:
        """Say and hear nothing more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()

    def _read(self) -> None:
        try:
            come = self._channel.receive()
        except EOFError:
            self.close()
            self._lost()
            return
        for message, fds in come:
            if message is not None:
                self._take(message, fds)
                continue
            for fd in fds:
                os.close(fd)

    def _write(self) -> None:
        self._channel.flush()
        if not self._channel.wants_write:
            self._writing = False
            self._loop.remove_writer(self._channel.fileno())
