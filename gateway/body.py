"""
A request's body: read within its limit, decoded, parsed once.

Everything that is wrong with it is the client's own mistake and names what is wrong.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Protocol

import orjson
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from backports import zstd

from gateway.errors import ClientError

READ_TIMEOUT_S = 120.0  # for a body that arrives in drops
_PIECE_BYTES = 256 * 1024
_MAX_DEPTH = 512  # orjson itself stops at 1024


class Ask:
    """
    What every model request says.

    Attributes:
        data: its bytes.
    """

    __slots__ = ("data", "model", "stream", "_document")

    def __init__(
        self, data: bytes, document: dict[str, Any], model: str, stream: bool
    ) -> None:
        self.data = data
        self.model = model
        self.stream = stream
        self._document: dict[str, Any] | None = document

    @property
    def document(self) -> dict[str, Any]:
        """The parsed bytes, parsed again after they were forgotten."""
        if self._document is None:
            self._document = parse_object(self.data)
        return self._document

    def forget_document(self) -> None:
        """Keep the bytes alone; what they are parsed to is several times as large."""
        self._document = None


async def read(request: web.BaseRequest, limit_bytes: int) -> bytes:
    """
    The decoded body of *request*.

    Raises:
        ClientError: "body_too_large", "unsupported_encoding", "invalid_request".
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    content = request.content
    if encoding == "identity" and content.is_eof() and content.exception() is None:
        # It has come together with the head, as it is: nothing to wait for.
        data = content.read_nowait()
        if len(data) > limit_bytes:
            raise _too_large(limit_bytes)
        return data
    return await _decoded(request, encoding, limit_bytes)


async def _decoded(request: web.BaseRequest, encoding: str, limit_bytes: int) -> bytes:
    """The body as it arrives, through the decoder of *encoding*."""
    decoder = _decoder(encoding)
    declared = request.content_length
    if declared is not None and declared > limit_bytes:
        raise _too_large(limit_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        # No timer for what has come together with the head.
        patience_s = None if request.content.is_eof() else READ_TIMEOUT_S
        async with asyncio.timeout(patience_s):
            async for raw in request.content.iter_any():
                for piece in decoder.pieces(raw):
                    size += len(piece)
                    if size > limit_bytes:
                        raise _too_large(limit_bytes)
                    pieces.append(piece)
        decoder.close()
    except _NotEncoded as error:
        raise ClientError(
            "invalid_request", f"The body is not valid {encoding}", detail=str(error)
        ) from None
    except TimeoutError:
        raise ClientError("invalid_request", "The body did not arrive") from None
    except (HttpProcessingError, ValueError, web.RequestPayloadError) as error:
        raise ClientError(
            "invalid_request", "The body is cut or malformed", detail=repr(error)
        ) from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit_bytes: int) -> ClientError:
    return ClientError(
        "body_too_large", f"The request body is larger than {limit_bytes} bytes"
    )


def parse(data: bytes) -> Ask:
    """
    *data* as a model request.

    Raises:
        ClientError: "invalid_request", with the field that is wrong.
    """
    document = parse_object(data)
    model = document.get("model")
    if model is None:
        raise _invalid("model", "'model' is missing")
    if not isinstance(model, str) or not model:
        raise _invalid("model", "'model' must be a non-empty string")
    if len(model) > 256 or not model.isprintable():
        raise _invalid("model", "'model' is not the name of a model")
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _invalid("stream", "'stream' must be true or false")
    return Ask(data, document, model, bool(stream))


def parse_object(data: bytes) -> dict[str, Any]:
    """*data* as a JSON object; see ``parse``."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if not data.strip():
            raise ClientError("invalid_request", "The request body is empty") from None
        raise ClientError(
            "invalid_request", f"The request body is not valid JSON: {error}"
        ) from None
    if not isinstance(document, dict):
        raise ClientError("invalid_request", "The request body must be a JSON object")
    return document


def _invalid(param: str, message: str) -> ClientError:
    return ClientError("invalid_request", message, param=param)


# --- content encodings -----------------------------------------------------------


class _NotEncoded(Exception):
    """The bytes are not what Content-Encoding says."""


class _Decoder(Protocol):
    def pieces(self, raw: bytes) -> list[bytes]: ...
    def close(self) -> None: ...


def _decoder(encoding: str) -> _Decoder:
    if encoding in ("", "identity"):
        return _Identity()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Zlib()
    if encoding == "zstd":
        return _Zstd()
    raise ClientError(
        "unsupported_encoding",
        "The content encoding is not supported; send zstd, gzip or none",
    )


class _Identity:
    def pieces(self, raw: bytes) -> list[bytes]:
        return [raw]

    def close(self) -> None:
        pass


class _Zlib:
    """gzip and deflate; decoded in pieces, so a bomb meets the limit early."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def pieces(self, raw: bytes) -> list[bytes]:
        found = []
        try:
            while raw:
                found.append(self._decoder.decompress(raw, _PIECE_BYTES))
                raw = self._decoder.unconsumed_tail
        except zlib.error as error:
            raise _NotEncoded(str(error)) from None
        return found

    def close(self) -> None:
        if not self._decoder.eof:
            raise _NotEncoded("cut")


class _Zstd:
    def __init__(self) -> None:
        self._decoder = zstd.ZstdDecompressor()

    def pieces(self, raw: bytes) -> list[bytes]:
        found = []
        try:
            found.append(self._decoder.decompress(raw, _PIECE_BYTES))
            while not (self._decoder.eof or self._decoder.needs_input):
                found.append(self._decoder.decompress(b"", _PIECE_BYTES))
            if self._decoder.unused_data:
                raise _NotEncoded("bytes behind the frame")
        except EOFError:
            raise _NotEncoded("bytes behind the frame") from None
        except zstd.ZstdError as error:
            raise _NotEncoded(str(error)) from None
        return found

    def close(self) -> None:
        if not self._decoder.eof:
            raise _NotEncoded("cut")
