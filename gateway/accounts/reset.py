"""
When an account returns, in its upstream's own words.

Rule 1: nonsense counts as no time: text, negative, zero, not finite, or later than
        ``MAX_RESET_S``. Then the account's backoff decides.
Rule 2: a window counts only when it is used up. The limits that come with every
        answer say when they are *full* again, which is not when the account serves.
Rule 3: of several used-up windows the one that ends last counts.

Order: used-up windows (body, Codex, unified), then the direct word (``retry-after``),
then limits with nothing remaining, then the sentence "try again in 2s".
All results are seconds from now.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_RESET_S = 32 * 86400.0
"""A month's quota; what is further away is a mistake."""

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|h|m|s|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SENTENCE = re.compile(
    r"(?:try again|retry|reset\w*) (?:in|after) (?:about )?"
    r"(\d{1,9}(?:\.\d{1,9})?) ?(milliseconds?|ms|seconds?|minutes?|hours?|days?|\S*)",
    re.I,
)
_REGAINED = re.compile(
    r"regain access on (\d{4}-\d\d-\d\d)(?:[ ,T]*(?:at )?(\d\d:\d\d))?", re.I
)
_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
_UNIFIED = "anthropic-ratelimit-unified"
_UNIFIED_WINDOW = re.compile(rf"({_UNIFIED}-(?!overage)[^-]+)-(?:status|utilization)")


def upstream_return_s(
    headers: Mapping[str, str],
    fields: Mapping[str, Any],
    message: str,
    now_unix: float,
    *,
    limited: bool = True,
) -> float | None:
    """
    Seconds until the account returns, None if the upstream gave no sane time.

    Args:
        headers: the answer's, in any case.
        fields: the error object.
        message: its sentence.
        now_unix: Unix seconds.
        limited: it is a limit (429, a quota); other failures carry
            the limits' headers too, but mean only their ``retry-after``.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    direct = (_retry_after(lower, now_unix), _from_fields(fields, now_unix))
    if not limited:
        return _first(*direct)
    return _first(
        _body_window(fields, now_unix),
        _latest(_codex_windows(lower, now_unix)),
        _latest(_unified_windows(lower, now_unix)),
        *direct,
        _latest(_openai_limits(lower, now_unix)),
        _latest(_anthropic_limits(lower, now_unix)),
        sentence_s(message),
        _regained_s(message, now_unix),
    )


def seconds(value: object) -> float | None:
    """A number of seconds; None for anything else than a finite positive one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def moment_s(value: object, now_unix: float) -> float | None:
    """Seconds until a moment: Unix seconds or milliseconds, HTTP date, RFC 3339."""
    number = seconds(value)
    if number is not None:
        return (number / 1000 if number > 1e11 else number) - now_unix
    if not isinstance(value, str) or len(value) > 64:
        return None
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = parse(value.strip())
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return at.timestamp() - now_unix
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def duration_s(value: object) -> float | None:
    """``6m0s``, ``12ms``, ``1h30m`` or plain seconds, as seconds."""
    number = seconds(value)
    if number is not None:
        return number
    text = str(value).strip().lower()
    if not text or _DURATION.sub("", text):
        return None
    return sum(float(n) * _UNIT_S[unit] for n, unit in _DURATION.findall(text))


def sentence_s(message: str) -> float | None:
    """The wait in "please try again in 1.5s"."""
    found = _SENTENCE.search(message)
    if found is None:
        return None
    number, unit = found[1], found[2].lower().rstrip(".,;)")
    if unit.startswith("milli") or unit == "ms":
        return seconds(float(number) / 1000)
    if unit in ("", "s") or unit.startswith("sec"):
        return seconds(number)
    for word in ("minute", "hour", "day"):
        if unit.startswith(word):
            return float(number) * _UNIT_S[word[0]]
    return duration_s(number + unit)


def _regained_s(message: str, now_unix: float) -> float | None:
    """The wait in Anthropic's "You will regain access on 2026-12-01 at 00:00 UTC"."""
    found = _REGAINED.search(message)
    if found is None:
        return None
    return moment_s(f"{found[1]}T{found[2] or '00:00'}+00:00", now_unix)


def _sane(wait_s: float | None) -> float | None:
    if wait_s is None or not 0 < wait_s <= MAX_RESET_S:  # also nan
        return None
    return wait_s


def _first(*waits: float | None) -> float | None:
    return next((wait for wait in waits if _sane(wait) is not None), None)


def _latest(waits: list[float | None]) -> float | None:
    sane = [wait for wait in waits if wait is not None and _sane(wait) is not None]
    return max(sane, default=None)


def _retry_after(headers: Mapping[str, str], now_unix: float) -> float | None:
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (ms := _sane(seconds(headers.get(name)))) is not None:
            return ms / 1000
    value = headers.get("retry-after")
    number = seconds(value)
    return number if number is not None else moment_s(value, now_unix)


def _from_fields(fields: Mapping[str, Any], now_unix: float) -> float | None:
    """A wait inside the error object, as Codex reads it and as others write it."""
    inner = fields.get("headers")
    if isinstance(inner, dict):
        lower = {str(k).lower(): str(v) for k, v in inner.items()}
        if (wait := _sane(_retry_after(lower, now_unix))) is not None:
            return wait
    for name in ("retry_after", "retry_after_seconds", "retryDelay"):
        if (wait := _sane(duration_s(fields.get(name, "")))) is not None:
            return wait
    details = fields.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and "retryDelay" in detail:
            return duration_s(detail["retryDelay"])
    return None


def _body_window(fields: Mapping[str, Any], now_unix: float) -> float | None:
    """``usage_limit_reached`` of a subscription."""
    return _first(
        moment_s(fields.get("resets_at"), now_unix),
        seconds(fields.get("resets_in_seconds")),
    )


def _codex_windows(headers: Mapping[str, str], now_unix: float) -> list[float | None]:
    waits: list[float | None] = []
    for window in ("primary", "secondary"):
        name = f"x-codex-{window}"
        if (seconds(headers.get(f"{name}-used-percent")) or 0.0) < 100.0:
            continue
        at = moment_s(headers.get(f"{name}-reset-at"), now_unix)
        after = seconds(headers.get(f"{name}-reset-after-seconds"))
        waits.append(_first(at, after))
    return waits


def _unified_windows(headers: Mapping[str, str], now_unix: float) -> list[float | None]:
    """The windows of an Anthropic subscription that refuse or are used up."""
    waits: list[float | None] = []
    names = {found[1] for name in headers if (found := _UNIFIED_WINDOW.fullmatch(name))}
    for name in names:
        used = seconds(headers.get(f"{name}-utilization")) or 0.0
        if headers.get(f"{name}-status") == "rejected" or used >= 1.0:
            waits.append(moment_s(headers.get(f"{name}-reset"), now_unix))
    if not any(waits) and headers.get(f"{_UNIFIED}-status") == "rejected":
        waits.append(moment_s(headers.get(f"{_UNIFIED}-reset"), now_unix))
    return waits


def _openai_limits(headers: Mapping[str, str], now_unix: float) -> list[float | None]:
    waits: list[float | None] = []
    for suffix in ("", *(f"-{limit}" for limit in _LIMITS)):
        value = headers.get(f"x-ratelimit-reset{suffix}")
        # One that does not tell what remains comes only when nothing does.
        left = headers.get(f"x-ratelimit-remaining{suffix}", "0").strip()
        if value is None or left != "0":
            continue
        number = seconds(value)
        is_moment = number is not None and number > 1e9
        waits.append(moment_s(value, now_unix) if is_moment else duration_s(value))
    return waits


def _anthropic_limits(
    headers: Mapping[str, str], now_unix: float
) -> list[float | None]:
    return [
        moment_s(headers.get(f"anthropic-ratelimit-{limit}-reset"), now_unix)
        for limit in _LIMITS
        if headers.get(f"anthropic-ratelimit-{limit}-remaining", "").strip() == "0"
    ]
