"""Which call a fragment of a Chat stream belongs to, and which calls are whole."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.protocols_answers import (
    PROTOCOLS,
    chunk,
    converted,
    objects,
    relayed,
    said,
    sse,
    translation,
)

TARGETS = ("responses", "messages")
DECLARED = tuple(("function", name) for name in ("f", "g", "read_file"))
ABSENT: Any = object()


def part(
    arguments: Any = ABSENT, name: Any = ABSENT, index: Any = ABSENT, id: Any = ABSENT
) -> dict[str, Any]:
    """A fragment with what is given, and nothing else."""
    function = {"name": name, "arguments": arguments}
    fragment = {"index": index, "id": id}
    head = {key: value for key, value in fragment.items() if value is not ABSENT}
    body = {key: value for key, value in function.items() if value is not ABSENT}
    return {**head, "function": body}


def first(name: str, index: Any = ABSENT, id: Any = ABSENT, args: Any = "") -> Any:
    return part(args, name, index, id)


F1, F2, G = ["f", {"a": 1}], ["f", {"a": 2}], ["g", {"b": 2}]

# name: the fragments, one chunk each; what is called.
SHAPES: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    # https://platform.openai.com/docs/api-reference/chat-streaming
    "openai": (
        [
            first("f", 0, "x"),
            part('{"a"', index=0),
            part(":1}", index=0),
            first("g", 1, "y"),
            part('{"b":2}', index=1),
        ],
        [F1, G],
    ),
    "interleaved": (
        [
            first("f", 0, "x"),
            first("g", 1, "y"),
            part('{"a"', index=0),
            part('{"b"', index=1),
            part(":1}", index=0),
            part(":2}", index=1),
        ],
        [F1, G],
    ),
    # Servers that make an id for every chunk.
    "a new id with every fragment": (
        [first("f", 0, "x"), part('{"a"', index=0, id="y"), part(":1}", None, 0, "z")],
        [F1],
    ),
    "a new id with every fragment, without index": (
        [first("f", id="x"), part('{"a"', id="y"), part(":1}", id="z")],
        [F1],
    ),
    "a new id with every fragment of two calls": (
        [
            first("f", 0, "a"),
            part('{"a":1}', index=0, id="b"),
            first("g", 1, "c"),
            part('{"b":2}', index=1, id="d"),
        ],
        [F1, G],
    ),
    # Gemini's OpenAI endpoint: whole parallel calls, all at index 0.
    **{
        f"all at index 0, ids {word}": (
            [first("f", 0, id, '{"a":1}'), first("g", 0, id, '{"b":2}')],
            [F1, G],
        )
        for word, id in (("empty", ""), ("absent", ABSENT), ("equal", "x"))
    },
    **{
        f"the same tool twice at index 0, ids {word}": (
            [first("f", 0, id, '{"a":1}'), first("f", 0, id, '{"a":2}')],
            [F1, F2],
        )
        for word, id in (("empty", ""), ("absent", ABSENT), ("equal", "x"))
    },
    "all at index 0, without arguments": (
        [first("f", 0, "", "{}"), first("g", 0, "", "{}")],
        [["f", {}], ["g", {}]],
    ),
    "all at index 0, arguments empty": (
        [first("f", 0, ""), first("g", 0, "")],
        [["f", {}], ["g", {}]],
    ),
    "all at index 0, new ids": (
        [first("f", 0, "x", '{"a":1}'), first("f", 0, "y", '{"a":2}')],
        [F1, F2],
    ),
    # Ollama before 0.4: no index.
    "without index": (
        [first("f", id="x", args='{"a":1}'), first("g", id="y", args='{"b":2}')],
        [F1, G],
    ),
    "without index or id": (
        [first("f", args='{"a":1}'), first("g", args='{"b":2}')],
        [F1, G],
    ),
    "without index, in pieces": (
        [
            first("f"),
            part('{"a"'),
            part(":1}"),
            first("g"),
            part('{"b":2}'),
        ],
        [F1, G],
    ),
    "without index, interleaved by id": (
        [
            first("f", id="x", args='{"a"'),
            first("g", id="y", args='{"b"'),
            part(":1}", id="x"),
            part(":2}", id="y"),
        ],
        [F1, G],
    ),
    "index null": (
        [first("f", None, "x", '{"a":1}'), first("g", None, "y", '{"b":2}')],
        [F1, G],
    ),
    "index a whole float": (
        [first("f", 0.0, "x"), part('{"a":1}', index=0), first("g", 1.0, "", "{}")],
        [F1, ["g", {}]],
    ),
    # vLLM with some parsers: the name comes with every fragment.
    "the name with every fragment": (
        [
            first("f", 0, "x"),
            first("f", 0, "x", '{"a"'),
            first("f", 0, "x", ":1}"),
            first("f", 0, "x"),
        ],
        [F1],
    ),
    "the name with every fragment, ids absent": (
        [first("f", 0), first("f", 0, args='{"a"'), first("f", 0, args=":1}")],
        [F1],
    ),
    "the name and a new id with every fragment": (
        [first("f", 0, "x"), first("f", 0, "y", '{"a"'), first("f", 0, "z", ":1}")],
        [F1],
    ),
    "the whole call again at the end": (
        [first("f", 0, "x"), part('{"a":1}', index=0), first("f", 0, "x", '{"a":1}')],
        [F1],
    ),
    "the name in pieces": (
        [
            first("read_", 0, "x"),
            part(name="file", index=0),
            part('{"p":1}', index=0),
        ],
        [["read_file", {"p": 1}]],
    ),
    "the name in pieces, the last with arguments": (
        [first("read", 0, "x"), part("{}", "_file", 0)],
        [["read_file", {}]],
    ),
    "the name late": (
        [part("", index=0, id="x"), part('{"a"', index=0), part(":1}", "f", 0)],
        [F1],
    ),
    "the id late": ([first("f", 0), part('{"a":1}', index=0, id="x")], [F1]),
    "an empty name in later fragments": (
        [first("f", 0, "x"), part('{"a":1}', "", 0, "")],
        [F1],
    ),
    "arguments null": ([first("f", 0, "x", None)], [["f", {}]]),
    "arguments absent": ([first("f", 0, "x", ABSENT)], [["f", {}]]),
    "arguments an empty object": ([first("f", 0, "x", {})], [["f", {}]]),
    # Ollama's own form.
    "arguments an object": (
        [first("f", 0, "", {"a": 1}), first("g", 1, "", {"b": 2})],
        [F1, G],
    ),
    "arguments an object, all at index 0": (
        [first("f", 0, "", {"a": 1}), first("g", 0, "", {"b": 2})],
        [F1, G],
    ),
    "the rest of nothing": (
        [part("", index=3), first("f", 0, "x", '{"a":1}'), part("{}", index=7)],
        [F1],
    ),
}


def called(target: str, out: bytes) -> list[Any]:
    lines = [line.split(" ", 2) for line in said(target, out)["said"]]
    assert {"call:"} == {kind for kind, *_ in lines}
    return [[name, json.loads(arguments)] for _, name, arguments in lines]


def ids(target: str, out: bytes) -> list[str]:
    if target == "messages":
        blocks = [e.get("content_block", {}) for e in objects(out)]
        return [block["id"] for block in blocks if "id" in block]
    items = [e.get("item", {}) for e in objects(out) if e["type"].endswith("item.done")]
    return [item["call_id"] for item in items if "call_id" in item]


@pytest.mark.parametrize("ending", ("tool_calls", "stop", None))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_fragments_find_their_call(shape: str, target: str, ending: str | None) -> None:
    fragments, wanted = SHAPES[shape]
    chunks = [chunk(tool_calls=[fragment]) for fragment in fragments]
    data = sse(*chunks, *([chunk(ending)] if ending else []), "[DONE]")

    out, end = relayed(translation("chat", target, converted(DECLARED)), data)

    assert ("ok", wanted) == (end.outcome, called(target, out))
    found = ids(target, out)
    assert len(found) == len(set(found)) == len(wanted) and all(found)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_fragments_of_one_chunk_find_their_call(shape: str, target: str) -> None:
    fragments, wanted = SHAPES[shape]
    data = sse(chunk(tool_calls=fragments), chunk("tool_calls"), "[DONE]")

    out, end = relayed(translation("chat", target, converted(DECLARED)), data)

    assert ("ok", wanted) == (end.outcome, called(target, out))


def test_an_id_that_comes_before_the_arguments_is_the_calls() -> None:
    late = [first("f", 0), part(index=0, id="x"), part("{}", index=0)]
    data = sse(*(chunk(tool_calls=[one]) for one in late), chunk("stop"), "[DONE]")

    out, _ = relayed(translation("chat", "responses", converted(DECLARED)), data)

    assert ["x"] == ids("responses", out)


# --- arguments that did not arrive whole ---------------------------------------------

BROKEN = ['{"a": ', '{"a": "x', '{"a": 1', "{", '{"a": 1}}', '{"a":1}{"b":2}', "do it"]
WHOLE = ["", "{}", '{"a": 1}', ' {"a": 1}\n', '{"a": "x\ny"}', r'{"a": "C:\dir"}']


def chat(arguments: str) -> bytes:
    call = first("f", 0, "x", arguments)
    return sse(chunk(tool_calls=[call]), chunk("tool_calls"), "[DONE]")


def messages(arguments: str) -> bytes:
    block = {"type": "tool_use", "id": "x", "name": "f", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": arguments}
    stop = {"stop_reason": "tool_use"}
    return sse(
        {"type": "message_start", "message": {}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {}},
        {"type": "message_stop"},
    )


def responses(arguments: str) -> bytes:
    item = {"type": "function_call", "call_id": "x", "name": "f"}
    done = {**item, "arguments": arguments}
    return sse(
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {
            "type": "response.function_call_arguments.delta",
            "output_index": 0,
            "delta": arguments,
        },
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": {"status": "completed"}},
    )


STREAMS = {"chat": chat, "messages": messages, "responses": responses}
BODIES: dict[str, Any] = {
    "chat": lambda text: {
        "choices": [
            {
                "message": {"tool_calls": [first("f", id="x", args=text)]},
                "finish_reason": "tool_calls",
            }
        ]
    },
    "responses": lambda text: {
        "status": "completed",
        "output": [
            {"type": "function_call", "call_id": "x", "name": "f", "arguments": text}
        ],
    },
}
PAIRS = list(itertools.permutations(PROTOCOLS, 2))


@pytest.mark.parametrize("arguments", BROKEN)
@pytest.mark.parametrize("source, target", PAIRS)
def test_broken_arguments_are_a_failure(
    source: str, target: str, arguments: str
) -> None:
    """No client gets a call as finished that it would run with half its arguments."""
    stream = STREAMS[source](arguments)

    out, end = relayed(translation(source, target), stream)

    assert "failed" == end.outcome and end.error
    assert "upstream_malformed" == end.error.code
    for word in (b".done", b"content_block_stop", b"message_delta", b'reason":"tool'):
        assert word not in out
    if source in BODIES:
        body, end = translation(source, target).body(BODIES[source](arguments))
        assert ({}, "failed") == (body, end.outcome)


@pytest.mark.parametrize("arguments", WHOLE)
@pytest.mark.parametrize("source, target", PAIRS)
def test_whole_arguments_are_none(source: str, target: str, arguments: str) -> None:
    out, end = relayed(translation(source, target), STREAMS[source](arguments))

    assert ("ok", 1) == (end.outcome, len(said(target, out)["said"]))
    if source in BODIES:
        _, end = translation(source, target).body(BODIES[source](arguments))
        assert "ok" == end.outcome


@pytest.mark.parametrize("target", TARGETS)
def test_a_limit_cuts_arguments_without_a_failure(target: str) -> None:
    data = chat('{"a": ').replace(b'tool_calls"}', b'length"}')

    out, end = relayed(translation("chat", target), data)

    assert "incomplete" == end.outcome
    assert said(target, out)["stop"] in ("max_output_tokens", "max_tokens")


def test_free_text_in_place_of_the_carrying_function_is_whole() -> None:
    """A model that left ``{"input": …}`` out has still given the tool its text."""
    request = converted((("custom", "f"),))

    for arguments, outcome in (
        ("*** Begin Patch", "ok"),
        ('{"input": "*** ', "failed"),
    ):
        _, end = relayed(translation("chat", "responses", request), chat(arguments))
        assert outcome == end.outcome


@pytest.mark.parametrize("target", TARGETS)
def test_arguments_of_no_call_are_a_failure(target: str) -> None:
    lost = [part("", index=0, id="x"), part('{"a":1}', index=0)]
    data = sse(*(chunk(tool_calls=[one]) for one in lost), chunk("stop"), "[DONE]")

    _, end = relayed(translation("chat", target), data)

    assert "failed" == end.outcome
