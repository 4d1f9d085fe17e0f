"""The view Accounts: how each is, why, until when, and who holds its slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.endpoints.admin.page.now import account_values
from gateway.endpoints.admin.page.text import number
from gateway.ledger.narrative_words import OUTAGES

Document = Mapping[str, Any]
Values = dict[str, Any]

WILD = set("*?[")  # a pattern has one of them, a model's name none
VERBS = {
    "pause": "{name} is paused: it gets no new request, what runs there finishes.",
    "resume": "{name} takes requests again.",
    "reset": "The cooldown of {name} is forgotten.",
}


def accounts_values(accounts: Sequence[Document], test: Values | None = None) -> Values:
    """
    The values of ``accounts.html``.

    Args:
        test: what ``tested_values`` gives, after a test.
    """
    cards = []
    for one in accounts:
        needs_model = all(set(model) & WILD for model in one["models"])
        facts = {"facts": facts_of(one), "needs_model": needs_model}
        cards.append({**account_values(one), **facts})
    return {"accounts": cards, "test": test}


def facts_of(account: Document) -> list[Values]:
    """What is known of an account beside its slots."""
    failures = ", ".join(f"{n} {code}" for code, n in account["failures"].items())
    facts = [
        ("Sessions", number(account["sessions"])),
        ("Failures (1 h)", failures or "0"),
        ("Protocol", account["protocol"]),
        ("Models", ", ".join(account["models"])),
        ("Priority", number(account["priority"])),
    ]
    for one in account["outages"]:
        if one["scope"] != "account":
            why = OUTAGES.get(one["reason"], one["reason"])
            facts.append((f"Not for {one['scope']} {one['name']}", why))
    return [{"name": name, "value": value} for name, value in facts if value]


def tested_values(name: str, answer: Document) -> Values:
    """What a test of the account *name* has found, step by step."""
    return {"name": name, "ok": answer["ok"], "steps": answer["steps"]}
