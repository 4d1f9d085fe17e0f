"""
How the body of a request comes in: within its limits, decoded, or refused.

Rule 1: 60 s of silence end it; a slow but steady one may take as long as it likes.
Rule 2: nothing is read while its user has no room for it.
Rule 3: a client that waits to be asked for its body (``Expect``) is asked when it is
        read, so a refusal comes first.

What is wrong with a body is the client's own mistake, and the message names it.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from gateway.admission.body_room import BodyShare
from gateway.client.connection import forget_buffer
from gateway.content_coding import (
    CodingError,
    Decoder,
    DecodeScheduler,
    content_coding,
    maybe_decoder,
)
from gateway.errors import ClientError

SILENCE_S = 60.0
LAST_LOOK_S = 0.2  # for what came while the process stood still
JOINED_BYTES = 4 * 1024 * 1024  # of a body that is there twice for a moment
JOINED_PIECES = 256
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_Read = TypeVar("_Read")


class Intake:
    """
    Args:
        scheduler: shared with all others who decode.
    """

    def __init__(self, scheduler: DecodeScheduler) -> None:
        self._scheduler = scheduler

    async def read(
        self, request: web.BaseRequest, share: BodyShare, limit_bytes: int
    ) -> bytes:
        """
        The decoded body of *request*; its bytes are in *share*, which is closed.

        Raises:
            ClientError: "body_too_large", "unsupported_encoding", "invalid_request",
                "request_timeout".
        """
        coding = ""
        if hdrs.CONTENT_ENCODING in request.headers:
            coding = content_coding(request.headers)
        if not coding and _has_come(request):
            size = _checked_size(request, limit_bytes)
            await share.room(size, whole=True)
            data = request.content.read_nowait()
            share.take(len(data))
        else:
            data = await self._arriving(request, share, coding, limit_bytes)
        share.close()
        forget_buffer(request.content)
        return data

    def maybe_whole(
        self, request: web.BaseRequest, share: BodyShare, limit_bytes: int
    ) -> bytes | None:
        """
        The body if there is nothing to wait for: it has come together with its head, as
        it is, and there is room for it. Else None, and it is to be ``read``.

        Raises:
            ClientError: "body_too_large".
        """
        if hdrs.CONTENT_ENCODING in request.headers or not _has_come(request):
            return None
        if not share.try_hold(_checked_size(request, limit_bytes)):
            return None
        data = request.content.read_nowait()
        forget_buffer(request.content)
        return data

    async def _arriving(
        self,
        request: web.BaseRequest,
        share: BodyShare,
        coding: str,
        limit_bytes: int,
    ) -> bytes:
        """The body piece by piece, as it arrives."""
        declared = request.content_length
        if declared is not None and declared > limit_bytes:
            raise _too_large(limit_bytes)
        decoder = _decoder_of(coding) if coding else None
        content = request.content
        content.on_eof(lambda: share.wake() if content.at_eof() else None)
        known = 0 if decoder or not declared else declared
        body, pieces = _Body(share, limit_bytes), _Pieces(content, joined=not known)
        asked, need = False, known or 1
        try:
            while not content.at_eof():
                await share.room(need)
                if need > 1:
                    content.set_read_chunk_size(need)  # there is room for all of it
                    need = 1
                asked = asked or _ask_for(request)
                piece = await pieces.next()
                if decoder is None:
                    body.add(piece)
                elif piece:
                    await self._decode(decoder, piece, body)
            if decoder and not decoder.whole:
                raise CodingError("cut")
        except CodingError as error:
            raise ClientError(
                "invalid_request", f"The body is not valid {coding}", detail=str(error)
            ) from None
        except (HttpProcessingError, ValueError, web.RequestPayloadError) as error:
            raise ClientError(
                "invalid_request", "The body is cut or malformed", detail=repr(error)
            ) from None
        return body.data()

    async def _decode(self, decoder: Decoder, data: bytes, body: _Body) -> None:
        """Add what *data* unpacks to, a step at a time."""
        decoder.feed(data)
        while True:
            if piece := decoder.step():
                body.add(piece)
            if decoder.hungry:
                return
            await self._scheduler.wait()
            await body.share.room()


class _Pieces:
    """
    What comes of a body.

    Args:
        joined: what has come together is one piece; else each read is one.
    """

    def __init__(self, content: StreamReader, *, joined: bool) -> None:
        self._content = content
        self._joined = joined
        self._taken = 0

    async def next(self) -> bytes:
        """
        The next piece, b"" at the end.

        Raises:
            ClientError: "request_timeout".
        """
        if self._joined:
            return await self._in_time(self._content.readany)
        read = self._content.readchunk
        is_there = self._content.total_bytes > self._taken
        piece, _ = await (read() if is_there else self._in_time(read))
        self._taken += len(piece)
        return piece

    async def _in_time(self, read: Callable[[], Awaitable[_Read]]) -> _Read:
        for limit_s in (SILENCE_S, LAST_LOOK_S):
            try:
                async with asyncio.timeout(limit_s):
                    return await read()
            except TimeoutError:
                pass
        raise ClientError(
            "request_timeout",
            f"The request body did not arrive: nothing came for {SILENCE_S:.0f} s",
        )


class _Body:
    """
    What has come so far: its pieces, which are joined at the end. Of a larger one, or
    one of many pieces, a buffer: it is copied more often, but takes no more room.
    """

    def __init__(self, share: BodyShare, limit_bytes: int) -> None:
        self.share = share
        self._limit_bytes = limit_bytes
        self._pieces: deque[bytes] = deque()
        self._bytes: io.BytesIO | None = None

    def add(self, piece: bytes) -> None:
        """
        Take *piece*.

        Raises:
            ClientError: "body_too_large".
        """
        self.share.take(len(piece))
        if self.share.size > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        if self._bytes is not None:
            self._bytes.write(piece)
            return
        pieces = self._pieces
        pieces.append(piece)
        if self.share.size > JOINED_BYTES or len(pieces) > JOINED_PIECES:
            self._bytes = io.BytesIO()
            while pieces:
                self._bytes.write(pieces.popleft())

    def data(self) -> bytes:
        """All of it."""
        if self._bytes is not None:
            return self._bytes.getvalue()  # not copied
        return b"".join(self._pieces)


def _has_come(request: web.BaseRequest) -> bool:
    """Whether all of the body is there."""
    content = request.content
    return content.is_eof() and content.exception() is None


def _checked_size(request: web.BaseRequest, limit_bytes: int) -> int:
    """The bytes of a body that has come."""
    size = request.content.total_bytes
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    return size


def _ask_for(request: web.BaseRequest) -> bool:
    """Tell a client that waits for it that its body is wanted."""
    expected = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
    if expected and request.version == HttpVersion11 and request.transport:
        if not request.content.total_bytes:
            request.transport.write(CONTINUE)
    return True


def _decoder_of(coding: str) -> Decoder:
    """
    Raises:
        ClientError: "unsupported_encoding".
    """
    decoder = maybe_decoder(coding)
    if decoder is None:
        raise ClientError(
            "unsupported_encoding",
            "The content encoding is not supported; send zstd, gzip or none",
        )
    return decoder


def _too_large(limit_bytes: int) -> ClientError:
    return ClientError(
        "body_too_large", f"The request body is larger than {limit_bytes} bytes"
    )
