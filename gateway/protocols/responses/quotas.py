"""
How much of a quota is used, as Codex reads it: headers over HTTP, an event over a
websocket.

    x-codex-primary-used-percent: 42        {"type":"codex.rate_limits","rate_limits":
    x-codex-primary-window-minutes: 300         {"primary":{"used_percent":42.0,…}}}

A limit of its own has its name behind ``x-codex-``, and in ``metered_limit_name``.

Source: openai/codex, codex-rs/codex-api/src/rate_limits.rs
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gateway.protocols.json_access import read_object, sub

QUOTAS = b"codex.rate_limits"
"""The type of the event."""

MAIN = "codex"
MAX_LIMITS = 16
_NAME = re.compile(r"codex(?:[_-][a-z0-9_-]{1,60})?")
_WINDOW = re.compile(
    r"x-(codex(?:-[a-z0-9-]{1,60}?)?)-(primary|secondary)-used-percent"
)
_CREDITS = "x-codex-credits-"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def says_quotas(text: bytes) -> bool:
    """Whether the JSON *text* begins as such an event does."""
    return text.find(QUOTAS, 0, len(QUOTAS) + 12) >= 0


def quota_documents(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The events that say what *headers* say, one for each limit."""
    headers = {name.lower(): value for name, value in headers.items()}
    limits: dict[str, dict[str, Any]] = {}
    for header in headers:
        if found := _WINDOW.fullmatch(header):
            name, window = found[1], found[2]
            start = header.removesuffix("used-percent")
            if (use := _use(headers, start)) and len(limits) < MAX_LIMITS:
                limits.setdefault(name, {})[window] = use
    credits = _credits(headers)
    if credits:
        limits.setdefault(MAIN, {})
    return [
        _document(name, windows, credits if name == MAIN else {})
        for name, windows in limits.items()
    ]


def quota_headers(message: bytes) -> dict[str, str]:
    """The headers that say what an event says; none for one that is not valid."""
    data = read_object(message)
    given = data.get("metered_limit_name") or data.get("limit_name") or MAIN
    name = given.lower().replace("_", "-") if isinstance(given, str) else ""
    if not _NAME.fullmatch(name):
        return {}
    headers = {}
    for window in ("primary", "secondary"):
        use, start = sub(sub(data, "rate_limits"), window), f"x-{name}-{window}-"
        if not _is_number(use.get("used_percent")):
            continue
        headers[start + "used-percent"] = str(use["used_percent"])
        for member in ("window_minutes", "reset_at"):
            if _is_number(use.get(member)):
                headers[start + member.replace("_", "-")] = str(int(use[member]))
    return headers | _credit_headers(sub(data, "credits"))


def _document(
    name: str, windows: dict[str, Any], credits: dict[str, Any]
) -> dict[str, Any]:
    document: dict[str, Any] = {"type": QUOTAS.decode()}
    if name != MAIN:
        document["metered_limit_name"] = name.replace("-", "_")
    both = {"primary": None, "secondary": None, **windows}
    return {**document, "rate_limits": both, "credits": credits or None}


def _use(headers: Mapping[str, str], start: str) -> dict[str, Any]:
    """How much of one window is used; nothing where that is not said."""
    try:
        percent = float(headers[start + "used-percent"])
    except ValueError:
        return {}
    minutes = _whole(headers.get(start + "window-minutes"))
    reset_at = _whole(headers.get(start + "reset-at"))
    if not math.isfinite(percent) or not (percent or minutes or reset_at is not None):
        return {}
    return {"used_percent": percent, "window_minutes": minutes, "reset_at": reset_at}


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,15}", text) else None


def _credits(headers: Mapping[str, str]) -> dict[str, Any]:
    has = _BOOLEANS.get(headers.get(_CREDITS + "has-credits", "").lower())
    unlimited = _BOOLEANS.get(headers.get(_CREDITS + "unlimited", "").lower())
    if has is None or unlimited is None:
        return {}
    balance = headers.get(_CREDITS + "balance", "").strip()
    shown = balance if balance and _is_plain(balance) else None
    return {"has_credits": has, "unlimited": unlimited, "balance": shown}


def _credit_headers(credits: dict[str, Any]) -> dict[str, str]:
    has, unlimited = credits.get("has_credits"), credits.get("unlimited")
    if not (isinstance(has, bool) and isinstance(unlimited, bool)):
        return {}
    headers = {
        _CREDITS + "has-credits": str(has).lower(),
        _CREDITS + "unlimited": str(unlimited).lower(),
    }
    balance = credits.get("balance")
    if isinstance(balance, str) and _is_plain(balance):
        headers[_CREDITS + "balance"] = balance
    return headers


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)
