"""The Chat Completions form of an answer."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.answer import Answer, Stream, Tool, event


def _chat_usage(answer: Answer) -> dict[str, Any]:
    read, cached, written, reasoning = answer.usage
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _chat_tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "arguments": json.dumps(tool.arguments)}
    return {"id": tool.call_id, "type": "function", "function": function}


def stream(answer: Answer, request: dict[str, Any]) -> Stream:
    wants_usage = (request.get("stream_options") or {}).get("include_usage")

    def chunk(choices: list[Any], **fields: Any) -> bytes:
        usage = {"usage": None} if wants_usage else {}
        head = {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion.chunk",
            "created": 1760000000,
            "model": answer.model or request.get("model", ""),
        }
        return event({**head, "choices": choices, **usage, **fields})

    def choice(delta: dict[str, Any], finish: str | None = None) -> list[Any]:
        return [{"index": 0, "delta": delta, "finish_reason": finish}]

    preamble = [chunk(choice({"role": "assistant", "content": ""}))]
    deltas = []
    if answer.reasoning:
        deltas.append(chunk(choice({"reasoning_content": answer.reasoning})))
    if answer.tool:
        call = {"index": 0, **_chat_tool(answer.tool)}
        deltas.append(chunk(choice({"tool_calls": [call]})))
    else:
        deltas += [chunk(choice({"content": piece})) for piece in answer.pieces]
    tail = [chunk(choice({}, "tool_calls" if answer.tool else "stop"))]
    if wants_usage:
        tail.append(chunk([], usage=_chat_usage(answer)))
    return Stream(preamble, deltas, [*tail, event("[DONE]")])


def body(answer: Answer, request: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool:
        message.update(content=None, tool_calls=[_chat_tool(answer.tool)])
    finish = "tool_calls" if answer.tool else "stop"
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": 1760000000,
        "model": answer.model or request.get("model", ""),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _chat_usage(answer),
    }
