"""
Chat requests in the shape of Responses, as Cursor sends them to ``/chat/completions``.

Rule 1: only what can mean one thing is read: a function whose name and parameters are
        beside its type, and a body with ``input`` in the place of ``messages``.
Rule 2: a request that is Chat already is not touched.
"""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]
_FIELDS = ("name", "description", "parameters", "strict")


def is_responses(body: Body) -> bool:
    """Whether *body* is a Responses request but for its path."""
    return body.get("messages") is None and isinstance(body.get("input"), (str, list))


def nested(body: Body) -> Body:
    """*body* with its flat functions as Chat writes them; itself if it has none."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    fresh: Body = {}
    if isinstance(tools, list) and any(map(_flat, tools)):
        fresh["tools"] = [_nest(tool) if _flat(tool) else tool for tool in tools]
    if isinstance(choice, dict) and _flat(choice):
        fresh["tool_choice"] = _nest(choice)
    return {**body, **fresh} if fresh else body


def _flat(tool: Any) -> bool:
    return (
        isinstance(tool, dict)
        and tool.get("type", "function") in ("function", "custom")
        and isinstance(tool.get("name"), str)
        and not isinstance(tool.get(tool.get("type", "function")), dict)
    )


def _nest(tool: Body) -> Body:
    kind = tool.get("type", "function")
    inner = {key: value for key, value in tool.items() if key != "type"}
    if "input_schema" in inner:  # as Anthropic names it
        inner.setdefault("parameters", inner.pop("input_schema"))
    if kind == "function":
        inner = {key: inner[key] for key in _FIELDS if key in inner}
    return {"type": kind, kind: inner}
