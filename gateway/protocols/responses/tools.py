"""Responses' tool declarations and tool choice ⇄ neutral ones."""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_reader import Node, Unsupported, refuse
from gateway.protocols.model import (
    CALLABLE,
    Kind,
    Request,
    Tool,
    ToolChoice,
    ToolName,
    Tools,
)
from gateway.protocols.options import Options
from gateway.protocols.tool_carrier import EMPTY_SCHEMA
from gateway.protocols.toolset import counted, described, fitting_schema

_BUILT_IN = ("local_shell", "shell", "apply_patch", "tool_search")
_FUNCTION_HINTS = ("defer_loading", "output_schema", "allowed_callers", "async")


def read_tools(request: Request, node: Node, key: str = "tools") -> None:
    """
    Add the tools under *key*; one that is already declared wins.

    Raises:
        ClientError: a function or custom tool without a name.
    """
    known = {(tool.namespace, tool.name) for tool in request.tools}
    for tool in node.nodes(key):
        for found in _read_tool(request, tool, ""):
            if found.kind == "hosted" or (found.namespace, found.name) not in known:
                known.add((found.namespace, found.name))
                request.tools.append(found)


def _read_tool(request: Request, node: Node, namespace: str) -> list[Tool]:
    kind = node.text("type")
    if kind == "namespace":
        name = node.need_text("name")
        nested: list[Tool] = []
        for tool in node.nodes("tools"):
            nested += _read_tool(request, tool, name)
        return nested
    if kind == "function":
        return [_read_function(request, node, namespace)]
    if kind == "custom":
        name, said = node.need_text("name"), node.text("description")
        form = node.maybe("format")
        grammar = form.value if form is not None else None
        return [Tool("custom", name, namespace, said, format=grammar, path=node.path)]
    if kind in _BUILT_IN and _runs_here(kind, node):
        return [_read_built_in(node, kind)]
    if kind.startswith("web_search"):
        return [_read_web_search(request, node)]
    if not kind:
        refuse(node.at("type"), "is missing")
    return [Tool("hosted", kind, settings=node.value, path=node.path)]


def _read_function(request: Request, node: Node, namespace: str) -> Tool:
    tool = Tool("function", node.need_text("name"), namespace)
    tool.description = node.text("description")
    schema = node.maybe("parameters")
    tool.parameters = schema.value if schema is not None else None
    # Responses is strict by default where the schema allows it; only an explicit
    # value is carried over.
    tool.strict = node.flag("strict")
    tool.path = node.path
    for hint in _FUNCTION_HINTS:
        if node.has(hint) and node.get(hint) is not False:
            request.drop(f"tools[].{hint}")
    return tool


def _runs_here(kind: str, node: Node) -> bool:
    """Whether the client runs the tool, not the vendor."""
    if kind == "tool_search":
        return node.text("execution") == "client"
    place = node.maybe("environment")
    return place is None or place.text("type") in ("", "local")


def _read_built_in(node: Node, kind: str) -> Tool:
    name: Kind = kind  # type: ignore[assignment]  # one of _BUILT_IN
    tool = Tool(name, kind, description=node.text("description"), path=node.path)
    schema = node.maybe("parameters")
    tool.parameters = schema.value if schema is not None else None
    return tool


def _read_web_search(request: Request, node: Node) -> Tool:
    tool = Tool("web_search", "web_search", path=node.path)
    filters = node.maybe("filters")
    if filters is not None:
        for key in ("allowed_domains", "blocked_domains"):
            domains = filters.texts(key)
            if domains:
                tool.settings[key] = domains
    place = node.maybe("user_location")
    if place is not None:
        known = {key: value for key, value in place.value.items() if value is not None}
        tool.settings["user_location"] = known
    for key in ("search_context_size", "external_web_access", "search_content_types"):
        if node.has(key):
            tool.settings[key] = node.get(key)
    return tool


def read_choice(node: Node) -> ToolChoice:
    """``tool_choice``: a word or an object."""
    value = node.get("tool_choice")
    if value is None:
        return ToolChoice()
    if isinstance(value, str):
        word = node.one_of("tool_choice", "auto", "none", "required")
        return ToolChoice(word)  # type: ignore[arg-type]  # just checked
    choice = node.need("tool_choice")
    if choice.text("type") == "allowed_tools":
        mode = choice.one_of("mode", "auto", "required") or "auto"
        allowed = [_read_name(tool) for tool in choice.nodes("tools")]
        return ToolChoice(mode, allowed=allowed)  # type: ignore[arg-type]
    return ToolChoice("tool", _read_name(choice))


def _read_name(node: Node) -> ToolName:
    kind = node.text("type")
    if kind == "function" or kind == "custom":
        named: Kind = "function" if kind == "function" else "custom"
        return ToolName(named, node.need_text("name"), node.text("namespace"))
    if kind in CALLABLE:
        return ToolName(kind, kind)  # type: ignore[arg-type]  # a member of Kind
    if kind.startswith("web_search"):
        return ToolName("web_search", "web_search")
    if not kind:
        refuse(node.at("type"), "is missing")
    return ToolName("hosted", kind)


def write_tools(
    request: Request, options: Options, names: Tools
) -> list[dict[str, Any]]:
    """
    The tools in Responses' form; tools without one are dropped.

    Raises:
        ClientError, Unsupported: what the server would refuse.
    """
    forms = [_write_tool(tool, request, options, names) for tool in request.tools]
    return counted([form for form in forms if form is not None], options)


def _write_tool(
    tool: Tool, request: Request, options: Options, names: Tools
) -> dict[str, Any] | None:
    if tool.cache is not None:
        request.drop("tools[].cache_control")
    if tool.kind == "web_search":
        return _write_web_search(tool, request)
    if tool.kind == "hosted":
        request.drop(tool.path)
        return None
    name = names.wire_name(ToolName(tool.kind, tool.name, tool.namespace))
    if tool.kind == "custom":
        names.native.add(name)
        form: dict[str, Any] = {"type": "custom", "name": name}
        if tool.description:
            form["description"] = tool.description
        if tool.format is not None:
            form["format"] = tool.format
        return form
    form = {"type": "function", "name": name}
    description = described(tool, request, options)
    if description:
        form["description"] = description
    schema = EMPTY_SCHEMA if tool.parameters is None else tool.parameters
    kind = options.schema_kind("openai")
    form["parameters"] = fitting_schema(tool, schema, request, kind)
    if options.strict:  # without the key OpenAI is strict where the schema allows
        form["strict"] = bool(tool.strict)
    elif tool.strict:
        request.drop(f"{tool.path}.strict")
    return form


def _write_web_search(tool: Tool, request: Request) -> dict[str, Any]:
    form: dict[str, Any] = {"type": "web_search"}
    for key, value in tool.settings.items():
        if key in ("allowed_domains", "blocked_domains"):
            form.setdefault("filters", {})[key] = value
        elif key in ("user_location", "search_context_size"):
            form[key] = value
        elif key != "max_uses":  # this one becomes max_tool_calls
            request.drop(f"{tool.path}.{key}")
    return form


def write_choice(request: Request, names: Tools) -> Any:
    """
    ``tool_choice``; None if the client did not say.

    Raises:
        Unsupported: a forced tool that the upstream cannot have.
    """
    choice = request.choice
    if choice.allowed is not None:
        tools = [_choice_form(name, choice, names) for name in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    if choice.mode == "tool" and choice.tool is not None:
        return _choice_form(choice.tool, choice, names)
    return choice.mode or None


def _choice_form(tool: ToolName, choice: ToolChoice, names: Tools) -> dict[str, Any]:
    if tool.kind == "web_search":
        return {"type": "web_search"}
    if tool.kind == "hosted":
        raise Unsupported(choice.path)
    kind = "custom" if tool.kind == "custom" else "function"
    return {"type": kind, "name": names.wire_name(tool)}
