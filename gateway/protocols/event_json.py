"""
One event's JSON in, one text's JSON out: the two steps that every delta takes.

orjson does the common case; what it refuses although clients read it (half a
surrogate pair, which servers leave when they split a text between two deltas) goes
through the standard library.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from gateway.protocols.sse import payload


class Garbled(Exception):
    """An event holds the beginning of an object, and no JSON."""


def parse(frame: bytes) -> dict[str, Any] | None:
    """
    The object of one event; None if it has none (comments, ``[DONE]``, pings).

    Raises:
        Garbled: when the data begins like an object and is no JSON.
    """
    start = frame.find(b"data:")
    if start < 0:
        return None
    if start == 0 or frame[start - 1] == 10:
        try:
            value = orjson.loads(frame[start + 5 :])
        except orjson.JSONDecodeError:
            value = _parse_slowly(payload(frame))
    else:
        value = _parse_slowly(payload(frame))
    return value if isinstance(value, dict) else None


def _parse_slowly(data: bytes) -> Any:
    """Data of several lines, behind other fields, or with half a surrogate pair."""
    try:
        value = json.loads(data.decode("utf-8", "replace"))
        return _mended(value) if b"\\u" in data else value
    except (ValueError, RecursionError):
        if data.lstrip()[:1] == b"{":
            raise Garbled from None
        return None


# Pieces of a text: the other half of a character may come with the next.
_PIECES = frozenset(
    (
        *("delta", "text", "thinking", "partial_json"),
        *("content", "refusal", "reasoning_content", "reasoning"),
        *("arguments", "input"),
    )
)


def _mended(value: Any, key: str = "") -> Any:
    """*value* without half characters, but for those at the end of a piece."""
    if isinstance(value, str):
        return value if key in _PIECES else joined([value])
    if isinstance(value, dict):
        return {joined([k]): _mended(inner, k) for k, inner in value.items()}
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    return value


def is_done(frame: bytes) -> bool:
    """Whether the event is Chat's ``[DONE]``."""
    return b"[DONE]" in frame and payload(frame).strip() == b"[DONE]"


def quote(text: str) -> bytes:
    """*text* as a JSON string."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return json.dumps(text).encode()


def dump(value: Any) -> bytes:
    """*value* as JSON."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def joined(pieces: list[str]) -> str:
    """*pieces* as one text, surrogate halves that met again made whole."""
    text = "".join(pieces)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def string(value: dict[str, Any], key: str) -> str:
    """The text at *key*; "" for anything else."""
    found = value.get(key)
    return found if isinstance(found, str) else ""
