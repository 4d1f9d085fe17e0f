"""What a Responses upstream tells only once, or twice, reaches the client once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocols_answers import relayed, said, sse, translation

TARGETS = ("chat", "messages")
CALL = {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f"}
CUSTOM = {"type": "custom_tool_call", "id": "ctc", "call_id": "c2", "name": "patch"}
REASONING = {"type": "reasoning", "id": "rs"}
MESSAGE = {"type": "message", "id": "msg", "role": "assistant"}
ARGS, INPUT = '{"a": 1}', "*** Begin"


def text(value: str) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": []}


def no(value: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": value}


def summary(*values: str) -> list[dict[str, Any]]:
    return [{"type": "summary_text", "text": value} for value in values]


# The same four items, complete.
WHOLE = [
    {**REASONING, "summary": summary("One.", "Two.")},
    {**MESSAGE, "content": [text("Hello"), no("But no.")]},
    {**CALL, "arguments": ARGS},
    {**CUSTOM, "input": INPUT},
]
BARE: list[dict[str, Any]] = [
    {**REASONING, "summary": []},
    {**MESSAGE, "content": []},
    {**CALL, "arguments": ""},
    {**CUSTOM, "input": ""},
]
EVENTS: dict[str, list[dict[str, Any]]] = {
    "added": [
        {"type": "output_item.added", "output_index": at, "item": item}
        for at, item in enumerate(BARE)
    ],
    "deltas": [
        *(
            {"type": "reasoning_summary_text.delta", "summary_index": at, "delta": half}
            for at, halves in enumerate((("On", "e."), ("Tw", "o.")))
            for half in halves
        ),
        {"type": "output_text.delta", "content_index": 0, "delta": "Hel"},
        {"type": "output_text.delta", "content_index": 0, "delta": "lo"},
        {"type": "refusal.delta", "content_index": 1, "delta": "But no."},
        {"type": "function_call_arguments.delta", "delta": '{"a": '},
        {"type": "function_call_arguments.delta", "delta": "1}"},
        {"type": "custom_tool_call_input.delta", "delta": INPUT},
    ],
    "done": [
        {"type": "reasoning_summary_text.done", "summary_index": 0, "text": "One."},
        {"type": "reasoning_summary_text.done", "summary_index": 1, "text": "Two."},
        {"type": "output_text.done", "content_index": 0, "text": "Hello"},
        {"type": "refusal.done", "content_index": 1, "refusal": "But no."},
        {"type": "function_call_arguments.done", "arguments": ARGS},
        {"type": "custom_tool_call_input.done", "input": INPUT},
    ],
    "parts": [
        {
            "type": "reasoning_summary_part.done",
            "summary_index": at,
            "part": {"type": "summary_text", "text": word},
        }
        for at, word in enumerate(("One.", "Two."))
    ]
    + [
        {"type": "content_part.done", "content_index": 0, "part": text("Hello")},
        {"type": "content_part.done", "content_index": 1, "part": no("But no.")},
    ],
    "items": [
        {"type": "output_item.done", "output_index": at, "item": item}
        for at, item in enumerate(WHOLE)
    ],
    "bare items": [
        {"type": "output_item.done", "output_index": at, "item": item}
        for at, item in enumerate(BARE)
    ],
}
PLACES = {
    "reasoning": (0, "rs"),
    "output_te": (1, "msg"),
    "refusal.d": (1, "msg"),
    "content_p": (1, "msg"),
    "function_": (2, "fc"),
    "custom_to": (3, "ctc"),
}


def events(*kinds: str, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A stream that has the events of *kinds*, and *output* in its terminal."""
    found: list[dict[str, Any]] = [{"type": "created", "response": {"id": "r"}}]
    for event in (event for kind in kinds for event in EVENTS[kind]):
        if event["type"][:9] in PLACES:
            index, ident = PLACES[event["type"][:9]]
            event = {"output_index": index, "item_id": ident, **event}
        found.append(event)
    ended = {"id": "r", "status": "completed", "output": output}
    found.append({"type": "completed", "response": ended})
    return [{**event, "type": f"response.{event['type']}"} for event in found]


def heard(target: str, stream: list[dict[str, Any]]) -> list[str]:
    out, ending = relayed(translation("responses", target), sse(*stream))
    assert "ok" == ending.outcome
    return sorted(said(target, out)["said"])


ALL = {
    "chat": [
        "reasoning: One.\n\nTwo.",
        "text: Hello",
        "refusal: But no.",
        f"call: f {ARGS}",
        f"custom: patch {INPUT}",
    ],
    "messages": [
        "reasoning: One.\n\nTwo.",
        "text: Hello",
        'call: f {"a": 1}',
        f'call: patch {{"input": "{INPUT}"}}',
        "text: But no.",
    ],
}
TERSE = [
    pytest.param(("added", "deltas", "items"), WHOLE, id="openai"),
    pytest.param(("added", "deltas"), [], id="deltas-alone"),
    pytest.param(("added", "done", "bare items"), [], id="done-events-alone"),
    pytest.param(("added", "done"), [], id="done-events-and-no-items"),
    pytest.param(("added", "done", "parts", "items"), WHOLE, id="no-deltas"),
    pytest.param(("deltas", "done", "parts", "items"), WHOLE, id="nothing-added"),
    pytest.param(("done", "bare items"), [], id="done-before-the-items"),
    pytest.param(("done", "parts"), WHOLE, id="done-then-the-terminal"),
    pytest.param(("items",), [], id="items-alone"),
    pytest.param((), WHOLE, id="terminal-alone"),
    pytest.param(("added",), WHOLE, id="added-then-the-terminal"),
    pytest.param(
        ("added", "deltas", "done", "parts", "items"), WHOLE, id="everything-at-once"
    ),
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_part_without_its_index_is_the_first(target: str) -> None:
    stream = events("added", "deltas", "done", "items", output=WHOLE)
    bare = [without("content_index")(e) for e in stream if "refusal" not in e["type"]]

    assert sorted(ALL[target]) == heard(target, bare)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kinds, output", TERSE)
def test_nothing_is_lost_and_nothing_is_doubled(
    target: str, kinds: tuple[str, ...], output: list[dict[str, Any]]
) -> None:
    assert sorted(ALL[target]) == heard(target, events(*kinds, output=output))


@pytest.mark.parametrize("target", TARGETS)
def test_parts_alone_tell_a_message_and_a_summary(target: str) -> None:
    lines = heard(target, events("added", "parts", output=WHOLE))

    assert sorted(ALL[target]) == lines


def every(kinds: tuple[str, ...], change: Any) -> list[dict[str, Any]]:
    """Everything at once, each event changed; without an item of its own each."""
    stream = events(*kinds, output=WHOLE)
    return [change(json.loads(json.dumps(event))) for event in stream]


def without(*keys: str) -> Any:
    return lambda event: {k: v for k, v in event.items() if k not in keys}


def renamed() -> Any:
    """Ids that are new in every event (GitHub Copilot)."""
    ids = iter(range(1000))

    def change(event: dict[str, Any]) -> dict[str, Any]:
        items = [*event.get("response", {}).get("output", ()), event.get("item", {})]
        for item in items:
            item["id"] = f"id{next(ids)}"
        return {**event, "item_id": f"id{next(ids)}"}

    return change


def in_order(change: Any) -> list[dict[str, Any]]:
    """As a vendor sends it: one item after the other, with all its events."""
    found: list[dict[str, Any]] = []
    stream = every(("added", "deltas", "done", "parts", "items"), lambda event: event)
    for index in range(4):
        found += [event for event in stream if event.get("output_index") == index]
    return [change(event) for event in (stream[0], *found, stream[-1])]


NAMED = [
    pytest.param(without("output_index"), id="no-index"),
    pytest.param(without("output_index", "item_id"), id="neither-index-nor-id"),
    pytest.param(without("item_id"), id="no-id"),
    pytest.param(renamed(), id="new-ids-in-every-event"),
    pytest.param(lambda event: {**event, "output_index": 0}, id="every-index-0"),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("change", NAMED)
def test_items_are_known_by_whatever_names_them(target: str, change: Any) -> None:
    assert sorted(ALL[target]) == heard(target, in_order(change))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("ids", ("same", "new"))
def test_a_terminal_that_leaves_reasoning_out_repeats_nothing(
    target: str, ids: str
) -> None:
    output = [{**item, "id": item["id"] + ids[:-4]} for item in WHOLE[1:]]

    lines = heard(target, events("added", "deltas", "items", output=output))

    assert sorted(ALL[target]) == lines


@pytest.mark.parametrize("target", TARGETS)
def test_two_calls_at_one_index_are_two(target: str) -> None:
    stream = [{"type": "response.created", "response": {"id": "r"}}]
    for name in ("f", "g"):
        item = {**CALL, "id": name, "call_id": name, "name": name, "arguments": ""}
        place = {"output_index": 0, "item_id": name}
        stream += [
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {
                "type": "response.function_call_arguments.done",
                **place,
                "arguments": ARGS,
            },
            {"type": "response.output_item.done", "output_index": 0, "item": item},
        ]
    stream.append({"type": "response.completed", "response": {"status": "completed"}})

    assert ['call: f {"a": 1}', 'call: g {"a": 1}'] == heard(target, stream)


@pytest.mark.parametrize("target", TARGETS)
def test_arguments_as_an_object_are_read(target: str) -> None:
    output = [{**CALL, "arguments": {"a": 1}}]

    [line] = heard(target, events(output=output))

    assert {"a": 1} == json.loads(line.removeprefix("call: f "))


@pytest.mark.parametrize("target", TARGETS)
def test_of_raw_reasoning_done_events_count_too(target: str) -> None:
    item = {**REASONING, "summary": []}
    stream = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.reasoning_text.done", "output_index": 0, "text": "Hm."},
        {
            "type": "response.content_part.done",
            "output_index": 0,
            "part": {"type": "reasoning_text", "text": "Hm."},
        },
        *events(output=[{**MESSAGE, "content": "Hi"}]),
    ]

    assert ["reasoning: Hm.", "text: Hi"] == heard(target, stream)
