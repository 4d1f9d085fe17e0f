"""The command itself: gather what can be seen, diagnose, print."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.commands.doctor.facts import Facts, Finding
from gateway.commands.doctor.findings import diagnose
from gateway.config.load import StoredUsers, load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Config

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
    facts = gather(path, unit, through, accounts)
    findings = diagnose(facts)
    if as_json:
        print(json.dumps(as_document(findings), indent=2, ensure_ascii=False))
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


def gather(
    path: Path, unit: str = "", through: str = "", accounts: bool = False
) -> Facts:
    """Everything that can be seen of the installation; changes nothing."""
    # Not above: a command that only prints its help need not load the database.
    from gateway.commands.doctor import files
    from gateway.commands.doctor import unit as units

    properties = units.unit_properties(unit or UNIT)
    facts = Facts(
        config_path=os.fspath(path),
        unit_name=unit or UNIT,
        unit=properties,
        unit_settings=units.settings_of(units.unit_files(properties)),
        shipped_settings=units.settings_of(units.shipped_unit()),
        wanted_unit=bool(unit),
        clock_synchronized=files.clock_synchronized(),
        sqlite=sqlite3.sqlite_version_info,
    )
    warnings: list[str] = []
    absent: dict[str, str] = {}
    try:
        served = load_served(
            path, stored_users=_stored(path), warn=warnings.append, absent=absent
        )
    except ConfigError as error:
        return dataclasses.replace(facts, mistakes=tuple(error.mistakes))
    references = {*served.source.secrets, *absent}
    facts = dataclasses.replace(
        facts,
        config=served.config,
        warnings=tuple(warnings),
        absent=absent,
        file_modes=files.modes_of(path, references),
    )
    return _seen(facts, served.config, path, through, accounts)


def _seen(
    facts: Facts, config: Config, path: Path, through: str, accounts: bool
) -> Facts:
    """*facts* with everything that the config leads to."""
    from gateway.commands.doctor import files, inside, past, ways
    from gateway.commands.doctor.through import measure
    from gateway.ledger.database import Database, LedgerError

    daemon = inside.probe(config)
    try:
        database = Database(config.ledger.url, path.parent)
    except LedgerError:
        before = facts.past
    else:
        before = past.past_facts(database, config)
        database.dispose()
    home = Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex")
    facts = dataclasses.replace(
        facts,
        daemon=daemon,
        inside=facts.inside if daemon else inside.inside(path, config),
        engine_problems=engine_problems(config),
        ledger=files.ledger_facts(config, path.parent),
        past=before,
        socket_modes=files.socket_modes(config, path.parent),
        ways=ways.ways_of(config.account),
        clients=tuple(files.codex_providers(home, _hosts(config, through))),
    )
    if through:
        key = os.environ.get("GATEWAY_API_KEY", "")
        seen = measure(through, key, config.server.listen, config.server.max_body_bytes)
        facts = dataclasses.replace(facts, through=seen)
    if accounts and not daemon:
        tests = inside.tested(path, before.models)
        facts = dataclasses.replace(facts, accounts=tests)
    return facts


def _hosts(config: Config, through: str) -> Collection[str]:
    """Under which names and ports clients reach the gateway."""
    found = set()
    for address in config.server.listen:
        host, _, port = address.rpartition(":")
        found |= {f"{host}:{port}", f"127.0.0.1:{port}", f"localhost:{port}"}
    parts = urlsplit(through)
    if parts.hostname:
        found.add(f"{parts.hostname}:{parts.port or 443}")
    return found


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


def as_document(findings: list[Finding]) -> dict[str, Any]:
    """*findings* for machines."""
    return {"data": [one._asdict() for one in findings]}
