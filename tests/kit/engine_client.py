"""A client of the engine that waits for each answer, for tests of the scripts."""

from __future__ import annotations

import socket
from typing import Any, TypeVar

import hiredis

from gateway.shared.answers import Push, read_push
from gateway.shared.steps import EngineStep, common_channel, key_prefix, node_channel

A = TypeVar("A")


class EngineClient:
    """
    Args:
        path: of the engine's unix socket.
        prefix: of all keys; one of its own for each test.

    Attributes:
        pushes: what was heard and not yet taken, in order.
    """

    def __init__(self, path: str, prefix: str) -> None:
        self.prefix = prefix
        self.pushes: list[Push] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = hiredis.Reader()
        self.command("HELLO", "3")

    def close(self) -> None:
        self._socket.close()

    def listen(self, node: str, *, common: bool = False) -> None:
        """Hear what is pushed to *node*, and what concerns all."""
        self.command("SUBSCRIBE", node_channel(self.prefix, node))
        if common:
            self.command("SUBSCRIBE", common_channel(self.prefix))

    def run(self, step: EngineStep[A], *, twice: bool = False) -> A:
        """The answer to *step*; *twice*: as if the first reply were lost."""
        if twice:
            self._run(step)
        return self._run(step)

    def _run(self, step: EngineStep[A]) -> A:
        keys = (1, key_prefix(self.prefix))
        words = [*keys, *step.words]
        reply = self.command("EVALSHA", step.script.sha, *words)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = self.command("EVAL", step.script.text, *words)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return step.read(reply)

    def command(self, *words: Any) -> Any:
        """The reply to a command."""
        self._socket.sendall(hiredis.pack_command(words))
        while True:
            reply = self._next()
            if not isinstance(reply, hiredis.PushNotification):
                return reply
            if reply[0] == b"subscribe":
                return None
            self.pushes.append(read_push(reply[2]))

    def _next(self) -> Any:
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        return reply

    def heard(self) -> list[Push]:
        """Everything pushed until now, once."""
        self.command("PING")
        pushes, self.pushes = self.pushes, []
        return pushes

    def keys(self) -> dict[str, Any]:
        """All that is stored, without the prefix: the name of a key and its value."""
        start = key_prefix(self.prefix)
        found = {}
        for raw in sorted(self.command("KEYS", start.replace("{", "\\{") + "*")):
            name = raw.decode().removeprefix(start)
            kind = self.command("TYPE", raw)
            kind = kind if isinstance(kind, str) else kind.decode()
            found[name] = self.command(*_READERS[kind](raw))
        return found


_READERS: dict[str, Any] = {
    "string": lambda key: ("GET", key),
    "hash": lambda key: ("HGETALL", key),
    "set": lambda key: ("SMEMBERS", key),
    "zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
    "list": lambda key: ("LRANGE", key, 0, -1),
}
