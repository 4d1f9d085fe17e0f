"""The commands by which an operator sees and changes a running daemon."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.commands.admin_client import CommandError, DaemonClient, part
from gateway.commands.refusal import CANNOT, FAILED, refuse, refuse_config
from gateway.commands.tables import print_json, print_table, seconds
from gateway.config.parse import ConfigError

Action = Callable[[DaemonClient, argparse.Namespace], int]


def run(action: Action, args: argparse.Namespace, config: Path) -> int:
    """Do *action* at the daemon of *config*; the exit status."""
    try:
        return action(DaemonClient(config), args)
    except ConfigError as error:
        return refuse_config(args, error)
    except CommandError as error:
        return refuse(args, error.code, str(error), answer=error.answer)


# --- accounts -------------------------------------------------------------------------


def account_list(client: DaemonClient, args: argparse.Namespace) -> int:
    """Print every account."""
    answer = client.ask("GET", "/accounts")
    if args.json:
        print_json(answer)
        return 0
    heads = ("account", "state", "why", "returns in", "slots", "waiting", "wait")
    more = ("sessions", "failures/h", "protocol")
    print_table(
        heads + more,
        [_account_row(one) for one in answer["data"]],
        right=("returns in", "slots", "waiting", "wait", "sessions", "failures/h"),
    )
    return 0


def _account_row(one: dict[str, Any]) -> list[Any]:
    slots = one["slots"]
    why = one["reason"]
    if one["state"] == "paused":
        why = f"by {one['paused_by']}"
    return [
        one["name"],
        one["state"],
        why,
        seconds(one["returns_in_s"]),
        f"{slots['in_use']}/{slots['limit'] or '∞'}",
        one["waiting"],
        seconds(one["wait_s"]),
        one["sessions"],
        one["failures_last_hour"],
        one["protocol"],
    ]


def account_act(client: DaemonClient, args: argparse.Namespace) -> int:
    """Pause, resume or reset an account."""
    answer = client.ask("POST", f"/accounts/{part(args.name)}/{args.action}")
    if args.json:
        print_json(answer)
    else:
        left = seconds(answer["returns_in_s"])
        print(f"{answer['name']} is {answer['state']}" + (f", {left}" if left else ""))
    return 0


def account_test(client: DaemonClient, args: argparse.Namespace) -> int:
    """Send one small request to an account, step by step."""
    body = {"model": args.model} if args.model else {}
    answer = client.ask("POST", f"/accounts/{part(args.name)}/test", body=body)
    if args.json:
        print_json(answer)
    else:
        rows = [
            (one["step"], "ok" if one["ok"] else "failed", one["ms"], one["detail"])
            for one in answer["steps"]
        ]
        print_table(("step", "result", "ms", "detail"), rows, right=("ms",))
    return 0 if answer["ok"] else FAILED


# --- requests -------------------------------------------------------------------------


def request_list(client: DaemonClient, args: argparse.Namespace) -> int:
    """Print what runs and waits, or what has ended."""
    query = {
        name: getattr(args, name)
        for name in ("state", "user", "account", "outcome", "since", "limit")
    }
    answer = client.ask("GET", "/requests", query)
    if not args.state and not args.outcome:
        live = [one for one in answer["data"] if one["state"] != "ended"]
        answer = {"data": live}
    if args.json:
        print_json(answer)
        return 0
    if not answer["data"]:
        print("No requests.")
        return 0
    heads = ("request id", "state", "user", "account", "model", "place", "wait", "age")
    print_table(
        heads + ("tokens/s", "outcome"),
        [_request_row(one) for one in answer["data"]],
        right=("place", "wait", "age", "tokens/s"),
    )
    return 0


def _request_row(one: dict[str, Any]) -> list[Any]:
    phase, state = one["phase"], one["state"]
    shown = state if phase in (state, "queued_user", "queued_account") else phase
    age_s = one["age_s"]
    if age_s is None and one["duration_ms"] is not None:
        age_s = one["duration_ms"] / 1000
    why = " ".join(filter(None, (one["outcome"], one["error_code"])))
    return [
        one["request_id"],
        shown,
        one["user"],
        one["account"],
        one["model"],
        one["position"],
        seconds(one["wait_s"]),
        seconds(age_s),
        one["tokens_per_s"],
        why,
    ]


def request_end(client: DaemonClient, args: argparse.Namespace) -> int:
    """End a request."""
    answer = client.ask("DELETE", f"/requests/{part(args.id)}")
    if args.json:
        print_json(answer)
    else:
        print(f"{answer['request_id']} was {answer['state']} and is being ended")
    return 0


# --- the process ----------------------------------------------------------------------


def reload(client: DaemonClient, args: argparse.Namespace) -> int:
    """Have the daemon read its config again; 2 if that has mistakes."""
    try:
        answer = client.ask("POST", "/reload")
    except CommandError as error:
        if error.code != "invalid_config":
            raise
        if args.json:
            print_json(error.answer)
        else:
            for mistake in error.answer["error"]["mistakes"]:
                print(f"{mistake['path']}: {mistake['message']}")
        return CANNOT
    if args.json:
        print_json(answer)
        return 0
    for key in answer["changed"]:
        print(f"changed         {key}")
    for key in answer["restart_needed"]:
        print(f"needs a restart {key}")
    if not answer["changed"] and not answer["restart_needed"]:
        print("Nothing has changed.")
    return 0


def top(client: DaemonClient, args: argparse.Namespace) -> int:
    """Show what happens, live; as JSON, what happens at this moment."""
    if args.json:
        print_json(client.snapshot())
        return 0
    from gateway.commands import top as screen

    return screen.top(client)


def restart(client: DaemonClient, args: argparse.Namespace) -> int:
    """Have new workers take over, with the code on disk."""
    answer = client.ask("POST", "/restart")
    if args.json:
        print_json(answer)
    else:
        print("The new workers serve; what still runs finishes in the old ones.")
    return 0
