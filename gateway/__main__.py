"""The command line: ``gateway`` and ``python -m gateway``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if run := _daemon(words):
        return run()
    from gateway.commands import output

    try:
        with output.checked_output():
            parser = _parser()
            _complete(parser)
            args = parser.parse_args(words)
            run_command: Callable[[argparse.Namespace], int] = args.run
            if not getattr(args, "is_daemon", False):
                return run_command(args)
    except output.OutputError as error:
        return output.report(error)
    except KeyboardInterrupt:
        return output.interrupted()
    return run_command(args)  # a daemon: its log is never a reason to end


def _daemon(words: list[str]) -> Callable[[], int] | None:
    """
    What runs the processes of a daemon; None for other words. It needs no parser: the
    parent stays smaller, and a worker starts sooner.
    """
    if "_ARGCOMPLETE" in os.environ:
        return None
    match words:
        case ["serve", "--config", path] if not path.startswith("-"):
            from pathlib import Path

            from gateway.commands.serve import serve

            return partial(serve, Path(path).resolve())
        case ["worker", "--control", *numbers] if all(map(str.isdecimal, numbers)):
            from gateway.commands.worker import work

            return partial(work, [*map(int, numbers)]) if numbers else None
    return None


def _parser() -> argparse.ArgumentParser:
    import argparse

    from gateway import __version__
    from gateway.commands.daemon_parsers import add_daemon_commands
    from gateway.commands.installation_parsers import add_installation_commands
    from gateway.commands.ledger_parsers import add_ledger_commands
    from gateway.commands.user_parsers import add_user_commands

    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A streaming gateway between developers' tools and "
        "language-model accounts.",
        epilog="gateway COMMAND --help has examples.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_installation_commands(commands)
    add_ledger_commands(commands)
    add_daemon_commands(commands)
    add_user_commands(commands)
    return parser


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a command line could go on, and exit."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


if __name__ == "__main__":
    sys.exit(main())
