"""
What ``gateway doctor`` looks at: files, the database, systemd, clocks.

Each function gives what can be seen, and None for what cannot; nothing is changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.commands.doctor_facts import LedgerFacts
from gateway.config.schema import Config
from gateway.ledger.database import Database, LedgerError

COMMAND_S = 10.0  # for a command of systemd to answer
PROPERTIES = (
    *("LoadState", "Type", "NotifyAccess", "TimeoutStopUSec", "LimitNOFILE"),
    *("Restart", "KillMode"),
)


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
    path = Path(database.url.database or "")
    folder = path.parent
    if not folder.is_dir():
        return LedgerFacts(address, f"the folder {folder} is not there")
    if not path.exists():  # the first start makes it
        writable = os.access(folder, os.W_OK)
        return LedgerFacts(
            str(path),
            "" if writable else f"{folder} cannot be written",
            file_system(folder),
            free_bytes=shutil.disk_usage(folder).free,
        )
    facts = LedgerFacts(
        str(path),
        file_system=file_system(folder),
        free_bytes=shutil.disk_usage(folder).free,
        mode=path.stat().st_mode & 0o777,
    )
    return _asked(database, facts)


def _asked(database: Database, facts: LedgerFacts) -> LedgerFacts:
    """*facts* with what the database itself says."""
    journal, skew_s, problem = None, None, ""
    try:
        with database.inspect() as connection:
            if database.sqlite:
                journal = str(connection.scalar(text("PRAGMA journal_mode")))
            else:
                skew_s = _skew_s(connection)
    except (LedgerError, SQLAlchemyError) as error:
        problem = str(error).partition("\n")[0]
    return LedgerFacts(
        facts.address,
        problem,
        facts.file_system,
        journal,
        facts.free_bytes,
        facts.mode,
        skew_s,
    )


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


def unit_properties(name: str) -> dict[str, str] | None:
    """The properties of the systemd unit *name*; None without systemd."""
    shown = _output("systemctl", "show", f"--property={','.join(PROPERTIES)}", name)
    if not shown:
        return None
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def clock_synchronized() -> bool | None:
    """Whether systemd says that this machine's clock is."""
    shown = _output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return {"yes": True, "no": False}.get((shown or "").strip())


def socket_modes(config: Config, base: Path) -> dict[str, int]:
    """The permission bits of the admin side's unix sockets that are there."""
    found: dict[str, int] = {}
    for address in config.admin.listen if config.admin else ():
        path = base / address.removeprefix("unix:")
        if address.startswith("unix:") and path.exists():
            found[os.fspath(path)] = path.stat().st_mode & 0o777
    return found


def _output(*command: str) -> str | None:
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
