"""
What the upstream plays and what the clients send, for each protocol.

A delta's text is ``@T``, the time of its write, ``@`` and its index; see
``tools/load.c``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Event = tuple[str, dict[str, Any]]

MODEL = "bench-model"
PAD = "x" * 24
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-request-id: req_bench\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class ProtocolMarkers(NamedTuple):
    """
    What the load generator looks for in a protocol's bytes.

    Attributes:
        path: of the endpoint.
        delta: text of each line with a piece of the answer.
        end: text of the line that ends a stream.
    """

    path: str
    delta: str
    end: str


PROTOCOLS = {
    "responses": ProtocolMarkers(
        "/v1/responses", "response.output_text.delta", '"response.completed"'
    ),
    "chat": ProtocolMarkers("/v1/chat/completions", '"content":"@T', "[DONE]"),
    "messages": ProtocolMarkers("/v1/messages", "text_delta", "message_stop"),
}


def request(
    protocol: str,
    key: str,
    *,
    stream: bool = True,
    kib: int = 1,
    items: int = 1,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """
    A whole HTTP request whose body has about *kib* KiB.

    Args:
        items: of the conversation.
        headers: besides the usual ones.
    """
    prompt: Any = ("Say it again. " * (kib * 74))[: kib * 1024 // items]
    if items > 1:
        said = {"type": "message", "role": "user"}
        part = {"type": "input_text", "text": prompt}
        prompt = [{**said, "content": [part]} for _ in range(items)]
    body: dict[str, Any] = {"model": MODEL, "stream": stream}
    if protocol == "responses":
        body |= {"input": prompt, "store": False}
    else:
        body["messages"] = [{"role": "user", "content": prompt}]
    if protocol == "chat" and stream:
        body["stream_options"] = {"include_usage": True}
    if protocol == "messages":
        body["max_tokens"] = 4096
    data = json.dumps(body, separators=(",", ":")).encode()
    more = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = (
        f"POST {PROTOCOLS[protocol].path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
        f"User-Agent: bench/1\r\n{more}Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def stream(
    protocol: str,
    events: int,
    *,
    delay_us: int = 0,
    first_us: int = 0,
    a_write: int = 1,
) -> bytes:
    """
    The script of a stream with *events* deltas.

    Args:
        delay_us: between two writes.
        first_us: before the head.
        a_write: deltas that leave the upstream together.
    """
    before, deltas, after = _EVENTS[protocol](events)
    steps = [_chunks(before)]
    for start in range(0, events, a_write):
        steps.append(_chunks(deltas[start : start + a_write]))
    steps[0] = SSE_HEAD + steps[0] + steps.pop(1)  # nothing is first without output
    steps.append(_chunks(after) + b"0\r\n\r\n")
    return _script(steps, delay_us, first_us)


def answer_events(
    protocol: str, count: int
) -> tuple[list[Event], list[Event], list[Event]]:
    """The events of an answer with *count* deltas: before them, they, behind them."""
    return _EVENTS[protocol](count)


def whole(protocol: str, first_us: int = 0) -> bytes:
    """The script of an answer without stream."""
    text = "Hello. " * 200
    if protocol == "responses":
        document: dict[str, Any] = _response("completed", text, 300)
    elif protocol == "chat":
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        document = _chat_object("chat.completion", [choice]) | {
            "usage": _chat_usage(300)
        }
    else:
        document = _message([{"type": "text", "text": text}], "end_turn", 300)
    body = json.dumps(document, separators=(",", ":")).encode()
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"x-request-id: req_bench\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return _script([head.encode() + body], 0, first_us)


def _script(steps: list[bytes], delay_us: int, first_us: int) -> bytes:
    parts = [b"%d %d\n" % (delay_us, first_us)]
    parts += [b"%d\n%s" % (len(step), step) for step in steps]
    return b"".join(parts)


def _chunks(events: list[Event]) -> bytes:
    """Each event as an HTTP chunk of its own, as real upstreams send them."""
    return b"".join([_chunk(name, data) for name, data in events])


def _chunk(name: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":")) if data else "[DONE]"
    event = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event.encode())


def _text(index: int) -> str:
    return f"@T{'0' * 16}@{index:06d} {PAD}"


# --- responses ---------------------------------------------------------------------


def _response(status: str, text: str, tokens: int) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    usage = {
        "input_tokens": 37,
        "input_tokens_details": {"cached_tokens": 11},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens + 37,
    }
    done = status == "completed"
    return {
        "id": "resp_bench",
        "object": "response",
        "created_at": 1760000000,
        "status": status,
        "model": MODEL,
        "output": [item] if done else [],
        "usage": usage if done else None,
    }


def _responses(count: int) -> tuple[list[Event], list[Event], list[Event]]:
    text = PAD * 10
    part = {"type": "output_text", "text": "", "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant"}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    opened = {**item, "status": "in_progress", "content": []}
    closed = _response("completed", text, count)["output"][0]
    before: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress", "", 0)},
        {"type": "response.in_progress", "response": _response("in_progress", "", 0)},
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.content_part.added", **at, "part": part},
    ]
    deltas: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", **at, "delta": _text(index)}
        for index in range(count)
    ]
    after: list[dict[str, Any]] = [
        {"type": "response.output_text.done", **at, "text": text},
        {"type": "response.content_part.done", **at, "part": {**part, "text": text}},
        {"type": "response.output_item.done", "output_index": 0, "item": closed},
        {
            "type": "response.completed",
            "response": _response("completed", text, count),
        },
    ]
    number = 0
    for event in [*before, *deltas, *after]:
        event["sequence_number"] = number
        number += 1
    return _named(before), _named(deltas), _named(after)


def _named(events: list[dict[str, Any]]) -> list[Event]:
    return [(event["type"], event) for event in events]


# --- chat ---------------------------------------------------------------------------


def _chat_object(kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-bench",
        "object": kind,
        "created": 1760000000,
        "model": MODEL,
        "choices": choices,
    }


def _chat_usage(tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": 37,
        "completion_tokens": tokens,
        "total_tokens": tokens + 37,
    }


def _chat(count: int) -> tuple[list[Event], list[Event], list[Event]]:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return "", _chat_object("chat.completion.chunk", [choice])

    usage = _chat_object("chat.completion.chunk", []) | {"usage": _chat_usage(count)}
    deltas = [chunk({"content": _text(index)}) for index in range(count)]
    after = [chunk({}, "stop"), ("", usage), ("", {})]
    return [chunk({"role": "assistant", "content": ""})], deltas, after


# --- messages -----------------------------------------------------------------------


def _message(
    content: list[dict[str, Any]], reason: str | None, tokens: int
) -> dict[str, Any]:
    usage = {
        "input_tokens": 37,
        "cache_read_input_tokens": 11,
        "output_tokens": tokens,
    }
    return {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _messages(count: int) -> tuple[list[Event], list[Event], list[Event]]:
    before: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message([], None, 1)},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {"type": "ping"},
    ]
    deltas: list[dict[str, Any]] = [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": _text(index)},
        }
        for index in range(count)
    ]
    after: list[dict[str, Any]] = [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": count},
        },
        {"type": "message_stop"},
    ]
    return _named(before), _named(deltas), _named(after)


_EVENTS = {"responses": _responses, "chat": _chat, "messages": _messages}
