"""The views Users: all of them, and one with its keys, limits and budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.endpoints.admin.page.forms import EXPIRIES, LIMITS
from gateway.endpoints.admin.page.text import cents, figure, number

Document = Mapping[str, Any]
Values = dict[str, Any]

FROM = {"config": "config file", "runtime": "at run time"}


def users_values(
    users: Sequence[Document],
    spent: Mapping[str, float],
    form: Values | None = None,
) -> Values:
    """
    The values of ``users.html``.

    Args:
        spent: what each has cost today, in US dollars.
        form: the form as it was sent, with what was wrong with it.
    """
    form = form or {}
    name = {"name": "name", "label": "Name", "numeric": False, "placeholder": ""}
    fields = [
        {**name, "value": form.get("name", ""), "error": _error(form, "name")},
        *limit_fields(form),
    ]
    return {
        "users": [row_values(one, spent.get(one["name"], 0.0)) for one in users],
        "fields": fields,
        "form_error": _form_error(form, with_name=True),
    }


def row_values(user: Document, usd_today: float) -> Values:
    """A row of the table."""
    used = (key["last_used_at"] for key in user["keys"] if key["last_used_at"])
    return {
        **user,
        "from_text": FROM.get(user["source"], user["source"]),
        "usd_today": usd_today,
        "usd_per_day": user["budget"]["usd_per_day"],
        "key_count": len(user["keys"]),
        "last_used_at": max(used, default=None),
    }


def user_values(
    user: Document,
    usd_today: float,
    *,
    form: Values | None = None,
    key_form: Values | None = None,
    new_key: str = "",
    first_request: str = "",
) -> Values:
    """
    The values of ``user.html``.

    Args:
        form, key_form: a form as it was sent, with what was wrong with it.
        new_key: the key that was just made; it is shown this once.
    """
    shown = form if form is not None else form_of(user)
    editable = user["source"] != "config"
    defaults = {name: shortly(user[name]) for name in user["inherited"]}
    return {
        "user": user,
        "editable": editable,
        "figures": figures(user, usd_today),
        "keys": user["keys"],
        "fields": limit_fields(shown, defaults),
        "form_error": _form_error(shown, editable),
        "key_form": {"label": "", "expires": "", "error": "", **(key_form or {})},
        "expiries": EXPIRIES,
        "new_key": new_key,
        "first_request": first_request,
    }


BUDGETS = {
    "usd_per_day": ("USD today", cents),
    "usd_per_month": ("USD this month", cents),
    "tokens_per_day": ("tokens today", number),
    "requests_per_minute": ("requests in a minute", number),
}


def figures(user: Document, usd_today: float) -> list[Values]:
    """What runs and waits, and what of each budget is used."""
    limit = user["max_concurrent"]
    found = [
        figure("running", number(user["running"]), f"of {number(limit)}" * bool(limit)),
        figure("waiting", number(user["waiting"])),
    ]
    if not user["budget"]["usd_per_day"]:
        found.append(figure("USD today", cents(usd_today)))
    for one in user["budget_used"]:
        name, form = BUDGETS.get(one["budget"], (one["budget"], number))
        found.append(figure(name, form(one["used"]), f"of {form(one['limit'])}"))
    return found


def limit_fields(
    form: Mapping[str, Any], defaults: Mapping[str, str] | None = None
) -> list[Values]:
    """The inputs of a user's limits, as *form* fills them."""
    defaults = defaults or {}
    return [
        {
            "name": limit.name,
            "label": limit.label,
            "numeric": True,
            "value": form.get(limit.name, ""),
            "placeholder": (
                "no budget"
                if "." in limit.name
                else f"default {defaults.get(limit.name, '')}".strip()
            ),
            "error": _error(form, limit.name),
        }
        for limit in LIMITS
    ]


def form_of(user: Document) -> dict[str, str]:
    """The form that *user* fills: its own limits, and its budget."""
    form = {}
    for limit in LIMITS:
        section, _, key = limit.name.rpartition(".")
        value = user[section][key] if section else user[key]
        if value if section else key not in user["inherited"]:
            form[limit.name] = shortly(value)
    return form


def shortly(value: float) -> str:
    """A number as people type it."""
    return str(int(value)) if value == int(value) else str(value)


def _error(form: Mapping[str, Any], name: str) -> str:
    return str(form.get("error", "")) if form.get("error_field") == name else ""


def _form_error(
    form: Mapping[str, Any], has_fields: bool = True, *, with_name: bool = False
) -> str:
    """What is wrong with no field of *form* in particular."""
    names = {limit.name for limit in LIMITS} | ({"name"} if with_name else set())
    beside_a_field = has_fields and form.get("error_field") in names
    return "" if beside_a_field else str(form.get("error", ""))
