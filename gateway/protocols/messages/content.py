"""Messages content blocks ⇄ neutral parts."""

from __future__ import annotations

import re
from typing import Any

from gateway.protocols.json_reader import Node, Unsupported, refuse
from gateway.protocols.media import PDF, checked_file, checked_image, decoded_text
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

_INDEX = re.compile(r"\[\d+\]")


def read_mark(node: Node) -> CacheTtl | None:
    """``cache_control`` of a block, a tool or the whole request."""
    mark = node.maybe("cache_control")
    if mark is None:
        return None
    return "1h" if mark.text("ttl") == "1h" else "5m"


def write_mark(body: dict[str, Any], cache: CacheTtl | None) -> dict[str, Any]:
    """*body* with its cache mark, if it has one."""
    if cache is not None:
        body["cache_control"] = {"type": "ephemeral"}
        if cache == "1h":
            body["cache_control"]["ttl"] = "1h"
    return body


def read_parts(request: Request, node: Node, key: str) -> list[Part]:
    """A ``content`` that is a string, a list of blocks, or absent."""
    value = node.get(key)
    if isinstance(value, str):
        return [Text(value, path=node.at(key))]
    parts: list[Part] = []
    for block in node.nodes(key):
        parts += read_part(request, block)
    return parts


def read_part(request: Request, node: Node) -> list[Part]:
    """
    The neutral parts of one block that any side may show.

    Raises:
        Unsupported: an unknown block, a vendor's file.
    """
    kind = node.text("type")
    if kind == "text":
        if node.many("citations"):
            request.drop("messages[].content[].citations")
        return [Text(node.text("text"), read_mark(node), node.path)]
    if kind == "image":
        return [_read_image(node)]
    if kind == "document":
        return _read_document(request, node)
    if kind == "search_result":
        return _read_search_result(node)
    if kind == "tool_reference":
        text = f"Tool loaded: {node.text('tool_name')}"
        return [Text(text, read_mark(node), node.path)]
    if not kind:
        refuse(node.at("type"), "is missing")
    raise Unsupported(node.path)


def _read_image(node: Node) -> Image:
    source = node.need("source")
    image = Image(cache=read_mark(node), path=node.path)
    kind = source.text("type")
    if kind == "base64":
        image.media_type = source.need_text("media_type").lower()
        image.data = source.text("data")
    elif kind == "url":
        image.url = source.need_text("url")
    else:
        _refuse_source(source)
    return image


def _read_document(request: Request, node: Node) -> list[Part]:
    source = node.need("source")
    file = File(node.text("title"), cache=read_mark(node), path=node.path)
    kind = source.text("type")
    for hint in ("citations", "context"):
        if node.has(hint):
            request.drop(node.at(hint))
    if kind == "content":
        parts = read_parts(request, source, "content")
        return [Text(file.name, path=node.path), *parts] if file.name else parts
    if kind == "base64":
        file.media_type = (source.text("media_type") or PDF).lower()
        file.data = source.text("data")
    elif kind == "text":
        file.media_type, file.text = "text/plain", source.text("data")
    elif kind == "url":
        file.url = source.need_text("url")
    else:
        _refuse_source(source)
    return [file]


def _refuse_source(source: Node) -> None:
    if source.text("type") == "file":
        raise Unsupported(source.at("file_id"))
    if not source.has("type"):
        refuse(source.at("type"), "is missing")
    raise Unsupported(source.path)


def _read_search_result(node: Node) -> list[Part]:
    head = "\n".join(text for key in ("title", "source") if (text := node.text(key)))
    body = "\n".join(part.text("text") for part in node.nodes("content"))
    text = f"{head}\n\n{body}" if head and body else head or body
    return [Text(text, read_mark(node), node.path)]


def write_blocks(
    parts: list[Part], request: Request, options: Options
) -> list[dict[str, Any]]:
    """
    *parts* as blocks; blank texts, which Messages refuses, are left out.

    Raises:
        Unsupported: what the upstream cannot be shown.
    """
    return [
        write_mark(block, getattr(part, "cache", None))
        for part in parts
        if (block := _write_block(part, request, options)) is not None
    ]


def _write_block(
    part: Part, request: Request, options: Options
) -> dict[str, Any] | None:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "text", "text": text} if text.strip() else None
        case Image():
            if part.detail not in ("", "auto"):
                request.drop(f"{part.path}.detail")
            part = checked_image(part, "messages", options)
            return {"type": "image", "source": _image_source(part)}
        case File():
            part = checked_file(part, "messages", options)
            block: dict[str, Any] = {
                "type": "document",
                "source": _document_source(part),
            }
            if part.name:
                block["title"] = part.name
            return block
        case Audio():
            raise Unsupported(part.path)


def _image_source(image: Image) -> dict[str, Any]:
    if image.url:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _document_source(file: File) -> dict[str, Any]:
    if file.url:
        return {"type": "url", "url": file.url}
    text = decoded_text(file)
    if text is not None:
        return {"type": "text", "media_type": "text/plain", "data": text}
    if file.media_type != PDF:
        raise Unsupported(file.path)
    return {"type": "base64", "media_type": PDF, "data": file.data}


def anywhere(path: str) -> str:
    """*path* without its positions: ``messages[].content[].cache_control``."""
    return _INDEX.sub("[]", path)
