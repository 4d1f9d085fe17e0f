"""
Calls and their results, in the order that every protocol takes.

Rule 1: a result comes directly after the run of assistant items that holds its
        call, whatever the client put between them.
Rule 2: of several results for one call the last wins; a result without a call is
        the client's error, as it is with every vendor.
Rule 3: call ids are what the server takes and unique in the request; servers that
        count from ``call_0`` in every turn make them repeat.
"""

from __future__ import annotations

import dataclasses

from gateway.protocols.json_reader import refuse
from gateway.protocols.legal_names import fitting_id
from gateway.protocols.model import Item, Message, Reasoning, Text, ToolCall, ToolResult
from gateway.protocols.options import Options

NO_RESULT = "no result"


def settled(items: list[Item], options: Options) -> list[Item]:
    """
    *items* by the rules above, for a server that *options* describe.

    Raises:
        ClientError: "invalid_request" for a result of an unknown call.
    """
    calls, results = _paired(items, options.ids)
    fill_missing = options.fill_missing_results
    done: list[Item] = []
    waiting: list[int] = []  # positions of the calls of the open run
    for position, item in enumerate(items):
        if isinstance(item, ToolResult):
            continue
        if waiting and (not _assistant(item) or _answered(items, waiting, position)):
            done += _answers(calls, results, waiting, fill_missing)
            waiting = []
        if isinstance(item, ToolCall):
            waiting.append(position)
            item = calls[position]
        done.append(item)
    return done + _answers(calls, results, waiting, fill_missing)


def _assistant(item: Item) -> bool:
    if isinstance(item, Message):
        return item.role == "assistant"
    return isinstance(item, (Reasoning, ToolCall))


def _answered(items: list[Item], waiting: list[int], position: int) -> bool:
    """Whether a result is between the open run and the item at *position*."""
    return any(isinstance(item, ToolResult) for item in items[waiting[-1] : position])


def _paired(
    items: list[Item], ids: str
) -> tuple[dict[int, ToolCall], dict[int, ToolResult]]:
    """The calls under their final ids, and the result of each, by position."""
    calls: dict[int, ToolCall] = {}
    results: dict[int, ToolResult] = {}
    latest: dict[str, int] = {}
    taken = {
        item.call_id
        for item in items
        if isinstance(item, ToolCall) and fitting_id(item.call_id, ids) == item.call_id
    }
    for position, item in enumerate(items):
        if isinstance(item, ToolCall):
            fresh = item.call_id not in latest and item.call_id in taken
            call_id = item.call_id if fresh else _free(item.call_id, taken, ids)
            taken.add(call_id)
            latest[item.call_id] = position
            calls[position] = dataclasses.replace(item, call_id=call_id)
        elif isinstance(item, ToolResult):
            at = latest.get(item.call_id)
            if at is None:
                refuse(item.path, "is the result of a call that the request lacks")
            call = calls[at]
            results[at] = dataclasses.replace(
                item, call_id=call.call_id, kind=call.kind
            )
    return calls, results


def _free(original: str, taken: set[str], ids: str) -> str:
    name, n = fitting_id(original, ids), 1
    while name in taken:
        n += 1
        name = fitting_id(f"{original}_{n}", ids)
    return name


def _answers(
    calls: dict[int, ToolCall],
    results: dict[int, ToolResult],
    waiting: list[int],
    fill_missing: bool,
) -> list[Item]:
    """The results of the calls at *waiting*, in the order of the calls."""
    found: list[Item] = []
    for position in waiting:
        result = results.get(position)
        if result is None and fill_missing:
            call = calls[position]
            result = ToolResult(
                call.call_id, [Text(NO_RESULT)], True, call.kind, path=call.path
            )
        if result is not None:
            found.append(result)
    return found
