"""The words of the commands for users, keys and the whole installation."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.config.keys import key_sha256, new_key

Commands = argparse._SubParsersAction  # what ``add_subparsers`` gives
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


class UsersParser:
    """
    Adds the commands.

    Args:
        config_path: gives the config file of a command line.
        add_config: adds the option ``--config``.
    """

    def __init__(
        self,
        config_path: Callable[[argparse.Namespace], Path],
        add_config: Callable[[argparse.ArgumentParser], None],
    ) -> None:
        self._config_path = config_path
        self._add_config = add_config

    def add(self, commands: Commands[argparse.ArgumentParser]) -> None:
        """Add all of them."""
        self._add_user(commands)
        self._add_key(commands)
        self._add_doctor(commands)

    def _add_user(self, commands: Commands[argparse.ArgumentParser]) -> None:
        user = commands.add_parser("user", help="make, change and remove users")
        actions = user.add_subparsers(required=True, metavar="COMMAND")
        self._asks(
            actions, "list", "user_list", "every user: limits, budget, what runs"
        )
        for name, function, text in (
            ("add", "user_add", "make a user, without a key yet"),
            ("set", "user_set", "change limits and budgets; 'default' undoes one"),
        ):
            command = self._asks(
                actions,
                name,
                function,
                text,
                f"gateway user {name} carol --max-concurrent 3 --usd-per-day 5",
            )
            command.add_argument("name", metavar="NAME")
            for option, help_text in LIMITS + BUDGETS:
                command.add_argument(f"--{option}", metavar="N", help=help_text)
        remove = self._asks(
            actions,
            "remove",
            "user_remove",
            "remove a user: what runs may finish, what waits is refused",
        )
        remove.add_argument("name", metavar="NAME")

    def _add_key(self, commands: Commands[argparse.ArgumentParser]) -> None:
        key = commands.add_parser("key", help="make, list and revoke keys of users")
        actions = key.add_subparsers(required=True, metavar="COMMAND")
        new = self._asks(
            actions,
            "new",
            "key_new",
            "print a new key, once; without --user also its config line",
            "gateway key new --user carol --label laptop --expires 90d",
        )
        new.add_argument("--user", metavar="NAME", help="who gets it, at once")
        new.add_argument("--label", metavar="TEXT", help="what it is for")
        new.add_argument("--expires", metavar="WHEN", help="a day, or 12h, 90d")
        new.set_defaults(run=self._new_key)
        self._asks(
            actions, "list", "key_list", "every key: user, label, last use, expiry"
        )
        revoke = self._asks(
            actions,
            "revoke",
            "key_revoke",
            "revoke a key of a user that was made at run time",
            "gateway key revoke 1f2e3d4c",
        )
        revoke.add_argument("prefix", metavar="PREFIX", help="as in key list")

    def _add_doctor(self, commands: Commands[argparse.ArgumentParser]) -> None:
        doctor = self._command(
            commands,
            "doctor",
            "look at the whole installation, and say what will go wrong",
            "gateway doctor",
            "GATEWAY_API_KEY=gw-… gateway doctor --through https://gateway.example.com",
        )
        doctor.add_argument(
            "--unit", metavar="NAME", default="", help="default: gateway.service"
        )
        doctor.add_argument(
            "--through",
            metavar="URL",
            default="",
            help="measure a stream of the trial account through this web server, "
            "with the key in GATEWAY_API_KEY",
        )
        doctor.add_argument(
            "--accounts",
            action="store_true",
            help="test each account with one small request, which may cost a little",
        )
        doctor.set_defaults(run=self._doctor)

    # --- what they do -----------------------------------------------------------------

    def _command(
        self,
        commands: Commands[argparse.ArgumentParser],
        name: str,
        text: str,
        *examples: str,
    ) -> argparse.ArgumentParser:
        shown = "examples:\n" + "\n".join(f"  {one}" for one in examples)
        command = commands.add_parser(
            name,
            help=text,
            description=text.capitalize() + ".",
            epilog=shown if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="for machines")
        self._add_config(command)
        return command

    def _asks(
        self,
        commands: Commands[argparse.ArgumentParser],
        name: str,
        function: str,
        text: str,
        *examples: str,
    ) -> argparse.ArgumentParser:
        """A command that asks the daemon; *function* is one of ``commands.users``."""
        command = self._command(commands, name, text, *examples)
        command.set_defaults(run=partial(self._ask, function))
        return command

    def _ask(self, function: str, args: argparse.Namespace) -> int:
        from gateway.commands import operate, users

        return operate.run(getattr(users, function), args, self._config_path(args))

    def _new_key(self, args: argparse.Namespace) -> int:
        if args.user or args.label or args.expires:
            return self._ask("key_new", args)
        key = new_key()
        print(
            f"{key}\n\nThe key is shown only now. Its line for [[user]] in the config:"
        )
        print(f'key_sha256 = ["{key_sha256(key)}"]')
        return 0

    def _doctor(self, args: argparse.Namespace) -> int:
        from gateway.commands.doctor import doctor

        return doctor(
            self._config_path(args),
            unit=args.unit,
            through=args.through,
            accounts=args.accounts,
            as_json=args.json,
        )
