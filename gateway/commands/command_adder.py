"""What every command has on the command line: help, examples, ``--config``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from gateway.config.location import default_path

Commands = argparse._SubParsersAction  # what ``add_subparsers`` gives
Run = Callable[[argparse.Namespace], int]


def config_path(args: argparse.Namespace) -> Path:
    """The config file of a command line."""
    return Path(args.config or default_path()).resolve()


def add_group(
    commands: Commands[argparse.ArgumentParser], name: str, text: str
) -> Commands[argparse.ArgumentParser]:
    """A word with commands below it, such as ``gateway key``."""
    group = commands.add_parser(name, help=text, description=sentence(text))
    return group.add_subparsers(required=True, metavar="COMMAND")


def add_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    run: Run,
    text: str,
    *examples: str,
    as_json: str = "",
) -> argparse.ArgumentParser:
    """
    A command with ``--config``.

    Args:
        as_json: the help of ``--json``; "" for a command without it.
    """
    command = commands.add_parser(
        name,
        help=text,
        description=sentence(text),
        epilog="examples:\n" + "\n".join(f"  {one}" for one in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if as_json:
        command.add_argument("--json", action="store_true", help=as_json)
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: ./config.toml, else /etc/gateway/config.toml",
    )
    command.set_defaults(run=run)
    return command


def add_question(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    action: str,
    text: str,
    *examples: str,
) -> argparse.ArgumentParser:
    """
    A command that asks the running daemon.

    Args:
        action: ``MODULE.FUNCTION`` below ``gateway.commands``, loaded when it runs.
    """
    return add_command(
        commands,
        name,
        partial(ask_daemon, action),
        text,
        *examples,
        as_json="print what the admin API answers",
    )


def ask_daemon(action: str, args: argparse.Namespace) -> int:
    """Do the *action* of ``add_question``; the exit status."""
    from gateway.commands import operate

    module, _, function = action.partition(".")
    found = getattr(import_module(f"gateway.commands.{module}"), function)
    return operate.run(found, args, config_path(args))


def sentence(text: str) -> str:
    """*text* as the description of a command; names keep their capitals."""
    return text[:1].upper() + text[1:] + "."
