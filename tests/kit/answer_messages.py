"""The Messages form of an answer."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.answer import Answer, Stream, event


def _messages_usage(answer: Answer) -> dict[str, Any]:
    """Messages counts cached input beside the input, not inside it."""
    read, cached, written, _ = answer.usage
    return {
        "input_tokens": read - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": written,
    }


def _messages_blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.reasoning:
        blocks.append(
            {
                "type": "thinking",
                "thinking": answer.reasoning,
                "signature": answer.proof,
            }
        )
    if answer.tool:
        tool = answer.tool
        blocks.append(
            {
                "type": "tool_use",
                "id": tool.call_id,
                "name": tool.name,
                "input": tool.arguments,
            }
        )
    else:
        blocks.append({"type": "text", "text": answer.text})
    return blocks


def body(answer: Answer, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or request.get("model", ""),
        "content": _messages_blocks(answer),
        "stop_reason": "tool_use" if answer.tool else "end_turn",
        "stop_sequence": None,
        "usage": _messages_usage(answer),
    }


def stream(answer: Answer, request: dict[str, Any]) -> Stream:
    def one(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)

    whole = body(answer, request)
    start = {**whole, "content": [], "stop_reason": None}
    start["usage"] = {**whole["usage"], "output_tokens": 1}
    preamble = [one("message_start", message=start), one("ping")]
    deltas: list[bytes] = []
    for index, block in enumerate(whole["content"]):
        empty, parts = _messages_parts(block, answer.pieces)
        events = [one("content_block_delta", index=index, delta=part) for part in parts]
        events[0] = (
            one("content_block_start", index=index, content_block=empty) + events[0]
        )
        deltas += [*events, one("content_block_stop", index=index)]
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    tail = [
        one("message_delta", delta=stop, usage=whole["usage"]),
        one("message_stop"),
    ]
    return Stream(preamble, deltas, tail)


def _messages_parts(
    block: dict[str, Any], pieces: tuple[str, ...]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The empty block and the deltas that fill it."""
    if block["type"] == "thinking":
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            *([signed] if block["signature"] else []),
        ]
    if block["type"] == "tool_use":
        text = json.dumps(block["input"])
        half = len(text) // 2
        return {**block, "input": {}}, [
            {"type": "input_json_delta", "partial_json": piece}
            for piece in (text[:half], text[half:])
        ]
    return {"type": "text", "text": ""}, [
        {"type": "text_delta", "text": piece} for piece in pieces
    ]
