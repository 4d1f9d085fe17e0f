"""Parts of Responses messages and tool outputs ⇄ neutral parts."""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_reader import Node, Unsupported, refuse
from gateway.protocols.media import (
    PDF,
    checked_file,
    checked_image,
    data_url,
    data_url_parts,
    encoded_text,
    image_url,
    media_type_of,
)
from gateway.protocols.model import (
    Audio,
    CacheTtl,
    File,
    Image,
    Part,
    Refusal,
    Request,
    Text,
)
from gateway.protocols.options import Options
from gateway.protocols.vendor_limits import limit

BREAKPOINT = "prompt_cache_breakpoint"
TEXT_TYPES = frozenset(("input_text", "output_text", "text"))
ERROR_MARK = "[tool error]"
ENCRYPTED = "encrypted_content"
"""The type of a part that only OpenAI's own models can read."""

_AUDIO_FORMATS = {"mpeg": "mp3", "wave": "wav", "vnd.wave": "wav"}


def read_content(request: Request, node: Node, key: str) -> list[Part]:
    """
    A ``content`` or ``output`` that is a string or a list of parts.

    Raises:
        Unsupported: a part that has no neutral form, or is unknown and has no text.
    """
    value = node.get(key)
    if isinstance(value, str):
        return [Text(value, path=node.at(key))]
    parts: list[Part] = []
    for part in node.nodes(key):
        if part.text("type") == ENCRYPTED:
            request.drop(part.path)
        else:
            parts.append(_read_part(part))
    return parts


def _read_part(node: Node) -> Part:
    kind = node.text("type")
    if kind in TEXT_TYPES or kind and isinstance(node.get("text"), str):
        return Text(node.text("text"), read_breakpoint(node), node.path)
    if kind == "refusal":
        return Refusal(node.text("refusal"), node.path)
    if kind == "input_image":
        return read_image(node, node.text("image_url"), "image_url")
    if kind == "input_file":
        return _read_file(node)
    if kind == "input_audio":
        return _read_audio(node)
    if not kind:
        refuse(node.at("type"), "is missing")
    raise Unsupported(node.path)


def _read_audio(node: Node) -> Audio:
    """Audio in the SDKs' form, or in that of Codex: a data URL as ``audio_url``."""
    if not node.has("audio_url"):
        if node.has("file_id"):
            raise Unsupported(node.at("file_id"))
        sound = node.need("input_audio")
        return Audio(sound.need_text("data"), sound.need_text("format"), node.path)
    inline = data_url_parts(node.text("audio_url"))
    if inline is None:
        raise Unsupported(node.at("audio_url"))
    media_type, data = inline
    form = media_type.removeprefix("audio/").removeprefix("x-")
    return Audio(data, _AUDIO_FORMATS.get(form, form), node.path)


def read_breakpoint(node: Node) -> CacheTtl | None:
    """The cache mark of a part; a lifetime above 5 minutes becomes an hour."""
    mark = node.maybe(BREAKPOINT)
    if mark is None:
        return None
    return "1h" if mark.text("ttl") in ("30m", "12h", "1h") else "5m"


def read_image(node: Node, url: str, key: str) -> Image:
    """
    An image from its *url*; a data URL is split into media type and data.

    Raises:
        Unsupported: a vendor's file id.
        ClientError: neither URL nor file id.
    """
    if not url and node.has("file_id"):
        raise Unsupported(node.at("file_id"))
    if not url:
        refuse(node.at(key), "must be a non-empty string")
    image = Image(
        detail=node.text("detail"), cache=read_breakpoint(node), path=node.path
    )
    inline = data_url_parts(url)
    if inline is not None:
        image.media_type, image.data = inline
    elif url.startswith("data:"):
        refuse(node.at(key), "must be a base64 data URL")
    else:
        image.url = url
    return image


def _read_file(node: Node) -> File:
    data = node.text("file_data")
    url = node.text("file_url")
    if not data and not url:
        if node.has("file_id"):
            raise Unsupported(node.at("file_id"))
        refuse(node.at("file_data"), "must be a non-empty string")
    file = read_file_data(node.text("filename"), data)
    file.url, file.path = url, node.path
    file.cache = read_breakpoint(node)
    return file


def read_file_data(name: str, data: str) -> File:
    """A file by its name and its data URL, or bare base64."""
    inline = data_url_parts(data)
    media_type, data = inline if inline is not None else ("", data)
    return File(name, "", media_type or media_type_of(name) or PDF, data)


def write_parts(
    parts: list[Part], request: Request, options: Options
) -> list[dict[str, Any]]:
    """
    Parts of a user, system or developer message, or of a tool's output.

    Raises:
        Unsupported: audio.
    """
    return [_write_part(part, request, options) for part in parts]


def _write_part(part: Part, request: Request, options: Options) -> dict[str, Any]:
    match part:
        case Text(text=text):
            body: dict[str, Any] = {"type": "input_text", "text": text}
        case Refusal(text=text):
            return {"type": "input_text", "text": text}
        case Image():
            part = checked_image(part, "responses", options)
            body = {"type": "input_image", "image_url": image_url(part)}
            body["detail"] = part.detail or "auto"
            if body["detail"] not in limit("responses", "image_detail"):
                request.drop(f"{part.path}.detail")
                body["detail"] = "auto"
        case File():
            body = _write_file(checked_file(part, "responses", options))
        case Audio():
            raise Unsupported(part.path)
    if part.cache is not None:
        body[BREAKPOINT] = {"mode": "explicit"}
        if part.cache == "1h":
            body[BREAKPOINT]["ttl"] = "12h"
    return body


def _write_file(file: File) -> dict[str, Any]:
    if file.url:
        return {"type": "input_file", "file_url": file.url}
    if file.text is not None:
        data = data_url("text/plain", encoded_text(file.text))
        return {
            "type": "input_file",
            "filename": file.name or "document.txt",
            "file_data": data,
        }
    return {
        "type": "input_file",
        "filename": file.name or "document.pdf",
        "file_data": data_url(file.media_type or PDF, file.data),
    }


def plain_text(parts: list[Part]) -> str | None:
    """The text of no part, or of one without a cache mark; None for other *parts*."""
    if not parts:
        return ""
    if len(parts) == 1:
        part = parts[0]
        if isinstance(part, Refusal) or isinstance(part, Text) and part.cache is None:
            return part.text
    return None


def marked_error(parts: list[Part]) -> list[Part]:
    """*parts* of a failed tool's result, with a text that marks the failure."""
    if parts and isinstance(parts[0], Text):
        first = parts[0]
        text = f"{ERROR_MARK} {first.text}"
        return [Text(text, first.cache, first.path), *parts[1:]]
    return [Text(ERROR_MARK), *parts]
