"""Messages' tool declarations and tool choice ⇄ neutral ones."""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_reader import Node, refuse
from gateway.protocols.messages.content import read_mark, write_mark
from gateway.protocols.model import Request, Tool, ToolChoice, ToolName, Tools
from gateway.protocols.options import Options
from gateway.protocols.schema import is_strict
from gateway.protocols.tool_carrier import EMPTY_SCHEMA, carried
from gateway.protocols.toolset import counted, fitting_schema, named, reaching

WEB_SEARCH = "web_search_20250305"

_TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_RANGE = {"type": "array", "items": _WHOLE}


def _schema(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
    }


# Tools whose schema the vendor knows by heart but the client runs: for another
# vendor's model they are functions, described here.
_CLIENT_TOOLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "bash_",
        "Run a command in a shell that keeps its state between calls.",
        _schema("", command=_TEXT, restart={"type": "boolean"}),
    ),
    (
        "text_editor_",
        "View and edit text files: view, create, str_replace or insert.",
        _schema(
            "command path",
            command={
                "type": "string",
                "enum": ["view", "create", "str_replace", "insert"],
            },
            path=_TEXT,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line=_WHOLE,
            insert_text=_TEXT,
            view_range=_RANGE,
        ),
    ),
    (
        "memory_",
        "Keep notes in files below /memories: view, create, str_replace, insert, "
        "delete or rename.",
        _schema(
            "command",
            command={
                "type": "string",
                "enum": [
                    "view",
                    "create",
                    "str_replace",
                    "insert",
                    "delete",
                    "rename",
                ],
            },
            path=_TEXT,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line=_WHOLE,
            insert_text=_TEXT,
            old_path=_TEXT,
            new_path=_TEXT,
            view_range=_RANGE,
        ),
    ),
)
_HINTS = ("defer_loading", "eager_input_streaming", "allowed_callers", "input_examples")


def read_tools(request: Request, node: Node) -> None:
    """
    ``tools``.

    Raises:
        ClientError: a tool of the client without a name.
    """
    for tool in node.nodes("tools"):
        request.tools.append(_read_tool(request, tool))


def _read_tool(request: Request, node: Node) -> Tool:
    kind = node.text("type") or "custom"
    if kind == "custom":
        schema = node.maybe("input_schema")
        for hint in _HINTS:
            if node.has(hint) and node.get(hint) is not False:
                request.drop(f"tools[].{hint}")
        return Tool(
            "function",
            node.need_text("name"),
            description=node.text("description"),
            parameters=schema.value if schema is not None else None,
            strict=_strict(request, node),
            cache=read_mark(node),
            path=node.path,
        )
    for prefix, description, parameters in _CLIENT_TOOLS:
        if kind.startswith(prefix):
            tool = Tool("function", node.text("name") or prefix.rstrip("_"))
            tool.description, tool.parameters = description, parameters
            tool.cache, tool.path = read_mark(node), node.path
            return tool
    if kind.startswith("web_search_2"):
        return _read_web_search(node)
    name = kind if kind == "mcp_toolset" else node.text("name") or kind
    return Tool("hosted", name, settings=node.value, path=node.path)


def _strict(request: Request, node: Node) -> bool | None:
    """Whether every vendor can be strict about the tool; OpenAI takes less."""
    strict, schema = node.flag("strict"), node.get("input_schema")
    if strict and not (isinstance(schema, dict) and is_strict(schema)):
        request.drop("tools[].strict")
        return False
    return strict


def _read_web_search(node: Node) -> Tool:
    tool = Tool("web_search", "web_search", cache=read_mark(node), path=node.path)
    for key in ("allowed_domains", "blocked_domains"):
        domains = node.texts(key)
        if domains:
            tool.settings[key] = domains
    place = node.maybe("user_location")
    if place is not None:
        tool.settings["user_location"] = place.value
    uses = node.whole("max_uses")
    if uses is not None:
        tool.settings["max_uses"] = uses
    return tool


def read_choice(request: Request, node: Node) -> None:
    """``tool_choice``, with its word about parallel calls."""
    choice = node.maybe("tool_choice")
    if choice is None:
        return
    kind = choice.one_of("type", "auto", "any", "none", "tool")
    if choice.flag("disable_parallel_tool_use"):
        request.parallel = False
    if kind == "tool":
        wanted = ToolName("function", choice.need_text("name"))
        request.choice = ToolChoice("tool", wanted)
    elif kind == "any":
        request.choice = ToolChoice("required")
    elif kind:
        request.choice = ToolChoice(kind)  # type: ignore[arg-type]  # just checked
    else:
        refuse(choice.at("type"), "is missing")


# ---------------------------------------------------------------- writing


def write_tools(
    request: Request, options: Options, names: Tools
) -> list[dict[str, Any]]:
    """
    The tools that reach a Messages upstream, functions carrying the others.

    Raises:
        ClientError, Unsupported: what the server would refuse.
    """
    kept = counted(reaching(request, frozenset(("web_search",))), options)
    return [_write_tool(tool, request, options, names) for tool in kept]


def _write_tool(
    tool: Tool, request: Request, options: Options, names: Tools
) -> dict[str, Any]:
    name = names.wire_name(named(tool))
    if tool.kind == "web_search":
        return write_mark(_write_web_search(tool, request), tool.cache)
    if tool.strict:
        request.drop("tools[].strict")
    form: dict[str, Any] = {"name": name}
    if tool.kind == "function":
        description = tool.description
        schema = EMPTY_SCHEMA if tool.parameters is None else tool.parameters
    else:
        description, schema = carried(tool)
    if description:
        form["description"] = description
    kind = options.schema_kind("anthropic")
    form["input_schema"] = fitting_schema(tool, schema, request, kind)
    return write_mark(form, tool.cache)


def _write_web_search(tool: Tool, request: Request) -> dict[str, Any]:
    form: dict[str, Any] = {"type": WEB_SEARCH, "name": "web_search"}
    for key, value in tool.settings.items():
        if key in ("allowed_domains", "blocked_domains", "user_location", "max_uses"):
            form[key] = value
        else:
            request.drop(f"{tool.path}.{key}")
    if "allowed_domains" in form and form.pop("blocked_domains", None):
        request.drop(f"{tool.path}.filters.blocked_domains")  # either, not both
    return form


def write_choice(request: Request, names: Tools, *, tools: bool) -> dict[str, Any]:
    """
    ``tool_choice``; {} if nothing needs saying.

    Args:
        tools: whether any tool is declared.
    """
    choice = request.choice
    if not tools:
        return {}
    if choice.mode == "tool" and choice.tool is not None:
        form: dict[str, Any] = {"type": "tool", "name": names.wire_name(choice.tool)}
    elif choice.mode == "required":
        form = {"type": "any"}
    elif choice.mode:
        form = {"type": choice.mode}
    else:
        form = {}
    if request.parallel is False and choice.mode != "none":
        form.setdefault("type", "auto")
        form["disable_parallel_tool_use"] = True
    return form
