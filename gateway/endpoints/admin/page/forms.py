"""
Forms of the page: what a browser sends, as the admin API takes it.

A field that was left empty is not sent on, so the default of the config applies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from gateway.endpoints.admin.errors import AdminError

_LOCAL_PATH = re.compile(r"/(?:[A-Za-z0-9._~%?&=,+@:-][A-Za-z0-9._~%?&=,+@:/-]*)?")
MAX_BACK = 512
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a user; *name* is ``budget.…`` for those of its budget."""

    name: str
    label: str
    whole: bool = False
    placeholder: str = ""


LIMITS = (
    Limit("max_concurrent", "Requests at once", whole=True),
    Limit("max_queued", "Waiting behind them", whole=True),
    Limit("queue_timeout_s", "Longest wait (s)"),
    Limit("ping_interval_s", "Keepalive every (s)"),
    Limit("budget.usd_per_day", "USD a day"),
    Limit("budget.usd_per_month", "USD a month"),
    Limit("budget.tokens_per_day", "Tokens a day", whole=True),
    Limit("budget.requests_per_minute", "Requests a minute", whole=True),
)

EXPIRIES = (
    ("", "never"),
    ("7", "7 days"),
    ("30", "30 days"),
    ("90", "90 days"),
    ("365", "1 year"),
)


class FormError(ValueError):
    """A field that cannot be sent on; its name, and what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def user_body(form: Mapping[str, str], *, changed: bool) -> dict[str, Any]:
    """
    The body of ``POST /users`` or ``PATCH /users/{name}``.

    Args:
        changed: of an existing user; then an empty field is null, which takes the
            user's own limit away.

    Raises:
        FormError: a number that is none.
    """
    body: dict[str, Any] = {} if changed else {"name": form.get("name", "").strip()}
    budget: dict[str, Any] = {}
    for limit in LIMITS:
        text = form.get(limit.name, "").strip()
        section, _, key = limit.name.rpartition(".")
        if section:
            if text or changed:
                budget[key] = _number(limit, text) if text else 0
        elif text:
            body[key] = _number(limit, text)
        elif changed:
            body[key] = None
    if budget:
        body["budget"] = budget
    return body


def _number(limit: Limit, text: str) -> int | float:
    plain = text.replace("\u202f", "").replace(" ", "").replace(",", ".")
    try:
        return int(plain) if limit.whole else float(plain)
    except ValueError:
        kind = "a whole number" if limit.whole else "a number"
        raise FormError(limit.name, f"{limit.label}: must be {kind}") from None


def expires_at(days: str, now: datetime) -> str | None:
    """The moment *days* from *now* in ISO 8601; None for never."""
    if not days.isdecimal() or len(days) > 5:
        return None
    return (now.astimezone(UTC) + timedelta(days=int(days))).isoformat()


def local_path(text: str, default: str = "/") -> str:
    """*text* if it is a path of this page, else *default*: no way to other sites."""
    fits = len(text) <= MAX_BACK and _LOCAL_PATH.fullmatch(text)
    return text if fits else default


async def form_of(request: web.Request) -> dict[str, str]:
    """
    The fields of a form; of several with one name the last counts.

    Raises:
        AdminError: it is no form.
    """
    if request.content_type != FORM and request.can_read_body:
        raise AdminError(415, "invalid_request", "This path takes a form")
    sent = await request.post()
    return {name: value for name, value in sent.items() if isinstance(value, str)}
