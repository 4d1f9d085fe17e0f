"""
Compaction where the upstream has none: the model is asked for a summary, and the
summary travels as the opaque item that the client expects.

Rule 1: the item is ours by its tag and holds nothing but the text; no state is kept.
Rule 2: a foreign item is not guessed at; the reader of the input refuses it.

    input … compaction_trigger ──▶ ordinary request for a summary ──▶ text
    {"type": "compaction", "encrypted_content": "gw1.compact." + base64url} ◀──┘
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from gateway.protocols.model import TAG_COMPACT

TRIGGER = "compaction_trigger"
SUMMARY_MARK = "[Summary of the conversation so far]\n\n"
KEPT_CHARACTERS = 64_000
"""How much of the user's own words the endpoint's answer repeats, latest first."""

PROMPT = (
    "The conversation has grown too long to be carried on as it is. Write a summary "
    "that will replace it, so that the work can go on from the summary alone. State: "
    "what the user wants, with every instruction and preference that still holds; what "
    "has been done and decided, and why; the files, commands, names, values and error "
    "messages that matter, exactly as they were; what is finished, what is under way "
    "and what comes next. Leave out greetings and dead ends that taught nothing. "
    "Answer with the summary only and call no tool."
)

_NOT_FOR_A_SUMMARY = ("text", "tool_choice", "max_tool_calls", "stop")


def triggered(body: dict[str, Any]) -> bool:
    """Whether a Responses *body* asks for compaction: its last input item does."""
    items = body.get("input")
    if not isinstance(items, list) or not items:
        return False
    return isinstance(items[-1], dict) and items[-1].get("type") == TRIGGER


def summarising(body: dict[str, Any]) -> dict[str, Any]:
    """
    The Responses request that asks for the summary of *body*'s conversation.

    The tools stay declared, since the history names them and an upstream's prompt
    cache begins with them, but none may be called.
    """
    kept = {key: body[key] for key in body if key not in _NOT_FOR_A_SUMMARY}
    items = body.get("input")
    if isinstance(items, str):
        items = [{"type": "message", "role": "user", "content": items}]
    if not isinstance(items, list):
        return kept  # not a request at all: reading it says so
    history = [
        item
        for item in items
        if not (isinstance(item, dict) and item.get("type") == TRIGGER)
    ]
    ask = {"type": "message", "role": "user", "content": PROMPT}
    return {**kept, "input": [*history, ask], "tool_choice": "none"}


def compaction_item(text: str, item_id: str) -> dict[str, Any]:
    """The item that carries the summary *text*."""
    packed = base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
    return {
        "type": "compaction",
        "id": item_id,
        "encrypted_content": TAG_COMPACT + packed.rstrip("="),
    }


def compacted_text(blob: str) -> str | None:
    """The summary in a compaction item of ours; None for a foreign one."""
    if not blob.startswith(TAG_COMPACT):
        return None
    packed = blob[len(TAG_COMPACT) :]
    try:
        padded = packed + "=" * (-len(packed) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def compact_answer(
    body: dict[str, Any],
    text: str,
    *,
    response_id: str,
    item_id: str,
    created_at: int,
    usage: dict[str, Any] | None,
) -> dict[str, Any]:
    """
    The body that answers ``POST /v1/responses/compact``: the user's latest words as
    they were, then the item with the summary *text* of everything.

    Args:
        body: the client's request.
        created_at: Unix seconds.
        usage: as a ``response`` object has it.
    """
    return {
        "id": response_id,
        "object": "response.compaction",
        "created_at": created_at,
        "output": [*_users_words(body), compaction_item(text, item_id)],
        "usage": usage,
    }


def _users_words(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The latest user messages that fit, in their order."""
    items = body.get("input")
    if isinstance(items, str):
        items = [{"type": "message", "role": "user", "content": items}]
    kept: list[dict[str, Any]] = []
    room = KEPT_CHARACTERS
    for item in reversed(items if isinstance(items, list) else []):
        words = _words(item)
        if not words:
            continue
        room -= sum(len(part["text"]) for part in words)
        if room < 0:
            break
        kept.append(
            {
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": words,
            }
        )
    return kept[::-1]


def _words(item: Any) -> list[dict[str, Any]]:
    """The text parts of a user message; [] for anything else."""
    if not isinstance(item, dict) or item.get("role") != "user":
        return []
    content = item.get("content")
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    return [
        {"type": "input_text", "text": part["text"]}
        for part in (content if isinstance(content, list) else [])
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]
