"""The view Requests: a search, and everything about one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from gateway.endpoints.admin.page.text import (
    milliseconds,
    number,
    tokens_per_second,
    usd,
)
from gateway.endpoints.admin.page.waterfall import lanes
from gateway.errors import CODES
from gateway.ledger.narrative import sentences
from gateway.ledger.report import RequestHistory
from gateway.ledger.spans import spans_of
from gateway.record import TimelineMark

PAGE_ROWS = 50
OUTCOMES = ("ok", "incomplete", "failed", "refused", "client_gone")
ASKED = ("user", "account", "outcome", "since")
FALL_LEGEND = (
    ("w-arrive", "arrives"),
    ("w-wait", "waits for a slot"),
    ("w-connect", "until the upstream's head"),
    ("w-think", "until the first output"),
    ("w-stream", "output"),
    ("w-failed", "failed attempt"),
)

Document = Mapping[str, Any]
Values = dict[str, Any]


def search_values(
    asked: Mapping[str, str], rows: Sequence[Document], following: str | None
) -> Values:
    """
    The values of ``requests.html``.

    Args:
        asked: the fields of the form.
        following: the ``next`` of the answer.
    """
    narrowed = {name: asked[name] for name in ASKED if asked.get(name)}
    older = urlencode({**narrowed, "next": following}) if following else ""
    return {
        "asked": {name: asked.get(name, "") for name in ("id", *ASKED)},
        "outcomes": OUTCOMES,
        "rows": [{**one, "look": look_of(one)} for one in rows],
        "next": f"/requests?{older}" if older else "",
        "narrowed": bool(narrowed or asked.get("id")),
        "error": "",
    }


def look_of(row: Document) -> str:
    """The state or outcome of a request, as ``looks`` knows it."""
    if row["state"] == "ended":
        return str(row["outcome"])
    phase = str(row["phase"])
    return phase if phase in ("arriving", "draining") else str(row["state"])


def request_values(detail: Document) -> Values:
    """The values of ``request.html``."""
    marks = detail["timeline"]
    running = detail["state"] != "ended"
    history = history_of(detail)
    spans = spans_of(history)
    took_s = history.age_s or (detail["duration_ms"] or 0.0) / 1000
    whole_s = max([took_s, *(span.end_s for span in spans)])
    return {
        "request_id": detail["request_id"],
        "is_open": running,
        "look": look_of(detail),
        "why": sentences(history),
        "lanes": lanes(spans, whole_s),
        "total_ms": whole_s * 1000,
        "fall_legend": FALL_LEGEND,
        "no_timeline": "There is no timeline: its trace was too old to keep.",
        "groups": [group for group in groups(detail) if group["facts"]],
        "attempts": [attempt_values(one) for one in detail["attempts"]],
        "marks": mark_values(marks),
        "others": detail["others"],
    }


def history_of(detail: Document) -> RequestHistory:
    """*detail* as the ledger keeps it, or as it is in the process that serves it."""
    row = {
        **detail,
        "started_at": datetime.fromisoformat(detail["started_at"]),
        "dropped": ",".join(detail["dropped"]),
        "outcome": detail["outcome"] or "open",
    }
    marks = [
        TimelineMark(
            mark["at_ms"] / 1000,
            mark["event"],
            {k: v for k, v in mark.items() if k not in ("at_ms", "event")},
        )
        for mark in detail["timeline"]
    ]
    attempts = [
        {
            **one,
            "started_at": datetime.fromisoformat(one["started_at"]),
            "ended_at": one["ended_at"] and datetime.fromisoformat(one["ended_at"]),
        }
        for one in detail["attempts"]
    ]
    return RequestHistory(row, attempts, marks, detail["age_s"])


def groups(detail: Document) -> list[Values]:
    """The record, in four parts."""
    return [
        {"name": "Who asked", "facts": _asked(detail)},
        {"name": "What the client got", "facts": _got(detail)},
        {"name": "Where it was sent", "facts": _sent(detail)},
        {"name": "What it used", "facts": _used(detail)},
    ]


def _asked(detail: Document) -> list[Values]:
    user = detail["user"]
    return _facts(
        _fact("user", user, link=f"/users/{user}" if user else ""),
        _fact("key", detail["key"], mono=True),
        _fact("client", detail["client"]),
        _fact("session", detail["session"], mono=True),
        _fact("protocol", detail["protocol"]),
        _fact("model", detail["model"]),
        _fact("received", detail["started_at"], time=True),
    )


def _got(detail: Document) -> list[Values]:
    code = detail["error_code"]
    fault = CODES.get(code)
    status = detail["status"]
    how = "as a stream" if detail["stream"] else "as a whole"
    return _facts(
        _fact("asked for", how if detail["stream"] is not None else ""),
        _fact("HTTP status", str(status) if status else ""),
        _fact("code", code, mono=True),
        _fact("words", f"“{fault.sentence} …”" if fault else ""),
        _fact("fault of", detail["origin"]),
        _fact("response id", detail["response_id"], mono=True),
        _fact("left out", ", ".join(detail["dropped"])),
    )


def _sent(detail: Document) -> list[Values]:
    account = detail["account"]
    return _facts(
        _fact("account", account, link="/accounts" if account else ""),
        _fact("protocol", detail["upstream_protocol"]),
        _fact("model", detail["upstream_model"]),
        _fact("upstream’s id", detail["upstream_request_id"], mono=True),
        _fact("host or process", detail["node"], mono=True),
    )


def _used(detail: Document) -> list[Values]:
    about = " (estimated)" if detail["estimated"] else ""

    def tokens(name: str, note: str = "") -> str:
        value = detail[name]
        return "" if value is None else f"{number(value)} tokens{note}"

    cost = detail["cost_usd"]
    return _facts(
        _fact("input", tokens("input_tokens", about)),
        _fact("of it cached", tokens("cached_tokens")),
        _fact("written to cache", tokens("cache_write_tokens")),
        _fact("output", tokens("output_tokens", about)),
        _fact("of it reasoning", tokens("reasoning_tokens")),
        _fact("speed", tokens_per_second(detail["tokens_per_s"])),
        _fact("cost", f"{usd(cost)} USD" if cost is not None else ""),
        _fact("waited", _span(detail["queue_ms"])),
        _fact("first output", _span(detail["first_event_ms"])),
        _fact("in all", _span(detail["duration_ms"])),
    )


def _span(value: float | None) -> str:
    return "" if value is None else milliseconds(value)


def _fact(
    name: str, value: Any, *, mono: bool = False, link: str = "", time: bool = False
) -> Values:
    return {"name": name, "value": value, "mono": mono, "link": link, "time": time}


def _facts(*facts: Values) -> list[Values]:
    """Those that are known."""
    return [fact for fact in facts if fact["value"]]


def attempt_values(attempt: Document) -> Values:
    """A row of the table of attempts."""
    took_ms = None
    if attempt["ended_at"]:
        began = datetime.fromisoformat(attempt["started_at"])
        took = datetime.fromisoformat(attempt["ended_at"]) - began
        took_ms = max(0.0, took.total_seconds() * 1000)
    return {**attempt, "took_ms": took_ms}


def mark_values(marks: Sequence[Document]) -> list[Values]:
    """Every moment with the time since the one before, and its facts as text."""
    rows, before = [], 0.0
    for mark in marks:
        at_ms = mark["at_ms"]
        facts = {k: v for k, v in mark.items() if k not in ("at_ms", "event")}
        rows.append(
            {
                "at_ms": at_ms,
                "step_ms": at_ms - before,
                "event": mark["event"],
                "facts": " · ".join(f"{k} {_text(v)}" for k, v in facts.items()),
            }
        )
        before = at_ms
    return rows


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(one, (list, tuple)) for one in value)
        return (" | " if nested else ", ").join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)
