"""
Typed access to a client's JSON: what has the wrong shape is the client's error,
named by its path (``input[0].content[1].text``), never a KeyError.

null counts as absent everywhere, as the vendors do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from gateway.errors import ClientError
from gateway.protocols.lossless_json import dumps, loads

WHOLE_MAX = 2**53


class Unsupported(Exception):
    """
    The client wants something for which the upstream's protocol has no counterpart
    and whose absence would change the answer. ``path``: where it says so.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def refuse(path: str, problem: str) -> NoReturn:
    """
    Raises:
        ClientError: "invalid_request", always; the message is path and *problem*.
    """
    raise ClientError("invalid_request", f"'{path}' {problem}", param=path or None)


def parsed(text: str) -> Any:
    """*text* as JSON; None if it is none (and for null)."""
    try:
        return loads(text.encode())
    except (orjson.JSONDecodeError, UnicodeError):
        return None


def encoded(value: Any) -> bytes:
    """
    *value* as compact JSON, its keys in their order.

    Raises:
        ClientError: it is nested deeper than can be written (about 250 levels).
    """
    try:
        return dumps(value)
    except TypeError as problem:  # orjson's own error is one
        raise ClientError(
            "invalid_request", "The request is nested too deeply", detail=str(problem)
        ) from None


def dumped(value: Any) -> str:
    """*value* as compact JSON text; see ``encoded``."""
    return encoded(value).decode()


class Node:
    """
    One JSON object of the client's body and its path in it.

    It has many methods: one for each type that a member may have.
    """

    __slots__ = ("value", "path")

    def __init__(self, value: Any, path: str = "") -> None:
        """
        Raises:
            ClientError: *value* is no object.
        """
        if not isinstance(value, dict):
            refuse(path or "body", "must be an object")
        self.value: dict[str, Any] = value
        self.path = path

    def at(self, key: str) -> str:
        """The path of *key*."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether *key* is there and not null."""
        return self.value.get(key) is not None

    def get(self, key: str) -> Any:
        """The bare value; None if absent."""
        return self.value.get(key)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            refuse(self.at(key), "must be a string")
        return value

    def need_text(self, key: str) -> str:
        """A string that must be there and say something."""
        value = self.text(key)
        if not value:
            refuse(self.at(key), "must be a non-empty string")
        return value

    def flag(self, key: str) -> bool | None:
        """A boolean."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool):
            refuse(self.at(key), "must be true or false")
        return value

    def number(self, key: str) -> int | float | None:
        """A number from 0; an integer stays one."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            refuse(self.at(key), "must be a number")
        if not value >= 0:  # also nan
            refuse(self.at(key), "must not be negative")
        return value

    def whole(self, key: str) -> int | None:
        """A whole number from 0."""
        value = self.number(key)
        if value is None:
            return None
        if value != value // 1 or value > WHOLE_MAX:
            refuse(self.at(key), "must be a whole number")
        return int(value)

    def maybe(self, key: str) -> Node | None:
        """An object, None if absent."""
        value = self.value.get(key)
        return None if value is None else Node(value, self.at(key))

    def need(self, key: str) -> Node:
        """An object that must be there."""
        return Node(self.value.get(key), self.at(key))

    def many(self, key: str) -> list[Any]:
        """A list; [] if absent."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            refuse(self.at(key), "must be a list")
        return value

    def nodes(self, key: str) -> Iterator[Node]:
        """A list of objects; nothing if absent."""
        for index, value in enumerate(self.many(key)):
            yield Node(value, f"{self.at(key)}[{index}]")

    def texts(self, key: str) -> list[str]:
        """A list of strings; [] if absent."""
        values = self.many(key)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                refuse(f"{self.at(key)}[{index}]", "must be a string")
        return values

    def one_of(self, key: str, *allowed: str) -> str:
        """One of the strings *allowed*; "" if absent."""
        value = self.text(key)
        if value and value not in allowed:
            refuse(self.at(key), f"must be one of {', '.join(allowed)}")
        return value


def strings(value: Any) -> dict[str, str]:
    """The pairs of *value* whose values are strings; {} if it is no object."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
