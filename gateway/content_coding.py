"""
The decoder of compressed bodies: a client's and an upstream's.

Rule 1: a step of decoding is bounded in what it gives and in what it costs, however
        much a few bytes unpack to.
Rule 2: several gzip members or zstd frames are one body. Bytes behind the last one are
        an error, except zeros behind gzip, which tape and block tools pad with.
Rule 3: a body that stops before its own end is cut, even where the framing around it
        is complete.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections import deque

from multidict import CIMultiDictProxy

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 65536
"""The most that one step hands out."""

SLICE_BYTES = 16384
"""The most compressed bytes that one step looks at."""

CALLS_A_STEP = 16
"""Members or frames that give nothing are passed over, so many in one step."""

MAX_WINDOW_LOG = 23
"""
A zstd frame may look back 8 MiB; a decoder needs as much memory.

Source: RFC 9659, 3: frames of the content coding must not need more
"""


class CodingError(Exception):
    """The bytes are not what the content coding says."""


class Decoder:
    """
    Bytes of one content coding to plain bytes.

    ``feed`` it, then take steps until it is hungry.
    """

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._holds = False  # the codec has output for which it needs no input

    @property
    def whole(self) -> bool:
        """Whether the coding's own end has been seen."""
        raise NotImplementedError

    @property
    def hungry(self) -> bool:
        """Whether a step would give nothing before more is fed."""
        return self._at >= len(self._data) and not self._holds

    def feed(self, data: bytes) -> None:
        """Take the next bytes; it must be hungry."""
        self._data, self._at = data, 0

    def step(self) -> bytes:
        """
        The next plain bytes, at most ``PIECE_BYTES``; none after a step that gave
        nothing yet.

        Raises:
            CodingError: the bytes are not of this coding.
        """
        for _ in range(CALLS_A_STEP):
            if self.hungry:
                break
            chunk = self._data[self._at : self._at + SLICE_BYTES]
            try:
                piece, used = self._decode(chunk)
            except (zlib.error, zstd.ZstdError) as error:
                raise CodingError(str(error)) from None
            self._at += used
            if piece:
                return piece
        return b""

    def _decode(self, chunk: bytes) -> tuple[bytes, int]:
        """Plain bytes, and how many of *chunk* are used."""
        raise NotImplementedError


class _Inflater(Decoder):
    """gzip, and deflate with or without the frame of zlib."""

    def __init__(self, coding: str) -> None:
        super().__init__()
        self._gzip = coding == "gzip"
        self._inflate: zlib._Decompress | None = None

    @property
    def whole(self) -> bool:
        return self._inflate is not None and self._inflate.eof

    def _decode(self, chunk: bytes) -> tuple[bytes, int]:
        inflate = self._inflate
        if inflate is None or inflate.eof:
            if inflate is not None:
                member = self._behind(chunk)
                if len(member) < len(chunk):
                    return b"", len(chunk) - len(member)
            inflate = self._inflate = zlib.decompressobj(self._window_bits(chunk[0]))
        piece = inflate.decompress(chunk, PIECE_BYTES)
        left = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        self._holds = len(piece) == PIECE_BYTES and not inflate.eof
        return piece, len(chunk) - len(left)

    def _behind(self, chunk: bytes) -> bytes:
        """*chunk* behind the end of a member, without its padding."""
        if not self._gzip:
            raise CodingError("bytes behind the end")
        return chunk.lstrip(b"\0")

    def _window_bits(self, first: int) -> int:
        """What zlib must expect; plain deflate is sent by some for "deflate"."""
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS


class _Unpacker(Decoder):
    """zstd."""

    def __init__(self) -> None:
        super().__init__()
        self._unpack = _frame()
        self._touched = False

    @property
    def whole(self) -> bool:
        return self._touched and self._unpack.eof

    def _decode(self, chunk: bytes) -> tuple[bytes, int]:
        if self._unpack.eof:
            self._unpack = _frame()
        self._touched = True
        if self._holds:
            chunk = b""
        piece = self._unpack.decompress(chunk, PIECE_BYTES)
        if self._unpack.eof:
            self._holds = False
            return piece, len(chunk) - len(self._unpack.unused_data)
        self._holds = not self._unpack.needs_input
        return piece, len(chunk)


def _frame() -> zstd.ZstdDecompressor:
    options: dict[int, int] = {
        zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG
    }
    return zstd.ZstdDecompressor(options=options)


def content_coding(headers: CIMultiDictProxy[str]) -> str:
    """The coding of a body in lower case, ``""`` for none."""
    codings = ",".join(headers.getall("content-encoding", ())).lower().split(",")
    names = [name.strip().removeprefix("x-") for name in codings]
    return ",".join(name for name in names if name not in ("", "identity"))


def maybe_decoder(coding: str) -> Decoder | None:
    """The decoder of *coding*, None for one that is not known."""
    if coding in ("gzip", "deflate"):
        return _Inflater(coding)
    return _Unpacker() if coding == "zstd" else None


class DecodeScheduler:
    """
    Shares the event loop's time for decoding: one step in each pass of the loop, for
    all bodies in turn. So a thousand steps of one body delay the others by one each.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._called = False

    async def wait(self) -> None:
        """Return when the next step may be taken."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        if not self._called:
            self._called = True
            loop.call_soon(self._call, loop)
        await waiter

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else it was cancelled
                waiter.set_result(None)
                break
        self._called = bool(self._waiting)
        if self._called:
            loop.call_soon(self._call, loop)
