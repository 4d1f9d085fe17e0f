"""
A reply whose body an upstream compressed although it was asked not to.

Rule 1: what was compressed is handed out in pieces of bounded size, however much a
        few bytes unfold to.
Rule 2: a compressed body that stops before its own end was cut, even where the
        framing around it is whole.
"""

from __future__ import annotations

import sys
import zlib
from typing import Protocol

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.errors import UpstreamError
from gateway.transport.reply import STOP, Feed, Reply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 65536
"""The most that one step of decoding hands out."""


class Decoder(Protocol):
    """Bytes of one content coding to plain bytes, at most ``PIECE_BYTES`` a step."""

    @property
    def whole(self) -> bool:
        """Whether the coding's own end has been seen."""
        ...

    def decode(self, data: bytes) -> bytes:
        """Take *data*, give plain bytes; ``b""`` when it needs more data."""
        ...


class _Inflater:
    """gzip, with members one after another, and deflate, with or without zlib."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding == "gzip"
        self._inflate: zlib._Decompress | None = None
        self._rest = b""
        self._full = False  # zlib may hold more for which it needs no input

    @property
    def whole(self) -> bool:
        return self._inflate is not None and self._inflate.eof and not self._rest

    def decode(self, data: bytes) -> bytes:
        data = self._rest + data
        self._rest = b""
        while data or self._full:
            if self._inflate is None or self._inflate.eof:
                if self._inflate is not None and not self._gzip:
                    return b""  # nothing can follow the end of "deflate"
                self._inflate = zlib.decompressobj(self._window_bits(data[0]))
            piece = self._inflate.decompress(data, PIECE_BYTES)
            ended = self._inflate.eof
            data = self._inflate.unused_data if ended else self._inflate.unconsumed_tail
            self._full = len(piece) == PIECE_BYTES and not ended
            if piece:
                self._rest = data
                return piece
        return b""

    def _window_bits(self, first: int) -> int:
        """What zlib must expect; plain deflate is sent by some for "deflate"."""
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS


class _Unpacker:
    """zstd, with frames one after another."""

    def __init__(self) -> None:
        self._unpack = zstd.ZstdDecompressor()
        self._rest = b""
        self._fresh = True

    @property
    def whole(self) -> bool:
        return self._unpack.eof and not self._rest

    def decode(self, data: bytes) -> bytes:
        data = self._rest + data
        self._rest = b""
        while data or not (self._fresh or self._unpack.needs_input):
            if self._unpack.eof:
                self._unpack = zstd.ZstdDecompressor()
            self._fresh = False
            piece = self._unpack.decompress(data, PIECE_BYTES)
            data = b""
            if self._unpack.eof:
                self._fresh = True
                data = self._unpack.unused_data
            if piece:
                self._rest = data
                return piece
        return b""


def content_coding(headers: CIMultiDictProxy[str]) -> str:
    """The coding of a body in lower case, ``""`` for none."""
    codings = ",".join(headers.getall("content-encoding", ())).lower().split(",")
    names = [name.strip().removeprefix("x-") for name in codings]
    return ",".join(name for name in names if name not in ("", "identity"))


def decoded(reply: Reply) -> Reply:
    """
    *reply* itself, or one that decodes it if its head says that it is compressed.

    Raises:
        UpstreamError: "upstream_malformed" for a coding that is not known; the
            reply is closed then.
    """
    if "content-encoding" not in reply.headers:
        return reply
    coding = content_coding(reply.headers)
    if not coding:
        return reply
    if coding in ("gzip", "deflate"):
        return DecodedReply(reply, _Inflater(coding))
    if coding == "zstd":
        return DecodedReply(reply, _Unpacker())
    reply.close()
    raise UpstreamError(
        "upstream_malformed", detail=f"content-encoding {coding[:80]} is not known"
    )


class DecodedReply:
    """
    A Reply over another; its headers lack the coding and the length.

    XXX: the pump wakes its task for every piece. That is the price of a case that
    we ask upstreams not to make.
    """

    def __init__(self, reply: Reply, decoder: Decoder) -> None:
        self._reply = reply
        self._decoder = decoder
        self._touched = False
        headers = CIMultiDict(reply.headers)
        headers.popall("content-encoding", None)
        headers.popall("content-length", None)
        self.status = reply.status
        self.headers = CIMultiDictProxy(headers)

    @property
    def idle_timeout_s(self) -> float:
        return self._reply.idle_timeout_s

    @idle_timeout_s.setter
    def idle_timeout_s(self, seconds: float) -> None:
        self._reply.idle_timeout_s = seconds

    async def read(self) -> bytes:
        piece = self._decode(b"")
        while not piece:
            data = await self._reply.read()
            if not data:
                self._check_whole()
                return b""
            self._touched = True
            piece = self._decode(data)
        return piece

    async def body(self, limit_bytes: int) -> bytes:
        whole = bytearray()
        while piece := await self.read():
            whole += piece
            if len(whole) > limit_bytes:
                raise too_large(limit_bytes)
        return bytes(whole)

    async def pump(self, feed: Feed) -> None:
        while piece := await self.read():
            outcome = feed(piece)
            if outcome is STOP:
                return
            if outcome is not None:
                await outcome

    def close(self, linger_s: float = 0.0) -> None:
        self._reply.close(linger_s)

    def _decode(self, data: bytes) -> bytes:
        try:
            return self._decoder.decode(data)
        except (zlib.error, zstd.ZstdError) as exc:
            raise UpstreamError("upstream_malformed", detail=repr(exc)) from exc

    def _check_whole(self) -> None:
        # an empty body (204, HEAD) was not compressed, whatever its head says
        if self._touched and not self._decoder.whole:
            raise UpstreamError(
                "upstream_cut", detail="the compressed body stops before its end"
            )


def too_large(limit_bytes: int) -> UpstreamError:
    """The failure of a body above *limit_bytes*."""
    return UpstreamError(
        "upstream_too_large", detail=f"the body has more than {limit_bytes} bytes"
    )
