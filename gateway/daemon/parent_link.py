"""
A worker's end of the channel to its parent.

    before the event loop   ``wait_for`` blocks: the parent leads step by step
    on the event loop       ``start``: each message goes to the function that ``on``
                            names for it, and a beat is sent each second
    the end of the parent   ``lost`` is called once

Rule: what is said to a parent that has gone is dropped.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from gateway.daemon.channel import Channel, Message, Received

BEAT_S = 1.0

Handler = Callable[[Message, list[int]], object]


class ParentLink:
    """
    Args:
        sock: the worker's end.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock)
        self._come: list[Received] = []
        self._handlers: dict[str, Handler] = {}
        self._lost: Callable[[], object] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beats: asyncio.TimerHandle | None = None
        self._writing = False

    def wait_for(self, word: str) -> Received:
        """
        The next message, which must be *word*; blocks.

        Raises:
            EOFError: the parent is gone.
        """
        while not self._come:
            self._come += [one for one in self._channel.wait() if one.message]
        received = self._come.pop(0)
        assert received.message and received.message["do"] == word, received
        return received

    def say(self, word: str, **facts: Any) -> None:
        """Tell the parent."""
        self._channel.send({"is": word, **facts})
        self._watch_writes()

    def on(self, word: str, handler: Handler) -> None:
        """Let *handler* take the messages *word*, and own their descriptors."""
        self._handlers[word] = handler

    def start(self, lost: Callable[[], object]) -> None:
        """
        Listen, and beat, on the event loop that runs.

        Args:
            lost: called once when the parent is gone.
        """
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel.fileno(), self._read)
        come, self._come = self._come, []
        self._handle(come)
        self._beat()
        self._watch_writes()

    def stop(self) -> None:
        """Listen and beat no more."""
        if self._loop is None:
            return
        if self._beats is not None:
            self._beats.cancel()
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._loop = None

    def _beat(self) -> None:
        assert self._loop is not None
        self._channel.beat()
        self._beats = self._loop.call_later(BEAT_S, self._beat)

    def _read(self) -> None:
        try:
            come = self._channel.receive()
        except EOFError:
            self.stop()
            self._lost()
            return
        self._handle(come)

    def _handle(self, come: list[Received]) -> None:
        for message, fds in come:
            if message is not None and message["do"] in self._handlers:
                self._handlers[message["do"]](message, fds)

    def _watch_writes(self) -> None:
        """What does not go out at once goes out when the parent reads on."""
        if self._loop is None or self._writing or not self._channel.wants_write:
            return
        self._writing = True
        self._loop.add_writer(self._channel.fileno(), self._write)

    def _write(self) -> None:
        self._channel.flush()
        if not self._channel.wants_write and self._loop is not None:
            self._loop.remove_writer(self._channel.fileno())
            self._writing = False
