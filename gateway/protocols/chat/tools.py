"""Chat's tool declarations and tool choice ⇄ neutral ones."""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_reader import Node, Unsupported, refuse
from gateway.protocols.model import Request, Tool, ToolChoice, ToolName, Tools
from gateway.protocols.options import Options
from gateway.protocols.tool_carrier import EMPTY_SCHEMA, carried
from gateway.protocols.toolset import (
    counted,
    described,
    fitting_schema,
    named,
    reaching,
)


def read_tools(request: Request, node: Node) -> None:
    """
    ``tools``, the older ``functions``, and ``web_search_options``.

    Raises:
        ClientError: a tool without a name.
    """
    for tool in node.nodes("tools"):
        request.tools.append(_read_tool(tool))
    for function in node.nodes("functions"):
        request.tools.append(_read_function(function))
    search = node.maybe("web_search_options")
    if search is None:
        return
    found = Tool("web_search", "web_search", path=search.path)
    place = search.maybe("user_location")
    if place is not None:
        near = place.maybe("approximate")
        found.settings["user_location"] = {
            "type": "approximate",
            **(near.value if near is not None else {}),
        }
    if search.has("search_context_size"):
        found.settings["search_context_size"] = search.text("search_context_size")
    request.tools.append(found)


def _read_tool(node: Node) -> Tool:
    kind = node.text("type") or "function"
    if kind == "function":
        return _read_function(node.need("function"))
    if kind == "custom":
        source = node.need("custom")
        tool = Tool("custom", source.need_text("name"), path=source.path)
        tool.description = source.text("description")
        form = source.maybe("format")
        if form is not None:
            tool.format = _flat_format(form)
        return tool
    return Tool("hosted", kind, settings=node.value, path=node.path)


def _flat_format(form: Node) -> dict[str, Any]:
    """A custom tool's format as Responses writes it: the grammar not nested."""
    grammar = form.maybe("grammar")
    if grammar is None:
        return form.value
    return {"type": "grammar", **grammar.value}


def _read_function(node: Node) -> Tool:
    schema = node.maybe("parameters")
    return Tool(
        "function",
        node.need_text("name"),
        description=node.text("description"),
        parameters=schema.value if schema is not None else None,
        strict=node.flag("strict"),
        path=node.path,
    )


def read_choice(node: Node) -> ToolChoice:
    """``tool_choice``, or the older ``function_call``."""
    key = "tool_choice" if node.has("tool_choice") else "function_call"
    value = node.get(key)
    if value is None:
        return ToolChoice()
    if isinstance(value, str):
        word = node.one_of(key, "auto", "none", "required")
        return ToolChoice(word, path=key)  # type: ignore[arg-type]  # just checked
    choice = node.need(key)
    if key == "function_call":
        wanted = ToolName("function", choice.need_text("name"))
        return ToolChoice("tool", wanted, path=key)
    if choice.text("type") == "allowed_tools":
        inner = choice.need("allowed_tools")
        mode = inner.one_of("mode", "auto", "required") or "auto"
        names = [_read_name(tool) for tool in inner.nodes("tools")]
        return ToolChoice(mode, allowed=names)  # type: ignore[arg-type]
    return ToolChoice("tool", _read_name(choice))


def _read_name(node: Node) -> ToolName:
    if node.text("type") == "custom":
        return ToolName("custom", node.need("custom").need_text("name"))
    if node.text("type") in ("", "function"):
        return ToolName("function", node.need("function").need_text("name"))
    raise Unsupported(node.path)


# ---------------------------------------------------------------- writing


def write_tools(
    request: Request, options: Options, names: Tools
) -> list[dict[str, Any]]:
    """
    The tools as functions, carrying those that are none.

    Raises:
        ClientError, Unsupported: what the server would refuse.
    """
    kept = counted(reaching(request), options)
    return [_write_tool(tool, request, options, names) for tool in kept]


def _write_tool(
    tool: Tool, request: Request, options: Options, names: Tools
) -> dict[str, Any]:
    if tool.cache is not None:
        request.drop("tools[].cache_control")
    form: dict[str, Any] = {"name": names.wire_name(named(tool))}
    if tool.kind == "function":
        description = described(tool, request, options)
        schema = EMPTY_SCHEMA if tool.parameters is None else tool.parameters
    else:
        description, schema = carried(tool)
    if description:
        form["description"] = description
    kind = options.schema_kind("openai")
    form["parameters"] = fitting_schema(tool, schema, request, kind)
    if tool.strict is not None and options.strict:
        form["strict"] = tool.strict
    elif tool.strict:
        request.drop(f"{tool.path}.strict")
    return {"type": "function", "function": form}


def write_choice(request: Request, names: Tools) -> Any:
    """``tool_choice``; None if the client did not say."""
    choice = request.choice
    if choice.mode == "tool" and choice.tool is not None:
        name = names.wire_name(choice.tool)
        return {"type": "function", "function": {"name": name}}
    if choice.mode == "tool":
        refuse(choice.path, "names no tool")
    return choice.mode or None
