"""The view Now: who runs, who waits, who holds which slots, and what failed last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from gateway.accounts.account_status import LASTING
from gateway.endpoints.admin.page.text import figure, number, seconds, tokens_per_second
from gateway.ledger.narrative_words import OUTAGES

MAX_OPEN = 200  # rows of the table
MAX_FAILURES = 10

Document = Mapping[str, Any]
Values = dict[str, Any]


def now_values(
    status: Document,
    open_requests: Sequence[Document],
    accounts: Sequence[Document],
    failures: Sequence[Document],
    started_at: object,
) -> Values:
    """
    The values of ``now.html``.

    Args:
        failures: those that failed or were refused, in any order.
        started_at: since when *failures* are looked for.
    """
    shown = sorted(open_requests, key=lambda one: one["state"] != "running")
    latest = sorted(map(failure_values, failures), key=_ended_unix, reverse=True)
    cards = [account_values(one) for one in accounts]
    return {
        "process": process_line(status),
        "say": spoken(status, cards),
        "figures": figures(status, open_requests),
        "open": [open_values(one) for one in shown[:MAX_OPEN]],
        "more_open": max(0, len(shown) - MAX_OPEN),
        "accounts": cards,
        "failures": latest[:MAX_FAILURES],
        "failures_since": started_at,
    }


def process_line(status: Document) -> str:
    """What serves, and for how long."""
    workers = status["workers"]
    words = [f"version {status['version']}", f"up {seconds(status['uptime_s'])}"]
    if workers != 1:
        words.append(f"{number(workers)} workers")
    if status["engine"] == "lost":
        words.append("the engine is lost: this host goes on with its share")
    if status["draining"]:
        words.append("draining: it takes nothing new")
    return ", ".join(words)


def figures(status: Document, open_requests: Iterable[Document]) -> list[Values]:
    """The large numbers on top."""
    rate = sum(one["tokens_per_s"] or 0.0 for one in open_requests)
    return [
        figure("running", number(status["running"]), rate="running"),
        figure("waiting", number(status["waiting"]), rate="waiting"),
        figure("output", number(rate), "tokens/s", rate="tokens_per_s"),
    ]


def spoken(status: Document, accounts: Iterable[Document]) -> str:
    """What a screen reader says when it has changed."""
    out = [one["name"] for one in accounts if one["state"] != "ready"]
    away = f", without {', '.join(out)}" if out else ""
    return f"{status['running']} running, {status['waiting']} waiting{away}"


def open_values(row: Document) -> Values:
    """A row of a request that waits or runs."""
    phase = row["phase"]
    look = row["state"] if phase not in ("arriving", "draining") else phase
    return {**row, "look": look, "doing": doing(row)}


def doing(row: Document) -> str:
    """What an open request does, in a few words."""
    phase, wait_s = row["phase"], row["wait_s"]
    if phase == "arriving":
        return "its body arrives"
    if phase == "draining":
        return "the client has left; its answer is read for its usage"
    if phase.startswith("queued"):
        line = f"{row['user']}’s slots" if phase == "queued_user" else "an account"
        position = row["position"]
        place = f"place {position} for {line}" if position else f"in line for {line}"
        return place + (f", about {seconds(wait_s)}" if wait_s is not None else "")
    if row["first_event_ms"] is None:
        return "no output yet"
    rate = tokens_per_second(row["tokens_per_s"])
    return f"output, {rate}" if rate else "output"


def account_values(account: Document) -> Values:
    """What the page shows of an account, whatever the view."""
    slots = account["slots"]
    in_use, limit = slots["in_use"], slots["limit"]
    holders = ", ".join(f"{o['user']} {o['requests']}" for o in account["holders"])
    return {
        "name": account["name"],
        "state": account["state"],
        "in_use": in_use,
        "limit": limit,
        "slots_text": (
            f"{number(in_use)} of {number(limit)} slots"
            if limit
            else f"{number(in_use)} in use, no limit"
        ),
        "held_by": f"held by {holders}" if holders else "",
        "waiting": account["waiting"],
        "wait_s": account["wait_s"],
        "why": account_reason(account),
        "until": account["until"],
    }


def account_reason(account: Document) -> str:
    """Why an account takes no requests; "" when it does."""
    if account["state"] == "ready":
        return ""
    reason = str(account["reason"] or "")
    if account["state"] == "paused":
        who = f" ({account['paused_by']})" if account["paused_by"] else ""
        return f"Paused by an operator{who}"
    words = OUTAGES.get(reason, reason or "it failed")
    act = ": a person must act" if reason in LASTING else ""
    return words[:1].upper() + words[1:] + act


def failure_values(row: Document) -> Values:
    """A row of a request that failed or was refused."""
    return {**row, "look": row["outcome"], "ended_at": ended_at(row)}


def ended_at(row: Document) -> datetime | None:
    """When a request ended."""
    if not row["started_at"]:
        return None
    took = timedelta(milliseconds=row["duration_ms"] or 0.0)
    return datetime.fromisoformat(row["started_at"]) + took


def _ended_unix(row: Values) -> float:
    at: datetime | None = row["ended_at"]
    return at.timestamp() if at else 0.0


def first_request(address: str, key: str, accounts: Sequence[Document]) -> str:
    """
    A request to paste into a terminal, for a model that one of *accounts* names.

    Args:
        address: where the gateway listens, as its config writes it.
        key: a key, or a variable of the shell.
    """
    models = (model for one in accounts for model in one["models"])
    model = next((one for one in models if not set(one) & set("*?['\"\\")), "MODEL")
    quote = '"' if key.startswith("$") else "'"
    return (
        f"curl -N http://{address}/v1/chat/completions "
        f"-H {quote}Authorization: Bearer {key}{quote} "
        "-H 'Content-Type: application/json' "
        f'-d \'{{"model": "{model}", "stream": true, '
        '"messages": [{"role": "user", "content": "Hello"}]}\''
    )
