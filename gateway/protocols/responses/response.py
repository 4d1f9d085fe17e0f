"""
The ``response`` object and its items, with every key that strict readers require.

Source: the OpenAI API reference; Open Responses 2026-04-24 (required keys).
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.codec import AnswerSettings
from gateway.protocols.events import Annotation, Finish, SearchFound
from gateway.usage import Usage

_INCOMPLETE = {
    "length": "max_output_tokens",
    "context": "max_output_tokens",
    "filter": "content_filter",
}
_TEXT: dict[str, Any] = {"format": {"type": "text"}, "verbosity": "medium"}
_FUNCTION_KEYS = ("description", "parameters", "strict")


def base(settings: AnswerSettings, id: str) -> dict[str, Any]:
    """The ``response`` object of an answer in progress."""
    echo = settings.asked.echo
    response = {
        "id": id,
        "object": "response",
        "created_at": settings.created_at,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": echo.get("instructions"),
        "max_output_tokens": echo.get("max_output_tokens"),
        "max_tool_calls": echo.get("max_tool_calls"),
        "model": settings.model,
        "output": [],
        "parallel_tool_calls": echo.get("parallel_tool_calls", True),
        "previous_response_id": echo.get("previous_response_id"),
        "prompt_cache_key": echo.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **_object(echo, "reasoning")},
        "safety_identifier": echo.get("safety_identifier"),
        "service_tier": "default",
        "store": echo.get("store", True),
        "temperature": echo.get("temperature", 1.0),
        "text": {**_TEXT, **_object(echo, "text")},
        "tool_choice": echo.get("tool_choice", "auto"),
        "tools": _tools(echo),
        "top_logprobs": echo.get("top_logprobs", 0),
        "top_p": echo.get("top_p", 1.0),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "truncation": echo.get("truncation", "disabled"),
        "usage": None,
        "metadata": _object(echo, "metadata"),
    }
    return {**response, "user": echo["user"]} if "user" in echo else response


def _object(echo: dict[str, Any], key: str) -> dict[str, Any]:
    value = echo.get(key)
    return value if isinstance(value, dict) else {}


def _tools(echo: dict[str, Any]) -> list[Any]:
    """The declared tools; a key that a function left out is null."""
    tools = echo.get("tools")
    out = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and tool.get("type") == "function":
            tool = {**tool, **{key: tool.get(key) for key in _FUNCTION_KEYS}}
        out.append(tool)
    return out


def ended(
    begun: dict[str, Any], finish: Finish, output: list[Any], now: int
) -> dict[str, Any]:
    """The ``response`` object of a whole answer."""
    reason = _INCOMPLETE.get(finish.reason)
    return {
        **begun,
        "completed_at": None if reason else now,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "service_tier": finish.tier or "default",
        "usage": usage_object(finish.usage),
    }


def usage_object(usage: Usage) -> dict[str, Any] | None:
    """``usage`` in the form of Responses; None if no count is known."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": read + written,
    }


# ---------------------------------------------------------------- items


def message_item(id: str, status: str, content: list[Any]) -> dict[str, Any]:
    """A message of the assistant."""
    return {
        "id": id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def part(kind: str, text: str, annotations: list[Any]) -> dict[str, Any]:
    """A content part: *kind* is "text" or "refusal"."""
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {
        "type": "output_text",
        "annotations": annotations,
        "logprobs": [],
        "text": text,
    }


def citation(event: Annotation) -> dict[str, Any]:
    """A web page that a text cites."""
    return {
        "type": "url_citation",
        "url": event.url,
        "title": event.title,
        "start_index": event.start,
        "end_index": event.end,
    }


def search_item(id: str, status: str, found: SearchFound | None) -> dict[str, Any]:
    """A web search, begun or over."""
    action: dict[str, Any] = {"type": "search", "query": found.query if found else ""}
    if found and found.pages:
        action["sources"] = [{"type": "url", "url": url} for url, _ in found.pages]
    return {"id": id, "type": "web_search_call", "status": status, "action": action}
