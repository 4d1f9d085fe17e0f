"""Chat content parts ⇄ neutral parts."""

from __future__ import annotations

from typing import Any

from gateway.protocols.filler_turns import EMPTY
from gateway.protocols.json_reader import Node, Unsupported, refuse
from gateway.protocols.media import (
    PDF,
    checked_file,
    checked_image,
    data_url,
    decoded_text,
    image_url,
)
from gateway.protocols.model import (
    Audio,
    File,
    Image,
    Part,
    Refusal,
    Request,
    Text,
)
from gateway.protocols.options import Options
from gateway.protocols.responses.content import (
    BREAKPOINT,
    read_breakpoint,
    read_file_data,
    read_image,
)
from gateway.protocols.vendor_limits import limit


def read_content(node: Node) -> list[Part]:
    """``content``: a string, a list of parts, or absent."""
    value = node.get("content")
    if isinstance(value, str):
        return [Text(value, path=node.at("content"))]
    return [_read_part(part) for part in node.nodes("content")]


def _read_part(node: Node) -> Part:
    kind = node.text("type")
    if kind == "text":
        return Text(node.text("text"), read_breakpoint(node), node.path)
    if kind == "refusal":
        return Refusal(node.text("refusal"), node.path)
    if kind == "image_url":
        source = node.need("image_url")
        image = read_image(source, source.text("url"), "url")
        image.path, image.cache = node.path, read_breakpoint(node)
        return image
    if kind == "file":
        return _read_file(node)
    if kind == "input_audio":
        sound = node.need("input_audio")
        return Audio(sound.need_text("data"), sound.need_text("format"), node.path)
    if not kind:
        refuse(node.at("type"), "is missing")
    raise Unsupported(node.path)


def _read_file(node: Node) -> File:
    source = node.need("file")
    data = source.text("file_data")
    if not data:
        if source.has("file_id"):
            raise Unsupported(source.at("file_id"))
        refuse(source.at("file_data"), "must be a non-empty string")
    file = read_file_data(source.text("filename"), data)
    file.path, file.cache = node.path, read_breakpoint(node)
    return file


def write_content(
    parts: list[Part], request: Request, options: Options
) -> str | list[dict[str, Any]]:
    """
    A user's parts: one text as a string, else a list. Blank texts are left out, for
    Gemini, Kimi and Mistral refuse them; a turn of nothing else says that it is empty.

    Raises:
        Unsupported: what the upstream cannot be shown.
    """
    said = [part for part in parts if not is_blank(part)]
    forms = [_write_part(part, request, options) for part in said]
    if not forms:
        return EMPTY
    if len(forms) == 1 and forms[0].keys() == {"type", "text"}:
        text: str = forms[0]["text"]
        return text
    return forms


def is_blank(part: Part) -> bool:
    """Whether *part* is a text without a word."""
    return isinstance(part, (Text, Refusal)) and not part.text.strip()


def _write_part(part: Part, request: Request, options: Options) -> dict[str, Any]:
    form: dict[str, Any]
    match part:
        case Text(text=text) | Refusal(text=text):
            form = {"type": "text", "text": text}
        case Image():
            part = checked_image(part, "chat", options)
            form = {"type": "image_url", "image_url": {"url": image_url(part)}}
            if part.detail:
                form["image_url"]["detail"] = _detail(part, request)
        case File():
            form = _write_file(checked_file(part, "chat", options))
        case Audio():
            sound = {"data": part.data, "format": part.format}
            return {"type": "input_audio", "input_audio": sound}
    cache = getattr(part, "cache", None)
    if cache is not None and options.chat_cache_marks:
        form[BREAKPOINT] = {"mode": "explicit"}
        if cache == "1h":
            form[BREAKPOINT]["ttl"] = "12h"
    elif cache is not None:
        request.drop(request.path("cache"))
    return form


def _detail(image: Image, request: Request) -> str:
    """The detail in Chat's words: more than "high" is "high"."""
    if image.detail in limit("chat", "image_detail"):
        return image.detail
    if image.detail == "original":
        return "high"
    request.drop(f"{image.path}.detail")
    return "auto"


def _write_file(file: File) -> dict[str, Any]:
    if file.url:
        raise Unsupported(file.path)
    text = decoded_text(file)
    if text is not None:
        head = f"{file.name}:\n\n" if file.name else ""
        return {"type": "text", "text": head + text}
    if file.media_type not in ("", limit("chat", "file_type")):
        raise Unsupported(file.path)
    data = data_url(PDF, file.data)
    name = file.name or "document.pdf"
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def only_text(parts: list[Part], path: str, joint: str = "") -> str:
    """
    *parts* as one string.

    Raises:
        Unsupported: a part that is no text.
    """
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, (Text, Refusal)):
            raise Unsupported(part.path or path)
        texts.append(part.text)
    return joint.join(texts)
