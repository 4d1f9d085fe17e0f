"""
Which tools of a request reach the upstream, under which names, and which choice.

Rule 1: a choice names a declared tool, or the request is wrong.
Rule 2: a hosted tool without counterpart is a hint as long as nothing forces it.
Rule 3: a tool that would run with the client's credentials is no hint: alone it is
        refused, for without it the request means nothing.
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_reader import Unsupported, refuse
from gateway.protocols.model import (
    CALLABLE,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolName,
    Tools,
)
from gateway.protocols.model_traits import description_limit
from gateway.protocols.options import Options
from gateway.protocols.schema import for_tool
from gateway.protocols.schema_references import Schema

_CREDENTIALED = frozenset(("mcp", "mcp_toolset"))


def align(request: Request) -> None:
    """
    Make the choice name the tools as they are declared, before anything is written.

    Raises:
        ClientError: a choice of a tool that is not declared.
        Unsupported: the only tool is one with credentials.
    """
    if len(request.tools) == 1 and request.tools[0].name in _CREDENTIALED:
        tool = request.tools[0]
        if tool.kind == "hosted":
            raise Unsupported(tool.path)
    _keep_first(request)
    choice = request.choice
    if choice.tool is not None:
        choice.tool = _declared(request, choice.tool)
    if choice.allowed is not None:
        choice.allowed = [_declared(request, name) for name in choice.allowed]
    if choice.mode in ("required", "tool") and not request.tools:
        refuse(choice.path, "asks for a call, but there are no tools")


def _keep_first(request: Request) -> None:
    """Leave out a tool that is declared already; every vendor refuses two of a name."""
    known: set[ToolName] = set()
    kept: list[Tool] = []
    for tool in request.tools:
        if tool.kind in CALLABLE and named(tool) in known:
            request.drop(tool.path)
        else:
            known.add(named(tool))
            kept.append(tool)
    request.tools = kept


def described(tool: Tool, request: Request, options: Options) -> str:
    """
    The description of *tool*, as long as the server takes it; the whole one then
    is in the instructions, which must be written later.
    """
    text = tool.description
    longest = description_limit(request.model, options)
    if not longest or len(text) <= longest:
        return text
    whole = f"The whole description of the tool `{tool.name}`:\n\n{text}"
    request.instructions.append(Text(whole, path=f"{tool.path}.description"))
    return text[:longest]


def counted(tools: list[Any], options: Options) -> list[Any]:
    """
    *tools*, if they are not too many.

    Raises:
        ClientError: they are.
    """
    if options.max_tools and len(tools) > options.max_tools:
        refuse("tools", f"has {len(tools)} tools, the most is {options.max_tools}")
    return tools


def fitting_schema(tool: Tool, schema: Schema, request: Request, kind: str) -> Schema:
    """
    *schema* of *tool* for a server that takes schemas of *kind*.

    Raises:
        Unsupported: what the server cannot have and the tool not be without.
    """
    path = f"{tool.path}.{request.path('parameters')}"

    def drop(inner: str) -> None:
        request.drop(f"{path}.{inner}")

    try:
        return for_tool(schema, kind, drop)
    except Unsupported as problem:
        inner = f".{problem.path}" if problem.path else ""
        raise Unsupported(path + inner) from None


def _declared(request: Request, wanted: ToolName) -> ToolName:
    same = [tool for tool in request.tools if tool.name == wanted.name]
    exact = [tool for tool in same if tool.namespace == wanted.namespace]
    for tool in exact or same:
        return ToolName(tool.kind, tool.name, tool.namespace)
    refuse(
        request.choice.path, f"names the tool '{wanted.name}', which is not declared"
    )


def reaching(request: Request, servers: frozenset[str] = frozenset()) -> list[Tool]:
    """
    The tools that an upstream of functions takes, by the choice's filter.

    Args:
        servers: kinds beside functions that it takes.

    Raises:
        Unsupported: the choice asks for a tool that does not reach the upstream.
    """
    kept: list[Tool] = []
    for tool in request.tools:
        if tool.kind in CALLABLE or tool.kind in servers:
            kept.append(tool)
        else:
            request.drop(tool.path)
    choice = request.choice
    names = {named(tool) for tool in kept}
    if choice.tool is not None and choice.tool not in names:
        raise Unsupported(choice.path)
    if choice.allowed is not None:
        allowed = set(choice.allowed)
        kept = [tool for tool in kept if named(tool) in allowed]
    if choice.mode == "required" and not kept:
        raise Unsupported(choice.path)
    return kept


def named(tool: Tool) -> ToolName:
    """How the client names *tool*."""
    return ToolName(tool.kind, tool.name, tool.namespace)


def call_name(call: ToolCall, names: Tools) -> str:
    """
    The upstream's name for an earlier call: that of the declared tool of its name,
    also where the kind has changed since; else one of its own.
    """
    own = ToolName(call.kind, call.name, call.namespace)
    if own in names.by_tool:
        return names.by_tool[own]
    for tool, wire_name in names.by_tool.items():
        if tool.kind in CALLABLE and tool[1:] == own[1:]:
            return wire_name
    if not call.namespace:
        bare = [wire for tool, wire in names.by_tool.items() if tool.name == call.name]
        if len(bare) == 1 and call.kind == "function":
            return bare[0]
    return names.wire_name(own)


def forced(choice: ToolChoice) -> bool:
    """Whether the answer must begin with a call."""
    return choice.mode in ("required", "tool")


def think_unless_forced(request: Request, options: Options) -> None:
    """Turn thinking off for a forced call, where the server refuses both together."""
    if options.thinks_when_forced or not forced(request.choice):
        return
    if request.thinking is not None and request.thinking.effort not in ("", "none"):
        request.drop(request.path("effort"))
    request.thinking = Thinking("none")
