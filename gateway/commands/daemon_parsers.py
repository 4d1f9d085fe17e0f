"""The words of the commands that speak with a running daemon."""

from __future__ import annotations

import argparse

from gateway.commands.command_adder import Commands, add_group, add_question


def add_daemon_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add all of them, but those for users and keys."""
    _add_account(add_group(commands, "account", "see, pause, reset and test accounts"))
    _add_request(add_group(commands, "request", "see and end requests"))
    add_question(
        commands,
        "reload",
        "operate.reload",
        "have the daemon read its config again; prints what changed, or mistakes",
        "gateway reload",
    )
    add_question(
        commands,
        "restart",
        "operate.restart",
        "replace the processes that serve by new ones; no stream is cut",
        "gateway restart",
    )
    add_question(
        commands,
        "top",
        "operate.top",
        "live: who runs and waits, accounts and their cooldowns, failures; keys "
        "to sort, filter, end, pause and open a timeline",
        "gateway top",
        "gateway top --json                the same facts once, for scripts",
    )


def _add_account(actions: Commands[argparse.ArgumentParser]) -> None:
    add_question(
        actions,
        "list",
        "operate.account_list",
        "every account: its state, slots, waits and failures",
        "gateway account list",
        "gateway account list --json | jq '.data[] | select(.state != \"ready\")'",
    )
    for name, text in (
        ("pause", "send it nothing new; what runs there goes on"),
        ("resume", "undo a pause"),
        ("reset", "forget its cooldown, as after its key was mended"),
    ):
        command = add_question(
            actions,
            name,
            "operate.account_act",
            text,
            f"gateway account {name} openai-1",
        )
        command.add_argument("name", metavar="NAME")
        command.set_defaults(action=name)
    test = add_question(
        actions,
        "test",
        "operate.account_test",
        "send it one small request, and say how each step went; it may cost a "
        "fraction of a cent",
        "gateway account test openai-1 --model gpt-5.5-mini",
    )
    test.add_argument("name", metavar="NAME")
    test.add_argument("--model", metavar="MODEL", help="default: one of its own")


def _add_request(actions: Commands[argparse.ArgumentParser]) -> None:
    listed = add_question(
        actions,
        "list",
        "operate.request_list",
        "what waits and runs now; with --state ended what has ended",
        "gateway request list --user alice",
        "gateway request list --state ended --outcome failed --since 2h",
    )
    listed.add_argument("--state", choices=("running", "waiting", "ended"))
    listed.add_argument("--user", metavar="NAME")
    listed.add_argument("--account", metavar="NAME")
    listed.add_argument(
        "--outcome",
        choices=("ok", "incomplete", "failed", "refused", "client_gone"),
    )
    listed.add_argument("--since", metavar="DATE", help="a day, or 90m, 24h, 7d")
    listed.add_argument("--limit", type=int, metavar="N", default=100)
    end = add_question(
        actions,
        "end",
        "operate.request_end",
        "end one, in any state: its client gets the ending ended_by_operator",
        "gateway request end fd277bc5-ff7e-45d1-8aa9-f54e1df318f1",
    )
    end.add_argument("id", metavar="ID")
