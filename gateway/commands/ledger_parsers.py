"""The words of the commands that ask the ledger, beside the daemon or without it."""

from __future__ import annotations

import argparse

from gateway.commands.command_adder import Commands, add_command, config_path

MACHINES = "for machines"
SINCE = "not before this day (UTC), or 90m, 24h, 7d"


def add_ledger_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``gateway trace``, ``usage`` and ``plan``."""
    _add_trace(commands)
    _add_usage(commands)
    _add_plan(commands)


def _add_trace(commands: Commands[argparse.ArgumentParser]) -> None:
    trace = add_command(
        commands,
        "trace",
        _trace,
        "the timeline of one request, and why it went as it did",
        "gateway trace fd277bc5-ff7e-45d1-8aa9-f54e1df318f1",
        "gateway trace resp_fd277bc5ff7e45d18aa9f54e1df318f1",
        "gateway trace --failed --since 2h          a list of failures",
        "gateway trace --user alice --since 2026-11-24",
        as_json=MACHINES,
    )
    trace.add_argument(
        "id",
        nargs="?",
        metavar="ID",
        help="request id, resp_ id, upstream id, or a client's session id; "
        "without it requests are listed",
    )
    trace.add_argument("--since", metavar="DATE", help=f"list: {SINCE}")
    trace.add_argument("--user", metavar="NAME", help="list: of this user")
    trace.add_argument("--failed", action="store_true", help="list: failures only")


def _add_usage(commands: Commands[argparse.ArgumentParser]) -> None:
    usage = add_command(
        commands,
        "usage",
        _usage,
        "tokens and cost from the ledger",
        "gateway usage                              by user, all that is kept",
        "gateway usage --by day,user --since 30d --plot",
        "gateway usage --by account,model --since 7d --csv > usage.csv",
        "GATEWAY_API_KEY=gw-… gateway usage --mine --url https://gateway.example.com",
    )
    usage.add_argument("--user", metavar="NAME", help="of this user only")
    usage.add_argument("--since", metavar="DATE", help=SINCE)
    usage.add_argument(
        "--by",
        metavar="KEYS",
        default="user",
        help="sums by any of user,model,account,day,protocol,client (default: user)",
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
    _add_forms(usage)


def _add_forms(usage: argparse.ArgumentParser) -> None:
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help=MACHINES)
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")
    form.add_argument(
        "--plot",
        nargs="?",
        const="",
        choices=("", "cost", "tokens", "requests"),
        metavar="WHAT",
        help="bars of cost, tokens or requests (default: the first that is not 0); "
        "days go down the page, further keys divide the bars",
    )


def _add_plan(commands: Commands[argparse.ArgumentParser]) -> None:
    plan = add_command(
        commands,
        "plan",
        _plan,
        "what other limits would have changed in the past",
        "gateway plan                                            is it right?",
        "gateway plan --set account.openai-1.max_concurrent=12   more slots of one",
        "gateway plan --like account.openai-1=2 --since 24h      a second one like it",
        "gateway plan --set user.alice.max_concurrent=5 --plot   waits by hour as bars",
        as_json=MACHINES,
    )
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


def _trace(args: argparse.Namespace) -> int:
    from gateway.commands.ledger_answers import trace

    return trace(args, config_path(args))


def _usage(args: argparse.Namespace) -> int:
    if args.mine:
        from gateway.commands.own_usage import own_usage

        return own_usage(args)
    from gateway.commands.ledger_answers import usage

    return usage(args, config_path(args))


def _plan(args: argparse.Namespace) -> int:
    from gateway.commands.plan import plan

    return plan(args, config_path(args))
