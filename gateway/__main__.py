"""The command line: ``gateway`` and ``python -m gateway``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from gateway import __version__
from gateway.commands import output
from gateway.commands.daemon_parsers import add_daemon_commands
from gateway.commands.installation_parsers import (
    add_installation_commands,
    serve,
    worker,
)
from gateway.commands.ledger_parsers import add_ledger_commands
from gateway.commands.user_parsers import add_user_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    try:
        with output.checked_output():
            parser = _parser()
            _complete(parser)
            args = parser.parse_args(arguments)
            run: Callable[[argparse.Namespace], int] = args.run
            if run not in (serve, worker):
                return run(args)
    except output.OutputError as error:
        return output.report(error)
    except KeyboardInterrupt:
        return output.interrupted()
    return run(args)  # a daemon: its log is never a reason to end


def _parser() -> argparse.ArgumentParser:
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
