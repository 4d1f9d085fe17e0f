"""
Answers for the tests of conversion: made from scenario files, read back by folds that
know nothing of the gateway's own code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.protocols.model import Asked, ToolName, Tools
from gateway.protocols.protocol import Ending
from gateway.protocols.request_converter import Converted
from gateway.protocols.stream_converter import StreamConverter
from gateway.protocols.stream_facts import StreamFacts

PROTOCOLS = ("responses", "chat", "messages")
REQUEST_ID = "fd277bc5-ff7e-45d1-8aa9-f54e1df318f1"
MODEL = "the-model"
NOW = 1_764_000_000
WHOLE = 10**9


def converted(tools: tuple[tuple[str, ...], ...] = (), **asked: Any) -> Converted:
    """A request that declared *tools*: (kind, name, namespace?)."""
    names = Tools()
    for kind, *name in tools:
        names.wire_name(ToolName(kind, *name))  # type: ignore[arg-type]
    asked = {"include_usage": True, **asked}
    if "cut" in asked:
        asked["cut"] = tuple(asked["cut"])
    return Converted({}, (), names, Asked(MODEL, **asked))


def translation(
    source: str, target: str, request: Converted | None = None, **given: Any
) -> StreamConverter:
    return StreamConverter(
        source,
        target,
        given.pop("facts", None) or StreamFacts(),
        request or converted(),
        REQUEST_ID,
        MODEL,
        NOW,
        **given,
    )


def relayed(
    following: StreamConverter, data: bytes, size: int = WHOLE, *, clean: bool = True
) -> tuple[bytes, Ending]:
    """All that the client gets of *data* in pieces of *size*, and the ending."""
    out = b""
    for at in range(0, len(data), size):
        batch = following.feed(data[at : at + size])
        out += batch.data + batch.terminal
        if batch.ending:
            return out, batch.ending
    batch = following.finish(clean=clean)
    assert batch.ending
    return out + batch.data + batch.terminal, batch.ending


def sse(*objects: dict[str, Any] | str, named: bool = False) -> bytes:
    """A stream of *objects*; *named* events bear their ``type``."""
    frames = []
    for value in objects:
        data = value if isinstance(value, str) else json.dumps(value)
        name = ""
        if named and isinstance(value, dict) and "type" in value:
            name = f"event: {value['type']}\n"
        frames.append(f"{name}data: {data}\n\n")
    return "".join(frames).encode()


def chunk(
    finish: str | None = None, usage: Any = None, index: int = 0, **delta: Any
) -> dict[str, Any]:
    """A Chat chunk."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m"}
    return {**head, "choices": [choice], **({"usage": usage} if usage else {})}


def objects(data: bytes) -> Iterator[dict[str, Any]]:
    """The events of a stream that the gateway wrote; every frame is checked."""
    assert b"\r" not in data and (not data or data.endswith(b"\n\n"))
    for frame in data.decode().split("\n\n")[:-1]:
        *head, last = frame.split("\n")
        assert last.startswith("data: ") and len(head) <= 1, frame
        if last == "data: [DONE]":
            continue
        value = json.loads(last[6:])
        if head:
            assert [f"event: {value['type']}"] == head
        yield value


def said(protocol: str, data: bytes) -> dict[str, Any]:
    """What a client of *protocol* makes of a whole stream: see ``_SAID``."""
    return _STREAMS[protocol](list(objects(data)))


def said_whole(protocol: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a client of *protocol* makes of a non-stream answer."""
    return _BODIES[protocol](body)


# ---------------------------------------------------------------- Responses


def _responses(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert ["response.created", "response.in_progress"] == [
        event["type"] for event in events[:2]
    ]
    assert list(range(len(events))) == [event["sequence_number"] for event in events]
    last = events[-1]["response"]
    done = [e for e in events if e["type"] == "response.output_item.done"]
    in_order = sorted(done, key=lambda event: event["output_index"])
    assert [event["item"] for event in in_order] == last["output"]
    added = [e for e in events if e["type"] == "response.output_item.added"]
    assert list(range(len(added))) == [event["output_index"] for event in added]
    for event in added:
        item = last["output"][event["output_index"]]
        assert event["item"]["id"] == item["id"]
        deltas = [
            (event.get("content_index", 0), event["delta"])
            for event in events
            if event.get("item_id") == item["id"] and "delta" in event
        ]
        deltas.sort(key=lambda delta: delta[0])  # parts may alternate
        assert "".join(text for _, text in deltas) in (_words(item), "")
    return _response(last)


def _words(item: dict[str, Any]) -> str:
    parts = item.get("content") or item.get("summary") or [item]
    keys = ("text", "refusal", "arguments", "input")
    return "".join(part[key] for part in parts for key in keys if key in part)


def _response(body: dict[str, Any]) -> dict[str, Any]:
    why = (body["incomplete_details"] or {}).get("reason")
    lines = [line for item in body["output"] for line in _item(item)]
    return {"said": lines, "stop": why or body["status"], "usage": _usage(body)}


def _item(item: dict[str, Any]) -> Iterator[str]:
    cut = " (incomplete)" if item.get("status") == "incomplete" else ""
    kind = item["type"]
    if kind == "message":
        for part in item["content"]:
            name = "refusal" if part["type"] == "refusal" else "text"
            yield f"{name}: {part[name]}{cut}"
            for note in part.get("annotations", ()):
                span = f"{note['start_index']}-{note['end_index']}"
                yield f"cited: {note['url']} {note['title']} {span}"
    elif kind == "reasoning":
        proof = item.get("encrypted_content")
        text = "".join(part["text"] for part in item["summary"])
        yield f"reasoning: {text}" + (f" [{proof}]" if proof else "") + cut
    elif kind == "function_call":
        where = f"{item['namespace']}/" if "namespace" in item else ""
        yield f"call: {where}{item['name']} {item['arguments']}{cut}"
    elif kind == "custom_tool_call":
        yield f"custom: {item['name']} {item['input']}{cut}"
    elif kind == "web_search_call":
        urls = [source["url"] for source in item["action"].get("sources", ())]
        yield " ".join(["searched:", item["action"]["query"], *urls])
    else:
        rest = {k: v for k, v in item.items() if k not in ("id", "type", "call_id")}
        yield f"{kind}: {json.dumps(rest)}"


def _usage(body: dict[str, Any]) -> list[int] | None:
    """Input in all, cached, cache-written, output, reasoning."""
    usage = body["usage"]
    return usage and [
        usage["input_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        usage["input_tokens_details"]["cache_write_tokens"],
        usage["output_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
    ]


# ---------------------------------------------------------------- Chat


def _chat(events: list[dict[str, Any]]) -> dict[str, Any]:
    first, *rest = [event["choices"][0] for event in events if event["choices"]]
    assert "assistant" == first["delta"].pop("role")
    assert {event["id"] for event in events} == {events[0]["id"]}
    message: dict[str, Any] = {"tool_calls": []}
    for choice in [first, *rest]:
        for key, value in choice["delta"].items():
            if key == "tool_calls":
                _fragments(message["tool_calls"], value)
            elif isinstance(value, list):
                message[key] = message.get(key, []) + value
            else:
                message[key] = (message.get(key) or "") + (value or "")
        assert (choice["finish_reason"] is not None) == (choice is ([first, *rest])[-1])
    usage = [event["usage"] for event in events if event.get("usage")]
    assert len(usage) < 2 and (not usage or events[-1]["choices"] == [])
    finish = ([first, *rest])[-1]["finish_reason"]
    choice = {"message": message, "finish_reason": finish}
    return _completion({"choices": [choice], **({"usage": usage[0]} if usage else {})})


def _fragments(calls: list[dict[str, Any]], fragments: list[dict[str, Any]]) -> None:
    for fragment in fragments:
        if fragment["index"] == len(calls):
            assert fragment["id"]
            calls.append(fragment)
            continue
        assert "id" not in fragment
        kind = calls[fragment["index"]]["type"]
        field = "input" if kind == "custom" else "arguments"
        assert [field] == list(fragment[kind])
        calls[fragment["index"]][kind][field] += fragment[kind][field]


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    choice = body["choices"][0]
    message = choice["message"]
    lines = []
    if message.get("reasoning_content"):
        lines.append(f"reasoning: {message['reasoning_content']}")
    for key, name in (("content", "text"), ("refusal", "refusal")):
        if message.get(key):
            lines.append(f"{name}: {message[key]}")
    for note in message.get("annotations", ()):
        cited = note["url_citation"]
        span = f"{cited['start_index']}-{cited['end_index']}"
        lines.append(f"cited: {cited['url']} {cited['title']} {span}")
    for call in message.get("tool_calls") or ():
        if call["type"] == "custom":
            custom = call["custom"]
            lines.append(f"custom: {custom['name']} {custom['input']}")
        else:
            function = call["function"]
            lines.append(f"call: {function['name']} {function['arguments']}")
    usage = body.get("usage")
    counts = usage and [
        usage["prompt_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        usage["prompt_tokens_details"]["cache_write_tokens"],
        usage["completion_tokens"],
        usage["completion_tokens_details"]["reasoning_tokens"],
    ]
    return {"said": lines, "stop": choice["finish_reason"], "usage": counts}


# ---------------------------------------------------------------- Messages

_DELTAS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def _messages(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert "message_start" == events[0]["type"] and "message_stop" == events[-1]["type"]
    assert [] == events[0]["message"]["content"]
    blocks: list[dict[str, Any]] = []
    opened = False
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert not opened and event["index"] == len(blocks)
            blocks.append({**event["content_block"], "partial_json": ""})
            opened = True
            continue
        assert opened and event["index"] == len(blocks) - 1
        if event["type"] == "content_block_stop":
            opened = False
            continue
        field = _DELTAS[event["delta"]["type"]]
        blocks[-1][field] += event["delta"][field]
    assert not opened and "message_delta" == events[-2]["type"]
    for block in blocks:
        written = block.pop("partial_json")
        if written:
            try:
                block["input"] = json.loads(written)
            except ValueError:
                assert events[-2]["delta"]["stop_reason"] in ("max_tokens", "refusal")
                block["input"] = written
    stop, usage = events[-2]["delta"], events[-2]["usage"]
    return _message({**events[0]["message"], **stop, "content": blocks, "usage": usage})


def _message(body: dict[str, Any]) -> dict[str, Any]:
    lines = []
    for block in body["content"]:
        kind = block["type"]
        if kind == "text":
            lines.append(f"text: {block['text']}")
        elif kind == "thinking":
            proof = block["signature"]
            lines.append(
                f"reasoning: {block['thinking']}" + (f" [{proof}]" if proof else "")
            )
        elif kind == "tool_use":
            lines.append(f"call: {block['name']} {json.dumps(block['input'])}")
        elif kind == "server_tool_use":
            lines.append(f"searched: {block['input']['query']}")
        elif kind == "web_search_tool_result":
            lines += [f"found: {page['url']}" for page in block["content"]]
    details = body["stop_details"] or {}
    if details.get("explanation"):
        lines.append(f"explained: {details['explanation']}")
    usage = body["usage"]
    read = usage["cache_read_input_tokens"]
    written = usage["cache_creation_input_tokens"]
    counts = [
        usage["input_tokens"] + read + written,
        read,
        written,
        usage["output_tokens"],
        usage["output_tokens_details"]["thinking_tokens"],
    ]
    sequence = body["stop_sequence"]
    stop = f"{body['stop_reason']}" + (f" {sequence!r}" if sequence else "")
    return {"said": lines, "stop": stop, "usage": counts}


_STREAMS = {"responses": _responses, "chat": _chat, "messages": _messages}
_BODIES = {"responses": _response, "chat": _completion, "messages": _message}
