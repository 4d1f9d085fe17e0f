"""The words of the commands for users and keys."""

from __future__ import annotations

import argparse

from gateway.commands.command_adder import (
    Commands,
    add_group,
    add_question,
    ask_daemon,
)

LIMITS = (
    ("max-concurrent", "requests at once; 0 = no limit"),
    ("max-queued", "that may wait behind them"),
    ("queue-timeout-s", "longest wait, in seconds"),
    ("ping-interval-s", "keepalives, in seconds"),
    ("max-waiting-bytes", "of bodies that arrive or wait"),
)
BUDGETS = (
    ("usd-per-day", "US dollars; 0 = no limit"),
    ("usd-per-month", "US dollars"),
    ("tokens-per-day", "input and output together"),
    ("requests-per-minute", "requests that arrive"),
)


def add_user_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``gateway user`` and ``gateway key``."""
    _add_user(add_group(commands, "user", "make, change and remove users"))
    _add_key(add_group(commands, "key", "make, list and revoke keys of users"))


def _add_user(actions: Commands[argparse.ArgumentParser]) -> None:
    add_question(
        actions,
        "list",
        "users.user_list",
        "every user: limits, budget, what runs",
        "gateway user list",
    )
    for name, text, example in (
        ("add", "make a user, without a key yet", "--max-concurrent 3 --usd-per-day 5"),
        (
            "set",
            "change limits and budgets; 'default' undoes one",
            "--usd-per-day 10 --max-concurrent default",
        ),
    ):
        command = add_question(
            actions,
            name,
            f"users.user_{name}",
            text,
            f"gateway user {name} carol {example}",
        )
        command.add_argument("name", metavar="NAME")
        for option, help_text in LIMITS + BUDGETS:
            command.add_argument(f"--{option}", metavar="N", help=help_text)
    remove = add_question(
        actions,
        "remove",
        "users.user_remove",
        "remove a user: what runs may finish, what waits is refused",
        "gateway user remove carol",
    )
    remove.add_argument("name", metavar="NAME")


def _add_key(actions: Commands[argparse.ArgumentParser]) -> None:
    new = add_question(
        actions,
        "new",
        "users.key_new",
        "print a new key, once; without --user also its config line",
        "gateway key new                   for [[user]] of the config",
        "gateway key new --user carol --label laptop --expires 90d",
    )
    new.add_argument("--user", metavar="NAME", help="who gets it, at once")
    new.add_argument("--label", metavar="TEXT", help="what it is for")
    new.add_argument("--expires", metavar="WHEN", help="a day, or 12h, 90d")
    new.set_defaults(run=_new_key)
    add_question(
        actions,
        "list",
        "users.key_list",
        "every key: user, label, last use, expiry",
        "gateway key list",
    )
    revoke = add_question(
        actions,
        "revoke",
        "users.key_revoke",
        "revoke a key of a user that was made at run time",
        "gateway key revoke 1f2e3d4c",
    )
    revoke.add_argument("prefix", metavar="PREFIX", help="as in key list")


def _new_key(args: argparse.Namespace) -> int:
    if args.user or args.label or args.expires:
        return ask_daemon("users.key_new", args)
    from gateway.config.keys import key_sha256, new_key

    key = new_key()
    if args.json:
        from gateway.commands.tables import print_json

        print_json({"key": key, "key_sha256": key_sha256(key)})
        return 0
    print(f"{key}\n\nThe key is shown only now. Its line for [[user]] in the config:")
    print(f'key_sha256 = ["{key_sha256(key)}"]')
    return 0
