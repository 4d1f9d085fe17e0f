"""
The channel between the parent and a worker: JSON messages and descriptors.

Rule 1: nothing here blocks but ``wait``, which a worker uses before its event loop.
Rule 2: a frame without a message is a beat: the sender lives.
Rule 3: the peer's end is an ``EOFError``; what cannot be sent to it is dropped.

    frame: 4 bytes length (big endian), then so many bytes of JSON
    descriptors travel with the first byte of the frame whose message says ``"fds": n``
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_FDS = 200  # of one message; Linux takes 253
READ_BYTES = 256 * 1024
BEAT = b"\0\0\0\0"

Message = dict[str, Any]


class Received(NamedTuple):
    """A message and the descriptors that came with it; None for a beat."""

    message: Message | None
    fds: list[int]


class Channel:
    """
    One end.

    Args:
        sock: of a pair of stream sockets; it becomes non-blocking.
        unread: bytes of a frame that another process has begun to read.
    """

    def __init__(self, sock: socket.socket, unread: bytes = b"") -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._in = bytearray(unread)
        self._fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._over = False

    def fileno(self) -> int:
        """The descriptor, for ``poll``."""
        return self._socket.fileno()

    @property
    def unread(self) -> bytes:
        """Bytes of a frame that has not come as a whole."""
        return bytes(self._in)

    @property
    def wants_write(self) -> bool:
        """Whether something waits until the peer reads."""
        return bool(self._out)

    # --- sending ---------------------------------------------------------------------

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send *message* with copies of *fds*, now or when ``flush`` can."""
        if fds:
            message = {**message, "fds": len(fds)}
        text = json.dumps(message, separators=(",", ":")).encode()
        frame = len(text).to_bytes(4, "big") + text
        # The receiver must not get descriptors in the middle of an earlier frame.
        copies = [os.dup(fd) for fd in fds]
        self._out.append((memoryview(frame), copies))
        self.flush()

    def beat(self) -> None:
        """Say that this process lives, unless other words wait already."""
        if not self._out:
            self._out.append((memoryview(BEAT), ()))
            self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it."""
        while self._out:
            data, fds = self._out[0]
            try:
                sent = self._send_some(data, fds)
            except BlockingIOError:
                return
            except OSError:  # the peer is gone; ``receive`` finds out
                self._drop()
                return
            _close(fds)
            if sent < len(data):
                self._out[0] = data[sent:], ()
            else:
                self._out.popleft()

    def _send_some(self, data: memoryview, fds: Sequence[int]) -> int:
        if not fds:
            return self._socket.send(data)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        return self._socket.sendmsg([data], [rights])

    def _drop(self) -> None:
        while self._out:
            _close(self._out.popleft()[1])

    # --- receiving -------------------------------------------------------------------

    def receive(self) -> list[Received]:
        """
        Everything that has come as a whole.

        Raises:
            EOFError: the peer is gone, and everything was received before.
        """
        while not self._over:
            try:
                if not self._read_some():
                    self._over = True
            except BlockingIOError:
                break
            except OSError:
                self._over = True
        received = self._taken()
        if self._over and not received:
            raise EOFError
        return received

    def _read_some(self) -> int:
        space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        data, ancillary, _, _ = self._socket.recvmsg(READ_BYTES, space, flags)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._fds.extend(fds)
        self._in += data
        return len(data)

    def _taken(self) -> list[Received]:
        received: list[Received] = []
        while len(self._in) >= 4:
            length = int.from_bytes(self._in[:4], "big")
            if length > MAX_FRAME_BYTES:
                self._over = True
                break
            if len(self._in) < 4 + length:
                break
            text = bytes(self._in[4 : 4 + length])
            del self._in[: 4 + length]
            message = json.loads(text) if text else None
            count = message.pop("fds", 0) if message else 0
            fds = [self._fds.popleft() for _ in range(min(count, len(self._fds)))]
            received.append(Received(message, fds))
        return received

    def wait(self, timeout_s: float | None = None) -> list[Received]:
        """
        What comes next; nothing at the time-out.

        Raises:
            EOFError: the peer is gone.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.poll(None if timeout_s is None else timeout_s * 1000)
        return self.receive()

    def close(self) -> None:
        """Close this end, and the descriptors that were not taken."""
        self._drop()
        _close(self._fds)
        self._fds.clear()
        self._socket.close()


def _close(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        os.close(fd)
