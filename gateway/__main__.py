"""The command line: ``gateway`` and ``python -m gateway``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import __version__
from gateway.config.keys import key_sha256, new_key
from gateway.config.load import Served, default_path, load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Account
from gateway.daemon import systemd
from gateway.telemetry import log, log_routes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = args.run
    if run is _serve:  # its log is never a reason to end
        return run(args)
    try:
        return run(args)
    except BrokenPipeError:
        # Whoever read our output has had enough, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
    check = _command(commands, "check", _check, "validate the config; print mistakes")
    _config_option(check)

    key = commands.add_parser("key", help="make keys for users")
    keys = key.add_subparsers(required=True, metavar="COMMAND")
    _command(keys, "new", _new_key, "print a new key, once, and its config line")

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

    usage = _command(commands, "usage", _usage, "tokens and cost from the ledger")
    usage.add_argument("--user", metavar="NAME", help="of this user only")
    usage.add_argument("--since", metavar="DATE", help="not before this day (UTC)")
    usage.add_argument(
        "--by",
        metavar="KEYS",
        default="user",
        help="sums by any of user,model,account,day (default: user)",
    )
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for machines")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")
    _config_option(usage)
    return parser


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
    path = _path(args)
    _occupy_standard_files()
    log.set_up()
    log_routes.take_over()
    try:
        passed = systemd.passed_sockets()
        served = load_served(path, passed=[sock.address for sock in passed])
    except (ConfigError, ValueError) as error:
        mistakes = getattr(error, "mistakes", None) or [str(error)]
        log.get().error("config.rejected", path=str(path), mistakes=mistakes)
        return 2
    log.set_up(served.config.server.log_level, served.config.server.log_format)
    return _run(path, served, passed)


def _occupy_standard_files() -> None:
    """
    Open what was closed at the start. Else the next file or socket would be given its
    number, and whoever writes to stderr would write into it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _run(path: Path, served: Served, passed: list[systemd.Passed]) -> int:
    # Not above: `check` and `key new` shall not wait for what only a daemon needs.
    from gateway.daemon.server import Daemon, StartError, raise_file_limit
    from gateway.ledger.database import LedgerError

    try:
        server = Daemon(path, served, passed, raise_file_limit())
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(server.run())
    except (LedgerError, StartError) as error:
        log.get().error("server.failed", detail=str(error))
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _check(args: argparse.Namespace) -> int:
    path = _path(args)
    warnings: list[str] = []
    try:
        served = load_served(path, warn=warnings.append)
    except ConfigError as error:
        print(*error.mistakes, sep="\n")
        return 2
    for warning in warnings:
        print(f"warning: {warning}")
    config = served.config
    users = 0 if served.key else len(config.user)
    print(f"{path}: fine, {users} users, {len(config.account)} accounts")
    for account in config.account:
        if not account.embedded:
            print(f"  {account.name}: {_dialects(account)}")
    return 0


def _dialects(account: Account) -> str:
    """What is taken for the server's dialect, by model where that decides."""
    if account.dialect != "auto":
        return f"dialect {account.dialect}"
    models: dict[str, list[str]] = {}
    for name in (*account.models, *account.rename):
        known = models.setdefault(
            account.spoken_dialect(account.upstream_model(name)), []
        )
        if name not in known:
            known.append(name)
    if len(models) == 1:
        return f"dialect {next(iter(models))} (auto)"
    each = (f"{dialect} for {', '.join(names)}" for dialect, names in models.items())
    return f"dialect {'; '.join(each)} (auto)"


def _new_key(args: argparse.Namespace) -> int:
    key = new_key()
    print(f"{key}\n\nThe key is shown only now. Its line for [[user]] in the config:")
    print(f'key_sha256 = ["{key_sha256(key)}"]')
    return 0


def _trace(args: argparse.Namespace) -> int:
    from gateway.ledger import show

    return show.trace(args, _path(args))


def _usage(args: argparse.Namespace) -> int:
    from gateway.ledger import show

    return show.usage(args, _path(args))


if __name__ == "__main__":
    sys.exit(main())
