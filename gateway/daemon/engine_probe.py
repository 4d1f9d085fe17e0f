"""
Whether the parent's engine answers: a question each second, without an event loop.

Rule 1: nothing here blocks.
Rule 2: only time that the parent was awake for counts as silence: where both stood
        still, on a machine that was paused or is far too busy, neither is at fault.
"""

from __future__ import annotations

import socket

PING_EVERY_S = 1.0
HUNG_S = 5.0  # a beat of the nodes waits for 1 s; a busy machine may take longer
AWAKE_S = 1.0  # the most that counts between two looks; the parent looks each 0.5 s


class EngineProbe:
    """
    Args:
        path: the socket of the engine.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._sent = False
        self._silent_s = 0.0
        self._looked_at: float | None = None
        self._next_at = 0.0

    def is_hung(self, now: float) -> bool:
        """Look for the answer, or ask; whether the engine is silent for too long."""
        if self._looked_at is not None and self._socket is not None:
            self._silent_s += min(now - self._looked_at, AWAKE_S)
        self._looked_at = now
        if self._socket is None and now >= self._next_at:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.setblocking(False)
            self._next_at = now + PING_EVERY_S
        if self._socket is not None and self._is_answered(self._socket):
            self.close()
        return self._silent_s >= HUNG_S

    def _is_answered(self, asking: socket.socket) -> bool:
        try:
            if not self._sent:
                asking.connect(self._path)
                asking.send(b"PING\r\n")
                self._sent = True
            asking.recv(64)
        except OSError:  # not yet: it listens not, takes no connection, says nothing
            return False
        return True

    def close(self) -> None:
        """Ask no more; what comes next begins anew."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._sent, self._silent_s = None, False, 0.0
