"""
How a tool that is no function rides in one, and comes out again.

A free-form tool takes ``{"input": text}``; the built-in tools of Responses take the
fields of their action. Both ways stand here, so that what goes out is read back.
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_reader import dumped, parsed
from gateway.protocols.model import Tool, ToolName

RAW_KEY = "__raw_arguments"
"""Messages wants an object as input: text that is none is carried under this key."""

EMPTY_SCHEMA: dict[str, Any] = {"type": "object", "properties": {}}

_TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_TEXTS = {"type": "array", "items": _TEXT}

_CUSTOM = {
    "type": "object",
    "properties": {"input": _TEXT},
    "required": ["input"],
    "additionalProperties": False,
}
_BUILT_IN: dict[str, tuple[str, dict[str, Any]]] = {
    "local_shell": (
        "Run a command on the user's machine and return its output.",
        {
            "type": "object",
            "properties": {
                "command": _TEXTS,
                "workdir": _TEXT,
                "timeout_ms": _WHOLE,
                "env": {"type": "object", "additionalProperties": _TEXT},
            },
            "required": ["command"],
        },
    ),
    "shell": (
        "Run shell commands on the user's machine and return their output.",
        {
            "type": "object",
            "properties": {
                "commands": _TEXTS,
                "timeout_ms": _WHOLE,
                "max_output_length": _WHOLE,
            },
            "required": ["commands"],
        },
    ),
    "apply_patch": (
        "Create, update or delete one file. `diff` holds the new lines of the file, "
        "or the changed hunks in the V4A form; it is left out for delete_file.",
        {
            "type": "object",
            "properties": {
                "operation": {
                    "type": "object",
                    "properties": {
                        "type": {
                            "type": "string",
                            "enum": ["create_file", "update_file", "delete_file"],
                        },
                        "path": _TEXT,
                        "diff": _TEXT,
                    },
                    "required": ["type", "path"],
                }
            },
            "required": ["operation"],
        },
    ),
    "tool_search": (
        "Search the tools that are not loaded yet.",
        {"type": "object", "properties": {"query": _TEXT}, "required": ["query"]},
    ),
}


def carried(tool: Tool) -> tuple[str, dict[str, Any]]:
    """Description and JSON schema of the function that carries *tool*."""
    if tool.kind == "custom":
        return _with_grammar(tool), _CUSTOM
    description, schema = _BUILT_IN.get(tool.kind, ("", EMPTY_SCHEMA))
    if tool.parameters is not None:
        schema = tool.parameters
        if schema.get("type") is None:
            schema = {"type": "object", **schema}
    return tool.description or description, schema


def _with_grammar(tool: Tool) -> str:
    grammar = tool.format or {}
    definition = grammar.get("definition")
    if grammar.get("type") != "grammar" or not isinstance(definition, str):
        return tool.description
    syntax = grammar.get("syntax")
    word = f"{syntax} " if isinstance(syntax, str) and syntax else ""
    rule = f"The value of `input` must match this {word}grammar:\n{definition}"
    return f"{tool.description}\n\n{rule}" if tool.description else rule


def wrap(kind: str, arguments: str) -> str:
    """A call's arguments as the carrying function's JSON text."""
    if kind == "custom":
        return dumped({"input": arguments})
    return arguments if arguments.strip() else "{}"


def unwrap_custom(arguments: str) -> str:
    """
    The free text out of the carrying function's JSON text; a model that ignored
    the schema has its whole text taken as the input.
    """
    value = parsed(arguments)
    if not isinstance(value, dict):
        return value if isinstance(value, str) else arguments
    text = value.get("input")
    if isinstance(text, str):
        return text
    return "" if not value else arguments


def as_object(arguments: str) -> dict[str, Any]:
    """JSON text as the object that Messages wants; other text under ``RAW_KEY``."""
    if not arguments.strip():
        return {}
    value = parsed(arguments)
    return value if isinstance(value, dict) else {RAW_KEY: arguments}


def as_arguments(value: dict[str, Any]) -> str:
    """The way back of ``as_object``."""
    raw = value.get(RAW_KEY)
    return raw if isinstance(raw, str) and len(value) == 1 else dumped(value)


# -------------------------------------------------- Responses' own call items

_SHELL_FIELDS = ("command", "env", "timeout_ms", "user")


def local_shell_fields(action: dict[str, Any]) -> dict[str, Any]:
    """``local_shell_call.action`` as the carrying function's fields."""
    fields = {key: action[key] for key in _SHELL_FIELDS if action.get(key) is not None}
    if action.get("working_directory") is not None:
        fields["workdir"] = action["working_directory"]
    return fields


def local_shell_action(fields: dict[str, Any]) -> dict[str, Any]:
    """The way back; a model's single string becomes a one-word command."""
    command = fields.get("command")
    if isinstance(command, str):
        command = ["bash", "-lc", command]
    words = [str(word) for word in command] if isinstance(command, list) else []
    env = fields.get("env")
    pairs = env.items() if isinstance(env, dict) else ()
    action: dict[str, Any] = {
        "type": "exec",
        "command": words,
        "env": {str(key): str(value) for key, value in pairs},
    }
    for source, target, kind in (
        ("timeout_ms", "timeout_ms", int),
        ("user", "user", str),
        ("workdir", "working_directory", str),
    ):
        value = fields.get(source)
        if isinstance(value, kind) and not isinstance(value, bool):
            action[target] = value
    return action


def call_item(tool: ToolName, call_id: str, arguments: str) -> dict[str, Any]:
    """
    The Responses item of a call that came back by a carrying function; without
    ``id`` and ``status``, which the writer of the stream owns.
    """
    if tool.kind == "custom":
        item = {"type": "custom_tool_call", "call_id": call_id, "name": tool.name}
        item["input"] = unwrap_custom(arguments)
        return _in_namespace(item, tool)
    if tool.kind == "function" or tool.kind not in _BUILT_IN:
        item = {"type": "function_call", "call_id": call_id, "name": tool.name}
        item["arguments"] = arguments if arguments.strip() else "{}"
        return _in_namespace(item, tool)
    fields = as_object(arguments)
    built_in: dict[str, Any] = {"type": f"{tool.kind}_call", "call_id": call_id}
    if tool.kind == "local_shell":
        built_in["action"] = local_shell_action(fields)
    elif tool.kind == "shell":
        built_in["action"] = _shell_action(fields)
    elif tool.kind == "apply_patch":
        operation = fields.get("operation")
        built_in["operation"] = operation if isinstance(operation, dict) else fields
    else:
        built_in["execution"] = "client"
        built_in["arguments"] = fields
    return built_in


def _in_namespace(item: dict[str, Any], tool: ToolName) -> dict[str, Any]:
    if tool.namespace:
        item["namespace"] = tool.namespace
    return item


def _shell_action(fields: dict[str, Any]) -> dict[str, Any]:
    commands = fields.get("commands")
    if isinstance(commands, str):
        commands = [commands]
    return {
        "commands": (
            [str(line) for line in commands or ()] if isinstance(commands, list) else []
        ),
        "timeout_ms": fields.get("timeout_ms"),
        "max_output_length": fields.get("max_output_length"),
    }
