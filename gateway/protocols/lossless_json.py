"""
JSON whose whole numbers keep their digits, however many they are.

orjson makes a float of what exceeds 64 bits, and refuses to write it. Python's own
reader and writer do not; they are several times slower, so they are asked only where a
body holds a number that is long enough.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

LONG = 19
"""Digits of the shortest whole number that can exceed 64 bits."""
_DIGITS = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_RUN = b"0" * LONG


def has_long_number(data: bytes) -> bool:
    """Whether *data* holds a run of digits that may be such a number."""
    return len(data) > LONG and _RUN in data.translate(_DIGITS)


def loads(data: bytes) -> Any:
    """
    *data* as JSON, with its whole numbers as they are.

    Raises:
        orjson.JSONDecodeError: it is none.
    """
    value = orjson.loads(data)
    if not has_long_number(data):
        return value
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # thousands of digits, or too deep
        return value


def dumps(value: Any) -> bytes:
    """
    *value* as compact JSON.

    Raises:
        TypeError: it is nested too deeply.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as problem:
        if "64-bit" not in str(problem):
            raise
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            raise problem from None
        return text.encode("utf-8", "replace")
