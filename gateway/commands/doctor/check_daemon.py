"""Checks of what runs: the daemon, its engine, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from gateway import __version__
from gateway.commands.doctor.facts import Check, Facts, Finding

MIN_OPEN_FILES = 8192
SOON = timedelta(days=7)


def check_daemon(facts: Facts) -> Iterator[Finding]:
    if facts.daemon:
        yield Finding(
            "daemon",
            "Clients get no answer, and neither do the commands that speak with it",
            facts.daemon,
            "start it: systemctl start gateway (or: gateway serve)",
        )
    elif facts.daemon == "" and facts.inside.problem:
        yield Finding(
            "daemon",
            "The commands that see and change what runs do not work here",
            facts.inside.problem,
            "run them as the user that the daemon runs as (or as root); admin.listen "
            "in the config",
        )


def check_secrets_here(facts: Facts) -> Iterator[Finding]:
    """A secret that the daemon has and this shell has not is no fault."""
    if facts.daemon == "":
        return
    given = (facts.unit or {}).get("LoadCredential", "")
    for reference, reason in facts.absent.items():
        name = reference.rpartition("/")[2]
        if "CREDENTIALS_DIRECTORY" in reference or "/run/credentials/" in reference:
            if f"{name}:" in given or facts.unit is None:
                continue
            change = f"LoadCredential={name}:/etc/gateway/credentials/{name} in "
            change += f"[Service] of {facts.unit_name}"
        elif reference.startswith("env:") and _has_environment(facts):
            continue
        else:
            change = f"{reference} for the daemon, and for this shell"
        yield Finding(
            "config", "The daemon will not start: a secret is missing", reason, change
        )


def _has_environment(facts: Facts) -> bool:
    unit = facts.unit or {}
    return bool(unit.get("Environment") or unit.get("EnvironmentFiles"))


def check_version(facts: Facts) -> Iterator[Finding]:
    running = facts.inside.version
    if running and running != __version__:
        yield Finding(
            "daemon",
            "What this version has mended goes on to happen",
            f"the daemon runs version {running}, and {__version__} is installed",
            "gateway restart: no stream is cut",
        )
    if facts.inside.changed:
        yield Finding(
            "config",
            "What was changed in the config does not count, until a restart makes it "
            "count by surprise",
            f"the daemon serves with other values of {_listed(facts.inside.changed)}",
            "gateway reload; it says what needs a restart",
        )


def check_resources(facts: Facts) -> Iterator[Finding]:
    inside, files = facts.inside, facts.inside.open_files
    unit_files = (facts.unit or {}).get("LimitNOFILE", "")
    if files is not None and files < MIN_OPEN_FILES and not _is_low(unit_files):
        yield Finding(
            "daemon",
            f"More than about {files // 2} streams at once are refused",
            f"the daemon may have {files} files open, and a stream takes two",
            "ulimit -n 65536 before it is started, or LimitNOFILE=65536 in [Service]",
        )
    if inside.lines_lost:
        yield Finding(
            "log",
            "What happened to a request cannot be looked up in the log",
            f"{inside.lines_lost} lines of the log are lost since the start: its "
            "reader is too slow or gone, or the disk is full",
            "what reads the daemon's standard output, and its disk",
        )
    if inside.slots_over:
        yield Finding(
            "engine",
            "Providers see more requests at once than the accounts allow",
            f"{inside.slots_over} requests run above a limit: processes that do not "
            "see each other share it",
            "the same shared.url and shared.prefix in the config of every host",
        )


def _is_low(files: str) -> bool:
    """The unit's own limit is a finding already."""
    return files.isdecimal() and int(files) < MIN_OPEN_FILES


def check_engine(facts: Facts) -> Iterator[Finding]:
    for problem in facts.engine_problems:
        yield Finding(
            "engine",
            "Limits do not hold for all processes together, or state is lost",
            problem,
            f"{problem.partition(':')[0]} in the config, or the engine's own settings",
        )
    if facts.inside.engine == "lost":
        yield Finding(
            "engine",
            "Every node goes on with its share of the slots alone, or refuses",
            "the daemon has lost the engine of shared.url",
            "start the engine, or mend shared.url in the config",
        )


def check_keys(facts: Facts) -> Iterator[Finding]:
    """Keys in use that end soon."""
    now = datetime.now(UTC)
    for user in facts.inside.users:
        for key in user["keys"]:
            if not key["expires_at"] or not key["last_used_at"]:
                continue
            left = datetime.fromisoformat(key["expires_at"]) - now
            used = now - datetime.fromisoformat(key["last_used_at"])
            if timedelta(0) < left < SOON and used < SOON:
                label = f" ({key['label']})" if key["label"] else ""
                yield Finding(
                    f"user {user['name']}",
                    "Its clients get 401 from then on",
                    f"the key {key['prefix']}{label} is in use, and expires in "
                    f"{left.days} days, at {key['expires_at'][:16]}",
                    f"gateway key new --user {user['name']}",
                )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (" and more" if len(names) > 4 else "")


CHECKS: tuple[Check, ...] = (
    check_daemon,
    check_secrets_here,
    check_version,
    check_resources,
    check_engine,
    check_keys,
)
