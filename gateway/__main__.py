"""The command line: ``gateway`` and ``python -m gateway``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import __version__
from gateway.commands import output
from gateway.commands.operate_parser import OperateParser
from gateway.commands.users_parser import UsersParser
from gateway.config.location import default_path

PLAN_EXAMPLES = """\
examples:
  gateway plan                                            is the simulation right?
  gateway plan --set account.openai-1.max_concurrent=12   more slots of one account
  gateway plan --like account.openai-1=2 --since 24h      a second account like it
  gateway plan --set user.alice.max_concurrent=5 --plot   waits by hour as bars
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    try:
        with output.checked_output():
            parser = _parser()
            _complete(parser)
            args = parser.parse_args(arguments)
            run: Callable[[argparse.Namespace], int] = args.run
            if run not in (_serve, _worker):
                return run(args)
    except output.OutputError as error:
        return output.report(error)
    return run(args)  # a daemon: its log is never a reason to end


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A streaming gateway between developers' tools and "
        "language-model accounts.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = _command(commands, "serve", _serve, "run the daemon in the foreground")
    _config_option(serve)
    worker = commands.add_parser("worker")  # no help: the daemon alone starts it
    worker.add_argument("--control", type=int, nargs="+", required=True)
    worker.set_defaults(run=_worker)
    check = _command(commands, "check", _check, "validate the config; print mistakes")
    _config_option(check)

    _add_trace(commands)
    _add_usage(commands)
    _add_plan(commands)
    OperateParser(_path, _config_option).add(commands)
    UsersParser(_path, _config_option).add(commands)
    return parser


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a command line could go on, and exit."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def _add_trace(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    trace = _command(commands, "trace", _trace, "the timeline of one request")
    trace.add_argument(
        "id",
        nargs="?",
        metavar="ID",
        help="request id, resp_ id, upstream id, or a client's session id; "
        "without it requests are listed",
    )
    trace.add_argument("--since", metavar="DATE", help="list: not before this day")
    trace.add_argument("--user", metavar="NAME", help="list: of this user")
    trace.add_argument("--failed", action="store_true", help="list: failures only")
    trace.add_argument("--json", action="store_true", help="for machines")
    _config_option(trace)


def _add_usage(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    usage = _command(commands, "usage", _usage, "tokens and cost from the ledger")
    usage.add_argument("--user", metavar="NAME", help="of this user only")
    usage.add_argument("--since", metavar="DATE", help="not before this day (UTC)")
    usage.add_argument(
        "--by",
        metavar="KEYS",
        default="user",
        help="sums by any of user,model,account,day (default: user)",
    )
    usage.add_argument(
        "--mine",
        action="store_true",
        help="what a gateway says to the user of the key in GATEWAY_API_KEY",
    )
    usage.add_argument(
        "--url",
        metavar="URL",
        default="http://127.0.0.1:8080",
        help="of that gateway (default: %(default)s)",
    )
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for machines")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")
    _config_option(usage)


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = _command(
        commands, "plan", _plan, "what other limits would have changed in the past"
    )
    plan.formatter_class = argparse.RawDescriptionHelpFormatter
    plan.epilog = PLAN_EXAMPLES
    plan.add_argument(
        "--since", metavar="DATE", default="7d", help="a day, or 7d (default), or 24h"
    )
    plan.add_argument(
        "--set",
        metavar="PLACE=N",
        action="append",
        default=[],
        help="account.NAME.max_concurrent=N, user.NAME.max_concurrent=N, "
        "user.NAME.max_queued=N or user.NAME.queue_timeout_s=N",
    )
    plan.add_argument(
        "--like",
        metavar="account.NAME=N",
        action="append",
        default=[],
        help="as if there were N accounts like that one",
    )
    plan.add_argument("--plot", action="store_true", help="waits by hour, as bars")
    plan.add_argument("--json", action="store_true", help="for machines")
    _config_option(plan)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: object,
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    command.set_defaults(run=run)
    return command


def _config_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: ./config.toml, else /etc/gateway/config.toml",
    )


def _path(args: argparse.Namespace) -> Path:
    path = args.config or default_path()
    return Path(path).resolve()


# --- commands ------------------------------------------------------------------------


def _serve(args: argparse.Namespace) -> int:
    from gateway.commands.serve import serve

    return serve(_path(args))


def _worker(args: argparse.Namespace) -> int:
    from gateway.commands.worker import work

    return work(args.control)


def _check(args: argparse.Namespace) -> int:
    from gateway.commands.check import check

    return check(_path(args))


def _trace(args: argparse.Namespace) -> int:
    from gateway.ledger import show

    return show.trace(args, _path(args))


def _usage(args: argparse.Namespace) -> int:
    if args.mine:
        from gateway.commands.own_usage import own_usage

        return own_usage(args)
    from gateway.ledger import show

    return show.usage(args, _path(args))


def _plan(args: argparse.Namespace) -> int:
    from gateway.commands.plan import plan

    return plan(args, _path(args))


if __name__ == "__main__":
    sys.exit(main())
