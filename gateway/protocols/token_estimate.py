"""
How many tokens a request is, estimated where no upstream can be asked.

The rule, the same for the three protocols:

* text: 3.5 characters a token while they are ASCII, 2 for other alphabetic scripts,
  1 for the rest (Chinese, Japanese, Korean, emoji);
* a tool: its JSON as text, and 12;
* a message or item: 4;
* an image: 1600, with ``detail: "low"`` 85; a PDF: a token for 60 of its bytes, at
  least 1500; sound: a token for 500 bytes;
* proofs of reasoning, ids, cache marks and settings: nothing;
* a request: 8.

It errs on the high side for prose (about a tenth) and is near for code; a client
that trims its context by it trims a little early.
"""

from __future__ import annotations

import math
from typing import Any

from gateway.protocols.lossless_json import dumps

REQUEST_TOKENS = 8
ITEM_TOKENS = 4
TOOL_TOKENS = 12
IMAGE_TOKENS = 1600
IMAGE_LOW_TOKENS = 85
PDF_TOKENS_MIN = 1500
PDF_BYTES_A_TOKEN = 60
SOUND_BYTES_A_TOKEN = 500
ASCII_CHARACTERS_A_TOKEN = 3.5
ALPHABET_CHARACTERS_A_TOKEN = 2.0
ALPHABETS_END = 0x2000  # code points below: Latin, Greek, Cyrillic, Arabic …

_PARTS_OF_PROMPT = ("system", "instructions", "messages", "input")
_SILENT = frozenset(
    (
        "type",
        "id",
        "call_id",
        "tool_call_id",
        "tool_use_id",
        "role",
        "status",
        "phase",
        "detail",
        "signature",
        "encrypted_content",
        "cache_control",
        "prompt_cache_breakpoint",
        "media_type",
        "filename",
        "format",
        "url",
        "file_url",
        "file_id",
    )
)
_IMAGES = frozenset(("image", "input_image", "image_url", "computer_screenshot"))


def estimate_tokens(body: dict[str, Any]) -> int:
    """The tokens of a request's prompt, at least 1; any protocol, any shape."""
    total: float = REQUEST_TOKENS
    for key in _PARTS_OF_PROMPT:
        value = body.get(key)
        total += _walked(value)
        if isinstance(value, list):
            total += ITEM_TOKENS * len(value)
    for key in ("tools", "functions"):
        total += _tools_tokens(body.get(key))
    return max(1, math.ceil(total))


def text_tokens(text: str) -> float:
    """The tokens of plain *text*."""
    if text.isascii():
        return len(text) / ASCII_CHARACTERS_A_TOKEN
    plain = alphabets = 0
    for character in text:
        if character < "\x80":
            plain += 1
        elif ord(character) < ALPHABETS_END:
            alphabets += 1
    rest = len(text) - plain - alphabets
    return (
        plain / ASCII_CHARACTERS_A_TOKEN
        + alphabets / ALPHABET_CHARACTERS_A_TOKEN
        + rest
    )


def _tools_tokens(tools: Any) -> float:
    if not isinstance(tools, list):
        return 0
    return sum(TOOL_TOKENS + _json_tokens(tool) for tool in tools)


def _json_tokens(value: Any) -> float:
    try:
        return text_tokens(dumps(value).decode())
    except TypeError:  # nested too deeply to be written
        return 0


def _walked(value: Any) -> float:
    """The tokens of every text below *value*; a loop, for JSON may be deep."""
    total = 0.0
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            total += text_tokens(found)
        elif isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            tokens = _media_tokens(found)
            if tokens is not None:
                total += tokens
            elif found.get("type") == "additional_tools":
                total += _tools_tokens(found.get("tools"))
            else:
                waiting += [v for key, v in found.items() if key not in _SILENT]
        elif isinstance(found, (int, float)):
            total += 1
    return total


def _media_tokens(part: dict[str, Any]) -> float | None:
    """The tokens of a part that is no text; None for one that is."""
    kind = part.get("type")
    if not isinstance(kind, str):
        return None
    if kind in _IMAGES:
        inner = part.get("image_url")
        detail = part.get("detail") or (
            inner.get("detail") if isinstance(inner, dict) else None
        )
        return IMAGE_LOW_TOKENS if detail == "low" else IMAGE_TOKENS
    if kind == "redacted_thinking":
        return 0
    if kind in ("input_file", "file"):
        inner = part.get("file")
        source = inner if isinstance(inner, dict) else part
        return _file_tokens(source.get("file_data"))
    if kind == "document":
        inner = part.get("source")
        if isinstance(inner, dict) and inner.get("type") in ("base64", "url"):
            return _file_tokens(inner.get("data"))
    if kind == "input_audio":
        inner = part.get("input_audio")
        data = inner.get("data") if isinstance(inner, dict) else None
        size = len(data) * 0.75 if isinstance(data, str) else 0
        return size / SOUND_BYTES_A_TOKEN
    return None


def _file_tokens(data: Any) -> float:
    size = len(data) * 0.75 if isinstance(data, str) else 0
    return max(PDF_TOKENS_MIN, size / PDF_BYTES_A_TOKEN)
