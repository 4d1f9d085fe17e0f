"""What the first bytes of an image say: its kind and its size in pixels."""

from __future__ import annotations

import base64
import binascii

HEAD_BYTES = 64 * 1024
"""How much of an image is looked at; the size of a JPEG comes after its metadata."""

_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC)))


def head(data: str) -> bytes:
    """The first bytes of base64 *data*; b"" if it is none."""
    start = data[: HEAD_BYTES * 4 // 3 // 4 * 4]
    try:
        return base64.b64decode(start + "=" * (-len(start) % 4))
    except (binascii.Error, ValueError):
        return b""


def kind(begin: bytes) -> str:
    """The media type of an image by its first bytes; "" if they are not known."""
    for mark, media_type in _KINDS:
        if begin.startswith(mark):
            return media_type
    if begin[:4] == b"RIFF" and begin[8:12] == b"WEBP":
        return "image/webp"
    return ""


def longest_side(begin: bytes) -> int:
    """The longer side in pixels; 0 if the first bytes do not say."""
    media_type = kind(begin)
    if media_type == "image/png" and len(begin) >= 24:
        return max(_number(begin[16:20]), _number(begin[20:24]))
    if media_type == "image/gif" and len(begin) >= 10:
        return max(_number(begin[7:5:-1]), _number(begin[9:7:-1]))
    return _jpeg_side(begin) if media_type == "image/jpeg" else 0


def _jpeg_side(begin: bytes) -> int:
    """Go from segment to segment until the one that starts a frame."""
    at = 2
    while at + 9 <= len(begin) and begin[at] == 0xFF:
        if begin[at + 1] in _FRAMES:
            return max(_number(begin[at + 5 : at + 7]), _number(begin[at + 7 : at + 9]))
        at += 2 + max(2, _number(begin[at + 2 : at + 4]))
    return 0


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
