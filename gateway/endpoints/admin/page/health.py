"""The view Health: was it well for the users, and if not: us or them?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.endpoints.admin.page.plots import Plot, Series, lines, stacked_bars
from gateway.endpoints.admin.page.text import figure, number, share
from gateway.errors import CODES

Document = Mapping[str, Any]
Values = dict[str, Any]

SPANS = (
    ("6h", "6 hours"),
    ("24h", "24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
)
MAX_CODES = 30
ORIGINS = ("client", "gateway", "upstream")
GOOD_SHARE = 0.99  # below it something is wrong
WAIT_MS = 10_000.0  # a p95 of the queue above it is worth a word
MIN_ATTEMPTS = 10  # from which on what failed of them says something
BAD_ACCOUNT = 2.0  # an account that fails so much more often than the others


def health_values(asked: str, health: Document, accounts: Sequence[Document]) -> Values:
    """
    The values of ``health.html``.

    Args:
        asked: the span, one of ``SPANS``.
        accounts: how they are now.
    """
    hours = [hour_values(one) for one in health["data"]]
    total = totals(hours)
    table = account_rows(health["data"], accounts)
    return {
        "asked": {"since": asked},
        "spans": SPANS,
        "error": "",
        "verdict": verdict(total, table, hours),
        "hours": hours,
        "figures": [
            figure("requests", number(total["requests"])),
            figure("well for the user", share(total["share"])),
            *(figure(f"fault: {name}", number(total[name])) for name in ORIGINS),
        ],
        "by_hour": by_hour(hours),
        "waits": waits(hours),
        "accounts": table,
        "codes": code_rows(health["data"]),
    }


def hour_values(hour: Document) -> Values:
    """One hour, flat."""
    first, queue = hour["first_event_ms"], hour["queue_ms"]
    return {
        **{name: hour[name] for name in ("hour", "requests", "well", "counted")},
        "well_share": hour["well_share"],
        **{name: hour["failures"]["origin"][name] for name in ORIGINS},
        "first_p50": first["p50"],
        "first_p95": first["p95"],
        "queue_p50": queue["p50"],
        "queue_p95": queue["p95"],
    }


def totals(hours: Sequence[Document]) -> Values:
    """All hours together."""
    names = ("requests", "well", "counted", *ORIGINS)
    total: Values = {name: sum(one[name] for one in hours) for name in names}
    counted = total["counted"]
    total["share"] = total["well"] / counted if counted else None
    return total


def by_hour(hours: Sequence[Document]) -> Plot:
    """Requests by hour: well, and whose fault the others were."""
    series = [
        Series("well", [one["well"] for one in hours], "f-well"),
        Series("fault: client", [one["client"] for one in hours], "f-client"),
        Series("fault: gateway", [one["gateway"] for one in hours], "f-gateway"),
        Series("fault: upstream", [one["upstream"] for one in hours], "f-upstream"),
    ]
    return stacked_bars([one["hour"] for one in hours], series)


def waits(hours: Sequence[Document]) -> Plot:
    """The percentiles by hour."""
    named = (
        ("first event p50", "first_p50"),
        ("first event p95", "first_p95"),
        ("queue p50", "queue_p50"),
        ("queue p95", "queue_p95"),
    )
    series = [Series(name, [one[key] for one in hours]) for name, key in named]
    return lines([one["hour"] for one in hours], series)


def account_rows(
    hours: Sequence[Document], accounts: Sequence[Document]
) -> list[Values]:
    """Each account: how it is now, and how its attempts went."""
    states = {one["name"]: one["state"] for one in accounts}
    attempts: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for hour in hours:
        attempts.update(hour["attempts"])
        failed.update(hour["failures"]["account"])
    names = [*states, *(name for name in attempts if name not in states)]
    return [
        {
            "name": name,
            "state": states.get(name, "removed"),
            "attempts": attempts.get(name, 0),
            "failed": failed.get(name, 0),
            "share": (
                failed.get(name, 0) / attempts[name] if attempts.get(name) else None
            ),
        }
        for name in names
    ]


def code_rows(hours: Sequence[Document]) -> list[Values]:
    """Failures by their code, the most frequent first, with what the code means."""
    counts: Counter[str] = Counter()
    for hour in hours:
        counts.update(hour["failures"]["code"])
    return [
        {
            "code": code,
            "means": CODES[code].sentence if code in CODES else "",
            "requests": count,
        }
        for code, count in counts.most_common(MAX_CODES)
    ]


def verdict(
    total: Document, accounts: Sequence[Document], hours: Sequence[Document]
) -> Values:
    """Us or them, in a word and in sentences."""
    if not total["counted"]:
        return {
            "state": "nothing",
            "word": "no data",
            "sentences": ["No request has ended in this time."],
        }
    ours, theirs = total["gateway"], total["upstream"]
    well = total["share"] >= GOOD_SHARE
    state = "well"
    if not well:
        state = "them" if theirs > 2 * ours else "us" if ours > 2 * theirs else "both"
    said = [
        f"{share(total['share'])} of {number(total['counted'])} requests went well "
        f"for their users. Of the others, {number(theirs)} "
        f"{'is' if theirs == 1 else 'are'} the fault of an upstream and "
        f"{number(ours)} that of the gateway."
    ]
    if total["client"]:
        own = number(total["client"])
        said.append(
            "One request was the client’s own mistake: it counts neither way."
            if total["client"] == 1
            else f"{own} requests were the client’s own mistake: they count neither "
            "way."
        )
    said += [*_of_accounts(accounts), *_of_waits(hours)]
    return {"state": state, "word": WORDS[state], "sentences": said}


WORDS = {
    "well": "all is well",
    "us": "it is us",
    "them": "it is them",
    "both": "it is both",
}


def _of_accounts(accounts: Sequence[Document]) -> list[str]:
    """An account that stands out from the others, or none."""
    asked = [one for one in accounts if one["attempts"]]
    if not any(one["failed"] for one in asked):
        return []
    if len(asked) == 1:
        rate = asked[0]["failed"] / asked[0]["attempts"]
        return [f"There is one account alone; {share(rate)} of its attempts failed."]
    known = [one for one in asked if one["attempts"] >= MIN_ATTEMPTS] or asked
    worst = max(known, key=lambda one: one["failed"] / one["attempts"])
    others = [one for one in asked if one is not worst]
    rate = worst["failed"] / worst["attempts"]
    rest = sum(one["failed"] for one in others) / sum(o["attempts"] for o in others)
    if rate >= BAD_ACCOUNT * max(rest, 0.005):
        return [
            f"{worst['name']} stands out: {share(rate)} of its attempts failed, "
            f"{share(rest)} of the others’."
        ]
    return ["No account stands out from the others."]


def _of_waits(hours: Sequence[Document]) -> list[str]:
    slow = [one for one in hours if (one["queue_p95"] or 0) > WAIT_MS]
    if not slow:
        return []
    spent = "one hour" if len(slow) == 1 else f"{number(len(slow))} hours"
    return [
        f"In {spent} one request in twenty waited more than "
        f"{number(WAIT_MS / 1000)} s for a slot: more slots or another account help."
    ]
