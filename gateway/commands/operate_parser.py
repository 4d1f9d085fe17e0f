"""The words of the commands that speak with a running daemon, and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

PathOf = Callable[[argparse.Namespace], Path]


class OperateParser:
    """
    Adds the commands.

    Args:
        config_path: gives the config file of a command line.
        add_config: adds the option ``--config``.
    """

    def __init__(
        self,
        config_path: PathOf,
        add_config: Callable[[argparse.ArgumentParser], None],
    ) -> None:
        self._config_path = config_path
        self._add_config = add_config

    def add(
        self, commands: argparse._SubParsersAction[argparse.ArgumentParser]
    ) -> None:
        """Add all of them."""
        self._add_account(commands)
        self._add_request(commands)
        self._command(
            commands,
            "reload",
            "reload",
            "have the daemon read its config again; prints what changed, or mistakes",
            "gateway reload",
        )
        self._command(
            commands,
            "restart",
            "restart",
            "replace the processes that serve by new ones; no stream is cut",
            "gateway restart",
        )

        self._command(
            commands,
            "top",
            "top",
            "live: who runs and waits, accounts and their cooldowns, failures; keys "
            "to sort, filter, end, pause and open a timeline",
            "gateway top",
        )

    def _add_account(
        self, commands: argparse._SubParsersAction[argparse.ArgumentParser]
    ) -> None:
        account = commands.add_parser(
            "account", help="see, pause, reset and test accounts"
        )
        actions = account.add_subparsers(required=True, metavar="COMMAND")
        self._command(
            actions,
            "list",
            "account_list",
            "every account: its state, slots, waits and failures",
            "gateway account list",
        )
        for name, text in (
            ("pause", "send it nothing new; what runs there goes on"),
            ("resume", "undo a pause"),
            ("reset", "forget its cooldown, as after its key was mended"),
        ):
            command = self._command(
                actions, name, "account_act", text, f"gateway account {name} openai-1"
            )
            command.add_argument("name", metavar="NAME")
            command.set_defaults(action=name)
        test = self._command(
            actions,
            "test",
            "account_test",
            "send it one small request, and say how each step went; it may cost a "
            "fraction of a cent",
            "gateway account test openai-1 --model gpt-5.5-mini",
        )
        test.add_argument("name", metavar="NAME")
        test.add_argument("--model", metavar="MODEL", help="default: one of its own")

    def _add_request(
        self, commands: argparse._SubParsersAction[argparse.ArgumentParser]
    ) -> None:
        request = commands.add_parser("request", help="see and end requests")
        actions = request.add_subparsers(required=True, metavar="COMMAND")
        listed = self._command(
            actions,
            "list",
            "request_list",
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
        end = self._command(
            actions,
            "end",
            "request_end",
            "end one, in any state: its client gets the ending ended_by_operator",
            "gateway request end fd277bc5-ff7e-45d1-8aa9-f54e1df318f1",
        )
        end.add_argument("id", metavar="ID")

    def _command(
        self,
        commands: argparse._SubParsersAction[argparse.ArgumentParser],
        name: str,
        function: str,
        text: str,
        *examples: str,
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=text.capitalize() + ".",
            epilog="examples:\n" + "\n".join(f"  {one}" for one in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument(
            "--json", action="store_true", help="print what the admin API answers"
        )
        self._add_config(command)
        command.set_defaults(run=partial(self._run, function))
        return command

    def _run(self, function: str, args: argparse.Namespace) -> int:
        from gateway.commands import operate

        return operate.run(getattr(operate, function), args, self._config_path(args))
