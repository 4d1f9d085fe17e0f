"""Images and documents: data URLs, media types, and text inside base64."""

from __future__ import annotations

import base64
import binascii
import re

from gateway.protocols.model import File, Image

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
    """The media type that a file name tells; "" if none."""
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
