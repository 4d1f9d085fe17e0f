"""
A streamed answer and a whole one are one: what a stream makes of an answer, its body
makes of it, too, for every client and for the record.

The bodies are folded from the streams by code that knows nothing of the gateway's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocols import PROTOCOLS as WIRES
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import PassThrough
from tests.protocols_answers import (
    PROTOCOLS,
    chunk,
    converted,
    relayed,
    said,
    said_whole,
    sse,
    translation,
)

HERE = Path(__file__)
SHARED = Path(os.environ.get("GATEWAY_SHARED", HERE.resolve().parents[2] / "shared"))
Events = list[dict[str, Any]]


def events_of(data: bytes) -> Events:
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *frames, _cut = text.split(b"\n\n")  # no blank line behind it: no event
    lines = [line for frame in frames for line in frame.split(b"\n")]
    datas = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    return [json.loads(one) for one in datas if one[:1] == b"{"]


# --- an answer's body, folded from its stream ----------------------------------------


def whole_responses(events: Events) -> dict[str, Any] | None:
    last = events[-1] if events else {}
    if last.get("type") not in ("response.completed", "response.incomplete"):
        return None
    items: dict[int, dict[str, Any]] = {}
    parts: dict[int, dict[int, dict[str, Any]]] = {}
    for event in events:
        kind, index = event.get("type", ""), event.get("output_index", 0)
        at = parts.setdefault(index, {})
        if kind.startswith("response.output_item."):
            items[index] = {**items.get(index, {}), **event["item"]}
        elif kind == "response.output_text.delta":
            part = {"type": "output_text", "text": "", "annotations": []}
            part = at.setdefault(event.get("content_index", 0), part)
            part["text"] += event["delta"]
        elif kind == "response.refusal.delta":
            part = at.setdefault(
                event.get("content_index", 0), {"type": "refusal", "refusal": ""}
            )
            part["refusal"] += event["delta"]
        elif kind == "response.output_text.annotation.added":
            at[event.get("content_index", 0)]["annotations"].append(event["annotation"])
    for index, at in parts.items():
        if at:
            items.setdefault(index, {"type": "message"})
    for index, item in items.items():
        if item["type"] == "message" and not item.get("content"):
            item["content"] = list(parts[index].values())
    response = last["response"]
    output = response.get("output") or [items[index] for index in sorted(items)]
    return {**response, "output": output} if output else None


def whole_chat(events: Events) -> dict[str, Any] | None:
    message: dict[str, Any] = {}
    calls: dict[Any, dict[str, Any]] = {}
    body: dict[str, Any] = {"message": message}
    reasons: list[str] = []
    usage = None
    for event in events:
        if "error" in event:
            return None
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict) or choice.get("index"):
                continue
            for key, value in (choice.get("delta") or {}).items():
                if key == "tool_calls":
                    for part in value:
                        _fragment(calls, part)
                elif key == "reasoning":
                    known = message.get("reasoning_content", "")
                    message["reasoning_content"] = known + (value or "")
                elif isinstance(value, str) and key != "role":
                    message[key] = (message.get(key) or "") + value
                elif value:
                    message[key] = value
            if reason := choice.get("finish_reason"):
                reasons.append(reason)
    if calls:
        message["tool_calls"] = list(calls.values())
    cut = [reason for reason in reasons if reason in ("length", "content_filter")]
    finish = cut[-1] if cut else reasons[0] if reasons else None
    if not message or not reasons:  # nothing was said, or it was cut off
        return None
    return {"choices": [{**body, "finish_reason": finish}], "usage": usage}


def _fragment(calls: dict[Any, dict[str, Any]], part: dict[str, Any]) -> None:
    kind = "custom" if "custom" in part else "function"
    field = "input" if kind == "custom" else "arguments"
    call = part[kind]
    key = part.get("index", len(calls) - 1)
    if call.get("name"):
        if part.get("index") is None or key in calls:
            key = ("more", len(calls))
        calls[key] = {**part, kind: {field: "", **call}}
    elif key in calls and isinstance(call.get(field), str):
        calls[key][kind][field] += call[field]


def whole_messages(events: Events) -> dict[str, Any] | None:
    body: dict[str, Any] = {}
    blocks: list[dict[str, Any]] = []
    fields = {"text_delta": "text", "thinking_delta": "thinking"}
    fields |= {"signature_delta": "signature", "input_json_delta": "partial_json"}
    for event in events:
        kind = event.get("type")
        if kind == "error":
            return None
        if kind == "message_start":
            body |= event["message"]
        elif kind == "content_block_start":
            blocks.append(json.loads(json.dumps(event["content_block"])))
        elif kind == "content_block_delta":
            if not blocks:
                blocks.append({"type": "text", "text": ""})
            _grow(blocks[-1], event["delta"], fields)
        elif kind == "message_delta":
            body |= event["delta"]
            counts = {k: v for k, v in event.get("usage", {}).items() if v is not None}
            body["usage"] = {**body.get("usage", {}), **counts}
    for block in blocks:
        if written := block.pop("partial_json", ""):
            try:
                block["input"] = json.loads(written)
            except ValueError:
                return None  # a body holds an object, never half of one
    ended = any(event.get("type") == "message_stop" for event in events)
    return {**body, "content": blocks} if ended else None


def _grow(block: dict[str, Any], delta: dict[str, Any], fields: dict[str, str]) -> None:
    if delta["type"] == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
    elif field := fields.get(delta["type"]):
        block[field] = (block.get(field) or "") + delta[field]


WHOLE = {
    "responses": whole_responses,
    "chat": whole_chat,
    "messages": whole_messages,
}


# --- what is compared ----------------------------------------------------------------


def meant(answer: dict[str, Any]) -> dict[str, Any]:
    """
    What a client makes of an answer: each kind of words in one, calls by value. Chat's
    bodies do not say where a text was parted by reasoning, nor how JSON was spaced.
    """
    words: dict[str, str] = {}
    calls = []
    for line in answer["said"]:
        kind, _, text = line.partition(": ")
        text = text.removesuffix(" (incomplete)")
        if kind == "call":
            name, _, arguments = text.partition(" ")
            calls.append((name, json.loads(arguments, strict=False)))
        else:
            words[kind] = words.get(kind, "") + text.replace("\n\n", "")
    return {**answer, "said": (words, calls)}


def compared(source: str, data: bytes, request: Any = None) -> int:
    """Compare stream and body of one answer in all pairs; how many there were."""
    body = WHOLE[source](events_of(data))
    if body is None:
        return 0
    for target in set(PROTOCOLS) - {source}:
        streamed, whole = StreamFacts(), StreamFacts()
        following = translation(source, target, request, facts=streamed)
        out, ending = relayed(following, data)
        converted_body, end = translation(source, target, request, facts=whole).body(
            body
        )
        assert ending.outcome == end.outcome
        assert streamed.usage == whole.usage
        assert streamed.unknown_stop == whole.unknown_stop
        if ending.outcome != "failed":
            converted_body = json.loads(json.dumps(converted_body))
            assert meant(said(target, out)) == meant(said_whole(target, converted_body))
    passed, whole = WIRES[source].new_facts(), StreamFacts()
    watch = PassThrough(WIRES[source], passed)
    last = watch.feed(data).ending or watch.finish().ending
    assert last and last.outcome == WIRES[source].read_body(body, whole).outcome
    assert passed.usage == whole.usage
    return 1


# --- every vector --------------------------------------------------------------------


def streams() -> list[Any]:
    found = []
    for root in (HERE.parent / "wire" / "scenarios", SHARED / "vectors"):
        for path in sorted(root.rglob("*.sse")):
            source = path.stem if path.stem in PROTOCOLS else path.parent.name
            if source in PROTOCOLS and path.parent.name != "endings":
                name = f"{root.name}-{path.parent.name}-{path.stem}"
                found.append(pytest.param(source, path, id=name))
    return found


# Their bodies would say something else: half a call, or half a character.
APART = ("call_cut_by_limit", "split_surrogates", "usage_with_holes")


@pytest.mark.parametrize("source, path", streams())
def test_a_vectors_stream_and_body_are_one(source: str, path: Path) -> None:
    if path.parent.name in APART:  # what no body can say
        pytest.skip("no body says this")
    scenario = path.with_name("expect.json")
    given = json.loads(scenario.read_text("utf-8")) if scenario.exists() else {}
    tools = tuple(tuple(tool) for tool in given.get("tools", ()))
    request = converted(tools, **given.get("asked", {})) if tools else None

    compared(source, path.read_bytes(), request)


def test_most_vectors_have_a_body() -> None:
    own = [one for one in streams() if one.id and one.id.startswith("scenarios")]

    found = [WHOLE[one.values[0]](events_of(one.values[1].read_bytes())) for one in own]

    assert sum(body is not None for body in found) > len(own) // 2


# --- answers that are generated --------------------------------------------------

_TEXTS = st.sampled_from(
    ["Hi", "One, two, three", "I can't do that.", "I'm sorry, but no.", "x" * 500]
)
_STOPS = {
    "chat": ["stop", "length", "content_filter", "sensitive", "abort", "odd", "eos"],
    "messages": ["end_turn", "max_tokens", "refusal", "pause_turn", "odd", "error"],
}
_ARGUMENTS = st.sampled_from(['{"a": 1}', "{}", '{"b": {"c": []}}'])


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@settings(max_examples=150)
@given(
    thought=st.none() | _TEXTS,
    text=st.none() | _TEXTS,
    calls=st.lists(_ARGUMENTS, max_size=2),
    stop=st.sampled_from(_STOPS["chat"]),
    size=st.sampled_from([1, 3, 7, 1000]),
)
def test_any_chat_answer(
    thought: str | None, text: str | None, calls: list[str], stop: str, size: int
) -> None:
    if not (thought or text or calls):
        return
    said = [chunk(reasoning_content=piece) for piece in pieces(thought or "", size)]
    said += [chunk(content=piece) for piece in pieces(text or "", size)]
    for index, arguments in enumerate(calls):
        function = {"name": f"f{index}", "arguments": ""}
        part = {"index": index, "id": f"c{index}", "function": function}
        said.append(chunk(tool_calls=[part]))
        for piece in pieces(arguments, size):
            more = {"index": index, "function": {"arguments": piece}}
            said.append(chunk(tool_calls=[more]))
    usage = {"prompt_tokens": 3, "completion_tokens": 4}

    assert compared("chat", sse(*said, chunk(stop, usage=usage), "[DONE]"))


@settings(max_examples=150)
@given(
    thought=st.none() | _TEXTS,
    text=st.none() | _TEXTS,
    calls=st.lists(_ARGUMENTS.filter(lambda text: text != "{}"), max_size=2),
    stop=st.sampled_from(_STOPS["messages"]),
    size=st.sampled_from([1, 3, 7, 1000]),
    category=st.sampled_from([None, "bio"]),
)
def test_any_messages_answer(
    thought: str | None,
    text: str | None,
    calls: list[str],
    stop: str,
    size: int,
    category: str | None,
) -> None:
    blocks: list[tuple[dict[str, Any], str, str, str]] = []
    if thought:
        begun: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
        blocks.append((begun, "thinking_delta", "thinking", thought))
    if text:
        begun = {"type": "text", "text": ""}
        blocks.append((begun, "text_delta", "text", text))
    for index, arguments in enumerate(calls):
        begun = {"type": "tool_use", "id": f"c{index}", "name": f"f{index}"}
        begun["input"] = {}
        blocks.append((begun, "input_json_delta", "partial_json", arguments))
    said: Events = [{"type": "message_start", "message": {"usage": {}}}]
    for index, (block, kind, field, words) in enumerate(blocks):
        place = {"index": index}
        said.append({"type": "content_block_start", **place, "content_block": block})
        for piece in pieces(words, size):
            delta = {"type": kind, field: piece}
            said.append({"type": "content_block_delta", **place, "delta": delta})
        said.append({"type": "content_block_stop", **place})
    ended = {"stop_reason": stop, "stop_details": {"category": category}}
    usage = {"input_tokens": 3, "output_tokens": 4}
    said.append({"type": "message_delta", "delta": ended, "usage": usage})

    assert compared("messages", sse(*said, {"type": "message_stop"}, named=True))
