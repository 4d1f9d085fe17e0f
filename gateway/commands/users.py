"""``gateway user …`` and ``gateway key …``: users and keys of a running daemon."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.commands.admin_client import CommandError, DaemonClient, part
from gateway.commands.tables import print_json, print_table
from gateway.commands.user_parsers import BUDGETS, LIMITS

_AFTER = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


# --- users ----------------------------------------------------------------------------


def user_list(client: DaemonClient, args: argparse.Namespace) -> int:
    """Print every user."""
    users = list(_users(client))
    if args.json:
        print_json({"data": users})
        return 0
    heads = ("user", "source", "slots", "running", "waiting", "keys", "budget used")
    print_table(
        heads,
        [
            (
                one["name"],
                one["source"],
                one["max_concurrent"] or "∞",
                one["running"],
                one["waiting"],
                len(one["keys"]),
                _budget(one),
            )
            for one in users
        ],
        right=heads[2:6],
    )
    return 0


def user_add(client: DaemonClient, args: argparse.Namespace) -> int:
    """Make a user."""
    limits, budget = _given(args, LIMITS), _given(args, BUDGETS)
    body = {"name": args.name, **limits}
    if budget := {name: value for name, value in budget.items() if value is not None}:
        body["budget"] = budget
    answer = client.ask("POST", "/users", body=body)
    return _said(
        args, answer, f"{args.name} is made; a key: gateway key new --user {args.name}"
    )


def user_set(client: DaemonClient, args: argparse.Namespace) -> int:
    """Change a user."""
    body = _given(args, LIMITS)
    if budget := _given(args, BUDGETS):
        body["budget"] = budget
    if not body:
        raise CommandError("nothing to change: name a limit or a budget (see --help)")
    answer = client.ask("PATCH", f"/users/{part(args.name)}", body=body)
    return _said(args, answer, f"{args.name} is changed.")


def user_remove(client: DaemonClient, args: argparse.Namespace) -> int:
    """Remove a user."""
    client.ask("DELETE", f"/users/{part(args.name)}")
    return _said(args, {}, f"{args.name} is removed; what runs may finish.")


# --- keys -----------------------------------------------------------------------------


def key_new(client: DaemonClient, args: argparse.Namespace) -> int:
    """Make a key of a user."""
    if not args.user:
        raise CommandError("--label and --expires need --user")
    body: dict[str, object] = {"label": args.label or ""}
    if args.expires:
        body["expires_at"] = moment_of(args.expires, datetime.now(UTC)).isoformat()
    answer = client.ask("POST", f"/users/{part(args.user)}/keys", body=body)
    shown = f"{answer['key']}\n\nThe key is shown only now; {args.user} can use it."
    return _said(args, answer, shown)


def key_list(client: DaemonClient, args: argparse.Namespace) -> int:
    """Print every key."""
    keys = [key for user in _users(client) for key in user["keys"]]
    if args.json:
        print_json({"data": keys})
        return 0
    names = ("prefix", "user", "source", "label", "last_used_at", "expires_at")
    heads = ("key", "user", "source", "label", "last used", "expires")
    print_table(heads, [[_shown(key[name]) for name in names] for key in keys])
    return 0


def key_revoke(client: DaemonClient, args: argparse.Namespace) -> int:
    """Revoke the key whose hash begins so."""
    wanted = args.prefix.lower()
    found = {
        user["name"]
        for user in _users(client)
        for key in user["keys"]
        if key["prefix"] == wanted[:8]
    }
    if not found or len(wanted) < 8:
        raise CommandError(f"there is no key {args.prefix} (see: gateway key list)")
    if len(found) > 1:
        raise CommandError(f"several users have a key {wanted}: {', '.join(found)}")
    [user] = found
    client.ask("DELETE", f"/users/{part(user)}/keys/{part(wanted)}")
    return _said(args, {}, f"The key {wanted} of {user} is revoked.")


def moment_of(text: str, now: datetime) -> datetime:
    """
    When a key expires: a day or moment in UTC, or how long from *now* (``90d``).

    Raises:
        CommandError: it is neither.
    """
    try:
        if after := _AFTER.fullmatch(text):
            return now + timedelta(**{_UNITS[after[2]]: int(after[1])})
        when = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise CommandError(
            f"--expires {text!r}: must be a day such as 2027-01-31, or 12h, or 90d"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _users(client: DaemonClient) -> Iterator[dict[str, Any]]:
    """Every user, however many answers it takes."""
    after: str | None = ""
    while after is not None:
        answer = client.ask("GET", "/users", {"after": after})
        yield from answer["data"]
        after = answer["next"]


def _given(
    args: argparse.Namespace, options: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """The values of the *options* that were given; None for ``default``."""
    names = [option.replace("-", "_") for option, _ in options]
    return {
        name: _number(name, value)
        for name in names
        if (value := getattr(args, name)) is not None
    }


def _number(name: str, text: str) -> int | float | None:
    if text == "default":
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        option = name.replace("_", "-")
        raise CommandError(f"--{option} {text!r}: must be a number") from None


def _budget(user: dict[str, Any]) -> str:
    return ", ".join(
        f"{one['used']:g} of {one['limit']:g} {one['budget']}"
        for one in user["budget_used"]
    )


def _shown(value: str | None) -> str | None:
    """A moment to the minute, anything else as it is."""
    is_moment = value and re.match(r"\d{4}-\d\d-\d\dT", value)
    return value[:16].replace("T", " ") if is_moment and value else value


def _said(args: argparse.Namespace, answer: Any, text: str) -> int:
    if args.json:
        print_json(answer)
    else:
        print(text)
    return 0
