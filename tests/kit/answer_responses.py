"""The Responses form of an answer."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.answer import Answer, Stream, event


def _response(answer: Answer, request: dict[str, Any], status: str) -> dict[str, Any]:
    read, cached, written, reasoning = answer.usage
    done = status == "completed"
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": 1760000000,
        "status": status,
        "background": False,
        "completed_at": 1760000001 if done else None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": None,
        "metadata": {},
        "model": answer.model or request.get("model", ""),
        "output": _response_items(answer) if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": (
            {
                "input_tokens": read,
                "input_tokens_details": {
                    "cached_tokens": cached,
                    "cache_write_tokens": 0,
                },
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": reasoning},
                "total_tokens": read + written,
            }
            if done
            else None
        ),
        "user": None,
    }


def _response_items(answer: Answer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if answer.reasoning:
        summary = [{"type": "summary_text", "text": answer.reasoning}]
        items.append(
            {
                "type": "reasoning",
                "id": f"rs_{answer.id}",
                "summary": summary,
                "encrypted_content": answer.proof,
            }
        )
    if answer.tool:
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{answer.id}",
                "call_id": answer.tool.call_id,
                "name": answer.tool.name,
                "arguments": json.dumps(answer.tool.arguments),
                "status": "completed",
            }
        )
    else:
        part = {"type": "output_text", "text": answer.text, "annotations": []}
        items.append(
            {
                "type": "message",
                "id": f"msg_{answer.id}",
                "status": "completed",
                "role": "assistant",
                "content": [part],
            }
        )
    return items


def stream(answer: Answer, request: dict[str, Any]) -> Stream:
    number = iter(range(1_000_000))

    def one(kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": next(number), **fields}
        return event(data, kind)

    preamble = [
        one("response.created", response=_response(answer, request, "in_progress")),
        one("response.in_progress", response=_response(answer, request, "in_progress")),
    ]
    deltas: list[bytes] = []
    for index, item in enumerate(_response_items(answer)):
        deltas += _responses_item(one, index, item, answer.pieces)
    final = _response(answer, request, "completed")
    return Stream(preamble, deltas, [one("response.completed", response=final)])


def _responses_item(
    one: Any, index: int, item: dict[str, Any], pieces: tuple[str, ...]
) -> list[bytes]:
    """The events of one output item; each delta brings its neighbours along."""
    where: dict[str, Any] = {"item_id": item["id"], "output_index": index}
    done = one_of = []
    begun: dict[str, Any] = {**item}
    if item["type"] == "message":
        begun.update(status="in_progress", content=[])
        empty = {"type": "output_text", "text": "", "annotations": []}
        at = {**where, "content_index": 0}
        start = [
            ("response.output_item.added", {"output_index": index, "item": begun}),
            ("response.content_part.added", {**at, "part": empty}),
        ]
        parts = [
            ("response.output_text.delta", {**at, "delta": text, "logprobs": []})
            for text in pieces
        ]
        whole = item["content"][0]
        done = [
            (
                "response.output_text.done",
                {**at, "text": whole["text"], "logprobs": []},
            ),
            ("response.content_part.done", {**at, "part": whole}),
        ]
    elif item["type"] == "function_call":
        begun.update(status="in_progress", arguments="")
        start = [("response.output_item.added", {"output_index": index, "item": begun})]
        kind = "response.function_call_arguments"
        text = item["arguments"]
        half = len(text) // 2
        parts = [
            (f"{kind}.delta", {**where, "delta": piece})
            for piece in (text[:half], text[half:])
        ]
        done = [(f"{kind}.done", {**where, "name": item["name"], "arguments": text})]
    else:
        begun.update(summary=[])
        at = {**where, "summary_index": 0}
        whole = item["summary"][0]
        kind = "response.reasoning_summary"
        start = [
            ("response.output_item.added", {"output_index": index, "item": begun}),
            (
                f"{kind}_part.added",
                {**at, "part": {"type": "summary_text", "text": ""}},
            ),
        ]
        parts = [(f"{kind}_text.delta", {**at, "delta": whole["text"]})]
        done = [
            (f"{kind}_text.done", {**at, "text": whole["text"]}),
            (f"{kind}_part.done", {**at, "part": whole}),
        ]
    done = done + [("response.output_item.done", {"output_index": index, "item": item})]
    one_of = [one(kind, **fields) for kind, fields in [*start, *parts, *done]]
    first, last = len(start), len(start) + len(parts)
    middle = one_of[first:last]
    middle[0] = b"".join(one_of[:first]) + middle[0]
    middle.append(b"".join(one_of[last:]))
    return middle


def body(answer: Answer, request: dict[str, Any]) -> dict[str, Any]:
    return _response(answer, request, "completed")
