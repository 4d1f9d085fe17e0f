"""The words of the sentences of ``narrative``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.errors import CODES

OUTAGES = {
    "network": "it could not be reached",
    "failed": "it had failed",
    "overloaded": "it was overloaded",
    "rate_limited": "it had limited the rate",
    "quota": "its quota was used up",
    "refused": "it had refused its credential",
    "no_model": "it did not have the model",
    "paused": "the operator has paused it",
}
"""By the reason of a rejection."""


def held_slots(name: str, limit: int, holders: Sequence[tuple[str, int]]) -> str:
    """``bob held 3 and carol 1 of the 4 slots of openai-1``"""
    if not limit or not holders:
        return ""
    who = [
        f"{user} held {slots}" if n == 0 else f"{user} {slots}"
        for n, (user, slots) in enumerate(holders)
    ]
    rest = limit - sum(slots for _, slots in holders)
    if rest > 0:
        who.append(f"others {rest}")
    return f"{listed(who, 'and')} of the {limit} slots of {name}"


def cause(code: str, status: int) -> str:
    """Why an attempt failed; *status* is the upstream's, 0 if there was none."""
    if code == "passed_on":
        text = "the upstream found the request itself at fault"
    else:
        sentence = CODES[code].sentence if code in CODES else code or "unknown"
        text = sentence[:1].lower() + sentence[1:]
    facts = [f"HTTP {status}"] if status >= 400 else []
    if code in CODES:
        facts.append(code)
    return f"{text} ({', '.join(facts)})" if facts else text


def span(seconds: float) -> str:
    """``31 ms``, ``12.4 s``, ``3 min 5 s``"""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def listed(words: Sequence[Any], last: str) -> str:
    """``a, b or c``"""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
