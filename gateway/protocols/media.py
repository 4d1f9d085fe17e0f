"""Images and documents: data URLs, media types, and text inside base64."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re

from gateway.protocols import image_head
from gateway.protocols.json_reader import Unsupported, refuse
from gateway.protocols.model import File, Image
from gateway.protocols.options import Options
from gateway.protocols.vendor_limits import limit, maybe_limit

PDF = "application/pdf"
_TEXT_TYPES = frozenset(
    ("application/json", "application/xml", "application/yaml", "application/toml")
)
_BY_SUFFIX = {
    "pdf": PDF,
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "xml": "application/xml",
}
_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?);base64,", re.IGNORECASE)


def data_url_parts(url: str) -> tuple[str, str] | None:
    """Media type (lower case, "" if unsaid) and base64 text of a data URL."""
    match = _DATA_URL.match(url)
    if match is None:
        return None
    return match[1].strip().lower(), url[match.end() :]


def data_url(media_type: str, data: str) -> str:
    """A data URL of base64 *data*."""
    return f"data:{media_type};base64,{data}"


def image_url(image: Image) -> str:
    """Where the OpenAI protocols find *image*: its URL or a data URL."""
    return image.url or data_url(image.media_type, image.data)


def media_type_of(name: str) -> str:
    """The media type that a file name implies; "" if none."""
    return _BY_SUFFIX.get(name.rpartition(".")[2].lower(), "")


def is_text(media_type: str) -> bool:
    """Whether bytes of *media_type* can be read as text."""
    return media_type.startswith("text/") or media_type in _TEXT_TYPES


def decoded_text(file: File) -> str | None:
    """The text of *file*; None if it has none that can be read."""
    if file.text is not None:
        return file.text
    if not is_text(file.media_type):
        return None
    try:
        return base64.b64decode(file.data, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def encoded_text(text: str) -> str:
    """*text* as base64 of its UTF-8 bytes."""
    return base64.b64encode(text.encode()).decode()


def checked_image(image: Image, protocol: str, options: Options) -> Image:
    """
    *image* with the media type that its bytes have, if a server of *protocol* takes it.

    Raises:
        Unsupported: an image of another kind, or a URL that the server does not fetch.
        ClientError: it is too large.
    """
    if image.url:
        if not options.image_urls:
            raise Unsupported(image.path)
        return image
    begin = image_head.head(image.data)
    named = "image/jpeg" if image.media_type == "image/jpg" else image.media_type
    kind = image_head.kind(begin) or named
    if kind not in limit(protocol, "image_type"):
        raise Unsupported(image.path)
    most = limit(protocol, "image_bytes")
    if len(image.data) > most:
        refuse(image.path, f"is an image of more than {most} bytes of base64")
    side = maybe_limit(protocol, "image_pixels")
    if side and image_head.longest_side(begin) > side:
        refuse(image.path, f"is an image of more than {side} pixels a side")
    return dataclasses.replace(image, media_type=kind)


def checked_file(file: File, protocol: str, options: Options) -> File:
    """
    *file*, if a server of *protocol* reads documents of its size.

    Raises:
        Unsupported: the server reads none.
        ClientError: it is too large.
    """
    if not options.files and decoded_text(file) is None:
        raise Unsupported(file.path)
    most = limit(protocol, "file_bytes")
    if len(file.data) > most:
        refuse(file.path, f"is a file of more than {most} bytes of base64")
    return file
