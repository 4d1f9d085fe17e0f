"""
What clients send, as dataclasses: a JSON body, or the values of a query string.

Rule 1: unknown, missing and mistyped fields are refused, each by its name.
Rule 2: a field without a default is required. ``UNSET`` as the default tells a field
        that was left out from one that is null.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import orjson

from gateway.endpoints.admin.errors import AdminError, invalid

T = TypeVar("T")

MAX_TEXT_CHARS = 512  # of a single value
MAX_NUMBER = 2**53 - 1  # what every JSON reader keeps exactly


class Unset:
    """The value of a field that was left out."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


def read_json(cls: type[T], data: bytes) -> T:
    """
    *data* as *cls*; no data is an empty object.

    Raises:
        AdminError: "invalid_request", with the field.
    """
    try:
        document = orjson.loads(data) if data.strip() else {}
    except orjson.JSONDecodeError:
        raise AdminError(400, "invalid_request", "The body is not JSON") from None
    if not isinstance(document, dict):
        raise AdminError(400, "invalid_request", "The body must be a JSON object")
    return _object(cls, document, "")


def read_query(cls: type[T], query: Mapping[str, str]) -> T:
    """
    The values of a query string as *cls*. An empty value is one that was left out.

    Raises:
        AdminError: "invalid_request", with the parameter.
    """
    hints = typing.get_type_hints(cls)
    document: dict[str, Any] = {}
    for name, text in query.items():
        if text and name in hints:
            document[name] = _from_text(_plain(hints[name]), name, text)
        elif name not in hints:
            raise invalid(name, "is no parameter of this path")
    return _object(cls, document, "")


def optional(hint: Any) -> bool:
    """Whether *hint* allows None."""
    return types.NoneType in typing.get_args(hint)


def _plain(hint: Any) -> Any:
    """*hint* without None and ``Unset``."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = [
            one for one in typing.get_args(hint) if one not in (types.NoneType, Unset)
        ]
        return kinds[0]
    return hint


def plain_hint(hint: Any) -> Any:
    """The type that a value of *hint* has, where it is neither None nor left out."""
    return _plain(hint)


def _from_text(hint: Any, name: str, text: str) -> Any:
    if hint is int:
        if not (text.isascii() and text.removeprefix("-").isdecimal()):
            raise invalid(name, "must be a whole number")
        return int(text[:20])
    if hint is bool:
        if text not in ("true", "false"):
            raise invalid(name, "must be true or false")
        return text == "true"
    return text


def _object(cls: type[T], document: Mapping[Any, Any], path: str) -> T:
    hints = typing.get_type_hints(cls)
    described: Any = cls
    fields = {one.name: one for one in dataclasses.fields(described)}
    for name in document:
        if name not in fields:
            raise invalid(f"{path}{name}"[:MAX_TEXT_CHARS], "is an unknown field")
    given: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in document:
            given[name] = _value(hints[name], document[name], f"{path}{name}")
        elif (
            spec.default is dataclasses.MISSING
            and spec.default_factory is dataclasses.MISSING
        ):
            raise invalid(f"{path}{name}", "is missing")
    return cls(**given)


def _value(hint: Any, value: Any, path: str) -> Any:
    if value is None:
        if optional(hint):
            return None
        raise invalid(path, "must not be null")
    hint = _plain(hint)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise invalid(path, f"must be one of {', '.join(choices)}")
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise invalid(path, "must be an object")
        return _object(typing.cast(type, hint), value, f"{path}.")
    if hint is datetime:
        return _moment(value, path)
    if hint is str:
        return _text(value, path)
    return _number(hint, value, path)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise invalid(path, "must be a string")
    if len(value) > MAX_TEXT_CHARS:
        raise invalid(path, f"must have at most {MAX_TEXT_CHARS} characters")
    if not value.isprintable():
        raise invalid(path, "must have printable characters alone")
    return value


def _number(hint: Any, value: Any, path: str) -> Any:
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise invalid(path, f"must be {names[hint]}")
    if hint is not bool and not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
        raise invalid(path, "is out of range")
    return value


def _moment(value: Any, path: str) -> datetime:
    """A day or a moment in ISO 8601; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise invalid(path, "must be a moment such as 2026-11-24T09:30Z") from None
