"""
Cut what a websocket server sends into whole frames.

Nearly every frame is a short text in one frame: its payload is taken here. Every other
frame goes whole to the library, which checks it; it costs many times as much.

Source: RFC 6455, 5.2
"""

from __future__ import annotations

from typing import NamedTuple

WHOLE_TEXT = 0x81  # FIN, no reserved bit, opcode 1
_FIN, _OPCODE, _FIRST_CONTROL = 0x80, 0x0F, 8
_TWO_BYTES, _EIGHT_BYTES = 126, 127  # the length follows


class OddFrame(NamedTuple):
    """
    A frame for the library.

    Attributes:
        is_fatal: nothing can be read behind it; *data* may be its head alone.
    """

    data: bytes
    is_fatal: bool = False


class FrameCutter:
    """
    Args:
        max_bytes: the largest payload of a frame.

    Attributes:
        has_odd: whether the frames that ``feed`` returned last hold an odd one.
    """

    def __init__(self, max_bytes: int) -> None:
        self.has_odd = False
        self._max_bytes = max_bytes
        self._held = bytearray()  # of a frame that is not whole
        self._needed = 0  # how many bytes it must have to be looked at again
        self._in_pieces = False  # a message in several frames has begun

    @property
    def is_between(self) -> bool:
        """Whether the next byte begins a frame, and a message with it."""
        return not (self._held or self._in_pieces)

    def feed(self, data: bytes) -> list[bytes | OddFrame]:
        """The frames that *data* completes; a whole text as its payload."""
        self.has_odd = False
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return []
            data = bytes(self._held)
            self._held.clear()
        frames: list[bytes | OddFrame] = []
        at, size, needed = 0, len(data), 2
        while size - at >= 2:
            start, length = at + 2, data[at + 1]
            if length == _TWO_BYTES and size - at >= 4:
                start, length = at + 4, data[at + 2] << 8 | data[at + 3]
            elif length >= _TWO_BYTES:
                start, length = _extended(data, at)
                if start > size:
                    needed = start - at
                    break
                if not 0 <= length <= self._max_bytes:
                    self.has_odd = True
                    frames.append(OddFrame(data[at:start], is_fatal=True))
                    return frames
            end = start + length
            if end > size:
                needed = end - at
                break
            if data[at] == WHOLE_TEXT and not self._in_pieces:
                frames.append(data[start:end])
            else:
                self.has_odd = True
                frames.append(OddFrame(data[at:end]))
                self._note_pieces(data[at])
            at = end
        if at < size:
            self._held += data[at:]
            self._needed = needed
        return frames

    def _note_pieces(self, first: int) -> None:
        if first & _OPCODE < _FIRST_CONTROL:
            self._in_pieces = not first & _FIN


def _extended(data: bytes, at: int) -> tuple[int, int]:
    """
    Where the payload of the frame at *at* begins, and its length: -1 if it is masked,
    which a server must not do. The length counts only if its bytes are there.
    """
    if data[at + 1] > _EIGHT_BYTES:
        return at + 2, -1
    start = at + (4 if data[at + 1] == _TWO_BYTES else 10)
    return start, int.from_bytes(data[at + 2 : start], "big")
