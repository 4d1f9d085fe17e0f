"""
What only the server that made it can use, and wants back as it was.

Gemini signs its calls (``extra_content``), OpenRouter hands out ``reasoning_details``:
members of a Chat call or message that mean nothing to other servers. Clients of the
other protocols keep reasoning and its proof, so that is how it travels: packed as the
proof of a stretch of reasoning without words.

Rule 1: it is bound to its maker; no other server is sent it.
Rule 2: nothing here reads it.

Sources: https://ai.google.dev/gemini-api/docs/thought-signatures and
https://openrouter.ai/docs/use-cases/reasoning-tokens, autumn 2026.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from gateway.protocols.json_reader import dumped, parsed

TAG = "gw1.opaque."
"""Begins a packed one; what follows is base64url of a JSON object."""

CALL_MEMBERS = ("extra_content",)
"""The members of a Chat call that are its maker's own."""
MESSAGE_MEMBERS = ("extra_content", "reasoning_details")
"""The same of a Chat message."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """
    Attributes:
        maker: the server that made it, by a name that says nothing about it.
        fields: members of its own object, to be put back unchanged.
        call_id: of the call whose object has them; "": the assistant's message.
    """

    maker: str
    fields: dict[str, Any] = field(default_factory=dict)
    call_id: str = ""


def packed(opaque: Opaque) -> str:
    """*opaque* as a text that a client keeps."""
    packet = {"m": opaque.maker, "f": opaque.fields, "c": opaque.call_id}
    text = base64.urlsafe_b64encode(dumped(packet).encode()).decode()
    return TAG + text.rstrip("=")


def unpacked(text: str) -> Opaque | None:
    """The way back of ``packed``; None for another text."""
    if not text.startswith(TAG):
        return None
    body = text[len(TAG) :]
    try:
        text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode()
        packet = parsed(text)
    except (binascii.Error, ValueError):
        return None
    if not isinstance(packet, dict):
        return None
    maker, fields, call_id = packet.get("m"), packet.get("f"), packet.get("c")
    if isinstance(maker, str) and isinstance(fields, dict) and isinstance(call_id, str):
        return Opaque(maker, fields, call_id)
    return None


def members(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Those of *names* that *given* has."""
    return {name: given[name] for name in names if given.get(name)}


class Collected:
    """The opaque members of a message while its pieces come."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}

    def add(self, fields: dict[str, Any]) -> None:
        """More of the members: lists grow, all else is replaced."""
        for name, value in fields.items():
            if not isinstance(value, list):
                self._fields[name] = value
                continue
            known = self._fields.get(name)
            if not isinstance(known, list):
                known = self._fields[name] = []
            for entry in value:
                _grow(known, entry)

    def taken(self) -> dict[str, Any]:
        """What has come since the last time."""
        fields, self._fields = self._fields, {}
        return fields


_SAME = ("type", "index", "id")  # one piece of reasoning differs in them from the next
_TEXTS = ("text", "summary", "data")


def _grow(entries: list[Any], entry: Any) -> None:
    """Add *entry*, or to the last one if it is more of that."""
    last = entries[-1] if entries else None
    if not isinstance(last, dict) or not isinstance(entry, dict):
        entries.append(entry)
        return
    if any(last.get(key) != entry.get(key, last.get(key)) for key in _SAME):
        entries.append(entry)
        return
    merged = {**last, **{key: value for key, value in entry.items() if value}}
    for key in _TEXTS:
        if isinstance(last.get(key), str) and isinstance(entry.get(key), str):
            merged[key] = last[key] + entry[key]
    entries[-1] = merged
