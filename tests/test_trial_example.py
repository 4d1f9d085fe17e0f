"""What the trial account calls a tool with is allowed by the tool's schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import orjson
import pytest

from gateway.trial.example import example

EXEC = {
    "type": "object",
    "properties": {"cmd": {"type": "string"}, "workdir": {"type": "string"}},
    "required": ["cmd"],
}
SCHEMAS = [
    pytest.param(True, id="anything"),
    pytest.param({}, id="empty"),
    pytest.param({"type": "object"}, id="object-without-properties"),
    pytest.param(EXEC, id="codex-exec-command"),
    pytest.param(
        {
            "type": "object",
            "properties": {
                "command": {"type": "array", "items": {"type": "string"}},
                "timeout_ms": {"type": "number"},
            },
            "required": ["command", "timeout_ms"],
        },
        id="codex-shell",
    ),
    pytest.param(
        {
            "type": "object",
            "properties": {
                "count": {"type": "integer", "minimum": 3, "maximum": 4},
                "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
                "step": {"type": "integer", "multipleOf": 5},
                "low": {"type": "integer", "maximum": -3},
                "when": {"type": "string", "format": "date-time"},
                "long": {"type": "string", "minLength": 60},
                "short": {"type": "string", "maxLength": 4},
                "kind": {"enum": ["a", "b"]},
                "fixed": {"const": 7},
                "maybe": {"type": ["null", "string"]},
                "nothing": {"type": "null"},
                "flag": {"type": "boolean"},
                "items": {"type": "array", "minItems": 2, "items": {"type": "integer"}},
            },
            "required": [
                *("count", "share", "step", "low", "when", "long", "short", "kind"),
                *("fixed", "maybe", "nothing", "flag", "items"),
            ],
            "additionalProperties": False,
        },
        id="every-kind",
    ),
    pytest.param(
        {
            "type": "object",
            "properties": {
                "node": {"$ref": "#/$defs/node"},
                "either": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
                "both": {
                    "allOf": [
                        {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                        {"properties": {"b": {"type": "string"}}, "required": ["b"]},
                    ]
                },
            },
            "required": ["node", "either", "both"],
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "next": {"$ref": "#/$defs/node"},
                    },
                    "required": ["name"],
                }
            },
        },
        id="references-and-choices",
    ),
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_example_is_allowed_by_its_schema(schema: Any) -> None:
    jsonschema.validate(example(schema), schema)


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"$ref": "#"}, id="endless"),
        pytest.param({"$ref": "#/$defs/gone"}, id="points-nowhere"),
        pytest.param({"type": 7, "properties": 7, "required": 7}, id="nonsense"),
        pytest.param({"type": "array", "minItems": 10**9}, id="a-thousand-million"),
        pytest.param({"type": "string", "minLength": 10**9}, id="a-gigabyte"),
        pytest.param({"allOf": [7, {"required": ["a"]}]}, id="odd-parts"),
        pytest.param({"anyOf": [], "enum": []}, id="no-choice"),
    ],
)
def test_an_odd_schema_breaks_nothing(schema: Any) -> None:
    assert len(orjson.dumps(example(schema))) < 20_000
