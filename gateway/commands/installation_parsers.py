"""The words of the commands that run the gateway and look at its installation."""

from __future__ import annotations

import argparse

from gateway.commands.command_adder import Commands, add_command, config_path


def add_installation_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``gateway serve``, ``check`` and ``doctor``; also the hidden ``worker``."""
    add_command(
        commands,
        "serve",
        _serve,
        "run the daemon in the foreground",
        "gateway serve --config /etc/gateway/config.toml",
    ).set_defaults(is_daemon=True)
    hidden = commands.add_parser("worker")  # no help: the daemon alone starts it
    hidden.add_argument("--control", type=int, nargs="+", required=True)
    hidden.set_defaults(run=_worker, is_daemon=True)
    add_command(
        commands,
        "check",
        _check,
        "validate the config; print mistakes",
        "gateway check --config /etc/gateway/config.toml && gateway reload",
        as_json="for machines",
    )
    _add_doctor(commands)


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "look at the whole installation, and say what will go wrong",
        "gateway doctor",
        "gateway doctor --accounts         a small request to each, which may cost",
        "GATEWAY_API_KEY=gw-… gateway doctor --through https://gateway.example.com",
        as_json="for machines",
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


def _serve(args: argparse.Namespace) -> int:
    """Run the daemon."""
    from gateway.commands import serve as daemon

    return daemon.serve(config_path(args))


def _worker(args: argparse.Namespace) -> int:
    """Serve for the daemon that has started this process."""
    from gateway.commands.worker import work

    return work(args.control)


def _check(args: argparse.Namespace) -> int:
    from gateway.commands.check import check

    return check(config_path(args), as_json=args.json)


def _doctor(args: argparse.Namespace) -> int:
    from gateway.commands.doctor.command import doctor

    return doctor(
        config_path(args),
        unit=args.unit,
        through=args.through,
        accounts=args.accounts,
        as_json=args.json,
    )
