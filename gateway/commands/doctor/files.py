"""
What ``gateway doctor`` looks at: files, the database, clocks, the clients' configs.

Each function gives what can be seen, and None for what cannot; nothing is changed.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
import tomllib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.commands.doctor.facts import ClientFacts, LedgerFacts
from gateway.config.schema import Config
from gateway.ledger.database import Database, LedgerError

COMMAND_S = 10.0  # for a command of systemd to answer


def ledger_facts(config: Config, base: Path) -> LedgerFacts:
    """The ledger of *config*; relative files start at the folder *base*."""
    try:
        database = Database(config.ledger.url, base)
    except LedgerError as error:
        return LedgerFacts("ledger.url", str(error))
    try:
        return _facts_of(database)
    finally:
        database.dispose()


def _facts_of(database: Database) -> LedgerFacts:
    address = str(database)
    if not database.sqlite:
        return _asked(database, LedgerFacts(address))
    path = Path(database.url.database or "").absolute()
    folder = path.parent
    if not folder.is_dir():
        return LedgerFacts(address, f"the folder {folder} is not there", str(path))
    disk = os.statvfs(folder)
    files = [folder, path, *(Path(f"{path}{end}") for end in ("-wal", "-shm", ".lock"))]
    there = [one for one in files if one.exists()]
    locked = [os.fspath(one) for one in there if not os.access(one, os.W_OK)]
    facts = LedgerFacts(
        str(path),
        path=str(path),
        file_system=file_system(folder),
        free_bytes=disk.f_bavail * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else None,
        unwritable=locked[0] if locked else "",
    )
    if not path.exists():  # the first start makes it
        return facts
    facts = dataclasses.replace(facts, mode=path.stat().st_mode & 0o777)
    return _asked(database, facts)


def _asked(database: Database, facts: LedgerFacts) -> LedgerFacts:
    """*facts* with what the database itself says."""
    try:
        with database.inspect() as connection:
            if database.sqlite:
                journal = str(connection.scalar(text("PRAGMA journal_mode")))
                return dataclasses.replace(facts, journal_mode=journal)
            return dataclasses.replace(facts, skew_s=_skew_s(connection))
    except (LedgerError, SQLAlchemyError) as error:
        return dataclasses.replace(facts, problem=str(error).partition("\n")[0])


def _skew_s(connection: Connection) -> float | None:
    theirs = connection.scalar(text("SELECT clock_timestamp()"))
    if not isinstance(theirs, datetime):
        return None
    return (theirs - datetime.now(UTC)).total_seconds()


def file_system(folder: Path) -> str | None:
    """The type of the file system that *folder* is on, as the kernel names it."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    wanted = os.fspath(folder.resolve())
    best, kind = "", None
    for line in lines:
        before, _, behind = line.partition(" - ")
        mount = before.split()[4].replace("\\040", " ")
        inside = wanted == mount or wanted.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, behind.split()[0]
    return kind


def clock_synchronized() -> bool | None:
    """Whether systemd says that this machine's clock is."""
    shown = output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return {"yes": True, "no": False}.get((shown or "").strip())


def socket_modes(config: Config, base: Path) -> dict[str, int]:
    """The permission bits of the admin side's unix sockets that are there."""
    found: dict[str, int] = {}
    for address in config.admin.listen if config.admin else ():
        path = base / address.removeprefix("unix:")
        if address.startswith("unix:") and path.exists():
            found[os.fspath(path)] = path.stat().st_mode & 0o777
    return found


def modes_of(config_path: Path, references: Iterable[str]) -> dict[str, int]:
    """The permission bits of the config, and of the files that its secrets are in."""
    folder, found = config_path.resolve().parent, {}
    for path in (config_path, *map(partial(_secret_file, folder), references)):
        if path is None:
            continue
        with suppress(OSError):
            found[os.fspath(path)] = path.stat().st_mode & 0o777
    return found


def _secret_file(folder: Path, reference: str) -> Path | None:
    """The file behind ``file:PATH``; systemd looks after its own credentials."""
    kind, _, name = reference.partition(":")
    if kind != "file" or "CREDENTIALS_DIRECTORY" in name:
        return None
    path = folder / os.path.expandvars(name)
    return None if path.is_relative_to("/run/credentials") else path


def codex_providers(home: Path, hosts: Collection[str]) -> Iterator[ClientFacts]:
    """The providers in the Codex config below *home* whose address is of *hosts*."""
    file = home / "config.toml"
    try:
        tables = tomllib.loads(file.read_text("utf-8")).get("model_providers", {})
        for name, table in tables.items():
            parts = urlsplit(str(table.get("base_url", "")))
            if parts.hostname and f"{parts.hostname}:{parts.port or 443}" in hosts:
                yield ClientFacts(os.fspath(file), name, table)
    except (OSError, ValueError, AttributeError):  # it is the client's to complain
        return


def output(*command: str) -> str | None:
    """What *command* prints; None where it cannot be run, or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def http_skew_s(date: str) -> float | None:
    """How far the clock behind the header ``Date`` is from this one."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):
        return None
