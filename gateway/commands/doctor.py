"""``gateway doctor``: look at a whole installation, and say what will go wrong."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

from gateway.commands.doctor_checks import diagnose
from gateway.commands.doctor_facts import Facts, Finding
from gateway.config.load import StoredUsers, load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Config

DAEMON_S = 5.0
UNIT = "gateway.service"


def doctor(
    path: Path,
    *,
    unit: str = "",
    through: str = "",
    accounts: bool = False,
    as_json: bool = False,
) -> int:
    """
    Print what will go wrong with the installation of the config *path*.

    Args:
        unit: the systemd unit; "" for the usual one, which need not be there.
        through: the address of a web server before the gateway; "" for none.
        accounts: test each account, too, which may cost a little.

    Returns 0 where all is well, 1 with findings.
    """
    facts = gather(path, unit, through)
    if accounts and facts.config and not facts.daemon:
        facts = dataclasses.replace(facts, accounts=tested(path))
    findings = diagnose(facts)
    if as_json:
        listed = {"data": [one._asdict() for one in findings]}
        print(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        print(report(findings))
    return 1 if findings else 0


def report(findings: list[Finding]) -> str:
    """*findings* for people."""
    if not findings:
        return "All is well."
    return "\n\n".join(
        f"{one.part}: {one.what}.\n  why:    {one.why}\n  change: {one.change}"
        for one in findings
    )


def gather(path: Path, unit: str = "", through: str = "") -> Facts:
    """Everything that can be seen of the installation; changes nothing."""
    # Not above: a command that only prints its help need not load the database.
    from gateway.commands import doctor_gather, doctor_through

    warnings: list[str] = []
    config, mistakes = None, tuple[str, ...]()
    try:
        config = load_served(path, stored_users=_stored(path), warn=warnings.append)
    except ConfigError as error:
        mistakes = tuple(error.mistakes)
    facts = Facts(
        mistakes=mistakes,
        warnings=tuple(warnings),
        unit_name=unit or UNIT,
        unit=doctor_gather.unit_properties(unit or UNIT),
        wanted_unit=bool(unit),
        clock_synchronized=doctor_gather.clock_synchronized(),
        through=(
            doctor_through.measure(through, os.environ.get("GATEWAY_API_KEY", ""))
            if through
            else None
        ),
    )
    if config is None:
        return facts
    daemon = probe(config.config)
    return dataclasses.replace(
        facts,
        config=config.config,
        daemon=daemon,
        engine=None if daemon else engine_state(config.config, path),
        engine_problems=engine_problems(config.config),
        ledger=doctor_gather.ledger_facts(config.config, path.parent),
        socket_modes=doctor_gather.socket_modes(config.config, path.parent),
    )


def tested(path: Path) -> dict[str, str]:
    """Why each account of the running daemon fails a test; "" if it does not."""
    from gateway.commands.admin_client import CommandError, DaemonClient, part

    found: dict[str, str] = {}
    name = "(all)"
    try:
        client = DaemonClient(path)
        for name in [one["name"] for one in client.ask("GET", "/accounts")["data"]]:
            answer = client.ask("POST", f"/accounts/{part(name)}/test", body={})
            failed = [one for one in answer["steps"] if not one["ok"]]
            found[name] = "" if answer["ok"] or not failed else _step(failed[0])
    except CommandError as error:
        found[name] = f"it cannot be tested: {error}"
    return found


def _step(step: dict[str, Any]) -> str:
    return f"the step {step['step']} failed: {step['detail']}"


def _stored(path: Path) -> StoredUsers:
    from gateway.commands.check import stored_names

    return partial(stored_names, path.parent)


def engine_problems(config: Config) -> tuple[str, ...]:
    """What is wrong with the engine of *config*, each with its key."""
    if not config.shared.url:
        return ()
    from gateway.commands.check import engine_facts

    _, mistakes, warnings = engine_facts(config)
    return (*mistakes, *(f"shared.url: {warning}" for warning in warnings))


def engine_state(config: Config, path: Path) -> str | None:
    """What the running daemon says of the engine; None where it cannot be asked."""
    from gateway.commands.admin_client import CommandError, DaemonClient

    if not config.shared.url or config.admin is None:
        return None
    try:
        return str(DaemonClient(path).ask("GET", "/status")["engine"])
    except CommandError:
        return None


def probe(config: Config) -> str:
    """Why the daemon does not answer, or takes no work; "" if it does."""
    address = config.server.listen[0]
    try:
        status, state = _ready(address)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        return f"nothing answers at {address}: {reason}"
    if status != 200:
        reasons = ", ".join(map(str, state.get("reasons", ()))) or f"status {status}"
        return f"the daemon at {address} takes no work: {reasons}"
    return ""


def _ready(address: str) -> tuple[int, dict[str, Any]]:
    """What ``/readyz`` answers at a listen *address*."""
    if address.startswith("unix:"):
        connection = http.client.HTTPConnection("localhost", timeout=DAEMON_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(DAEMON_S)
        connection.sock.connect(address[5:])
    else:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        connection = http.client.HTTPConnection(host, int(port), timeout=DAEMON_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        state = json.loads(response.read())
        return response.status, state if isinstance(state, dict) else {}
    finally:
        connection.close()
