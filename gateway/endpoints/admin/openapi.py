"""
The description of the admin API, made of its operations and their dataclasses.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from gateway import __version__
from gateway.endpoints.admin.errors import ErrorAnswer
from gateway.endpoints.admin.operations import PREFIX, Operation
from gateway.endpoints.admin.values import (
    MAX_NUMBER,
    MAX_TEXT_CHARS,
    Unset,
    plain_hint,
)

ALWAYS = (400, 401, 403, 404, 413, 429, 500)
"""Statuses that any operation may answer: see ``application`` and ``access``."""

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string", "maxLength": MAX_TEXT_CHARS},
    int: {"type": "integer", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}


def description(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI document of *operations*."""
    schemas = _Schemas()
    failure = _content(schemas.of(ErrorAnswer))
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        item = paths.setdefault(PREFIX + one.path, {})
        item[one.method.lower()] = _operation(one, schemas, failure)
    return {
        "openapi": "3.1.0",
        "info": {"title": "The gateway's admin API", "version": __version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.known,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    one: Operation, schemas: _Schemas, failure: dict[str, Any]
) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done"}
    if one.answer is not None:
        answer["content"] = _content(schemas.of(one.answer), one.media_type)
    elif one.status != 204:
        answer["content"] = {one.media_type: {}}
    refusals = {
        str(status): {"description": "Refused", "content": failure}
        for status in sorted({*ALWAYS, *one.errors})
    }
    document: dict[str, Any] = {
        "summary": one.summary,
        "operationId": _operation_id(one),
        "parameters": [*_path_parts(one.path), *_query(one.query, schemas)],
    }
    document["responses"] = {str(one.status): answer, **refusals}
    if one.body is not None:
        document["requestBody"] = {
            "required": any(map(_required, dataclasses.fields(one.body))),
            "content": _content(schemas.of(one.body, closed=True)),
        }
    return document


def _operation_id(one: Operation) -> str:
    words = re.findall(r"[a-z]+", one.path)
    return "_".join([one.method.lower(), *words])


def _content(
    schema: dict[str, Any], media_type: str = "application/json"
) -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _path_parts(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query(cls: type | None, schemas: _Schemas) -> list[dict[str, Any]]:
    if cls is None:
        return []
    hints = typing.get_type_hints(cls)
    return [
        {
            "name": one.name,
            "in": "query",
            "required": _required(one),
            "schema": schemas.of(plain_hint(hints[one.name])),
            **_documented(one),
        }
        for one in dataclasses.fields(cls)
    ]


def _required(spec: dataclasses.Field[Any]) -> bool:
    return (
        spec.default is dataclasses.MISSING
        and spec.default_factory is dataclasses.MISSING
    )


def _documented(spec: dataclasses.Field[Any]) -> dict[str, Any]:
    text = spec.metadata.get("doc")
    return {"description": text} if text else {}


class _Schemas:
    """JSON schemas of types; each dataclass gets a name of its own."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}

    def of(self, hint: Any, *, closed: bool = False) -> dict[str, Any]:
        """
        Args:
            closed: an object of it has no other fields, since it is read by us.
        """
        if isinstance(hint, types.UnionType):
            kinds = [one for one in typing.get_args(hint) if one is not Unset]
            schemas = [self.of(one, closed=closed) for one in kinds]
            return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        if hint is types.NoneType:
            return {"type": "null"}
        if hint in (Any, object):
            return {}
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is Literal:
            return {"type": "string", "enum": list(args)}
        if origin in (list, tuple):
            return {"type": "array", "items": self.of(args[0], closed=closed)}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.of(args[1])}
        if dataclasses.is_dataclass(hint):
            return self._named(typing.cast(type, hint), closed)
        scalar = dict(_SCALARS[hint])
        if not closed:
            scalar.pop("maxLength", None)
        return scalar

    def _named(self, cls: type, closed: bool) -> dict[str, Any]:
        name = cls.__name__
        if name not in self.known:
            schema = self.known[name] = {}
            schema.update(self._object(cls, closed))
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, cls: type, closed: bool) -> dict[str, Any]:
        hints, fields = typing.get_type_hints(cls), dataclasses.fields(cls)
        schema: dict[str, Any] = {
            "type": "object",
            "description": inspect.getdoc(cls) or "",
            "properties": {
                one.name: {
                    **self.of(hints[one.name], closed=closed),
                    **_documented(one),
                }
                for one in fields
            },
            "required": [one.name for one in fields if _required(one)],
        }
        if closed:
            schema["additionalProperties"] = False
        return schema
