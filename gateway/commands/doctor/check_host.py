"""Checks of the machine: ledger, disk, files, clocks, the client on it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.commands.doctor.facts import Check, ClientFacts, Facts, Finding
from gateway.protocols import PROTOCOLS

NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smb2 smb3 smbfs afs ceph glusterfs lustre 9p fuse.sshfs "
    "fuse.glusterfs fuse.s3fs ncpfs ocfs2 gfs2 beegfs".split()
)
MEMORY_FILE_SYSTEMS = frozenset(("tmpfs", "ramfs"))
MIN_FREE_BYTES = 1 << 30
MIN_FREE_FILES = 1000
MIN_SQLITE = (3, 35, 0)  # RETURNING
SKEW_S = 5.0
# Codex speaks the protocol whose servers store answers, and needs it by name.
CODEX_WIRE = next(name for name, wire in PROTOCOLS.items() if wire.keeps_responses)
CODEX_IDLE_MS = 30_000  # three keepalives

_LOOKS_LIKE_KEY = re.compile(r"(gw|sk)-.*|[^A-Za-z_].*|.*[^A-Za-z0-9_].*")


# --- ledger ---------------------------------------------------------------------------


def check_ledger(facts: Facts) -> Iterator[Finding]:
    ledger = facts.ledger
    if ledger is None:
        return
    if ledger.problem:
        yield Finding(
            "ledger",
            "The daemon will not start; if it runs, new requests get 503",
            ledger.problem,
            "ledger.url in the config, or the database behind it",
        )
    elif ledger.unwritable and facts.daemon != "":
        yield Finding(
            "ledger",
            "The daemon will not start as this user; if it runs, requests get 503",
            f"{ledger.unwritable} cannot be written",
            f"the owner and the mode of {ledger.unwritable}",
        )
    if ledger.journal_mode and ledger.journal_mode != "wal":
        yield Finding(
            "ledger",
            "Every answer waits longer for its commit, and reading blocks writing",
            f"the journal of {ledger.address} is {ledger.journal_mode}, not wal",
            "stop what else uses the file, and restart the daemon",
        )


def check_file_system(facts: Facts) -> Iterator[Finding]:
    ledger = facts.ledger
    if ledger is None:
        return
    if ledger.file_system in NETWORK_FILE_SYSTEMS:
        yield Finding(
            "ledger",
            "The database can be damaged, and commits can hang",
            f"{ledger.address} is on {ledger.file_system}: SQLite's locks and shared "
            "memory do not work over a network",
            'ledger.url = "sqlite:////var/lib/gateway/gateway.db" (a local disk), or '
            "a postgresql:// address",
        )
    if ledger.file_system in MEMORY_FILE_SYSTEMS:
        yield Finding(
            "ledger",
            "Usage, budgets and users made at run time are gone after a reboot",
            f"{ledger.address} is on {ledger.file_system}, which is memory",
            'ledger.url = "sqlite:////var/lib/gateway/gateway.db" (a disk)',
        )


def check_disk(facts: Facts) -> Iterator[Finding]:
    ledger = facts.ledger
    if ledger is None:
        return
    what = "The ledger fails when the disk is full, and every request then gets 503"
    if ledger.free_bytes is not None and ledger.free_bytes < MIN_FREE_BYTES:
        yield Finding(
            "disk",
            what,
            f"{ledger.free_bytes >> 20} MiB are free beside {ledger.address}",
            "ledger.retention_days in the config, or more room",
        )
    if ledger.free_files is not None and ledger.free_files < MIN_FREE_FILES:
        yield Finding(
            "disk",
            what,
            f"{ledger.free_files} more files fit beside {ledger.address} (df -i)",
            "remove small files there, or use another disk",
        )


def check_sqlite(facts: Facts) -> Iterator[Finding]:
    if facts.ledger and facts.ledger.path and facts.sqlite:
        if facts.sqlite < MIN_SQLITE:
            wanted = ".".join(map(str, MIN_SQLITE))
            yield Finding(
                "ledger",
                "The daemon will not start",
                f"this Python's SQLite is {'.'.join(map(str, facts.sqlite))}, and "
                f"{wanted} is needed",
                "a Python with a newer SQLite, or a postgresql:// address",
            )


# --- files ----------------------------------------------------------------------------


def check_modes(facts: Facts) -> Iterator[Finding]:
    ledger = facts.ledger
    if ledger and ledger.mode is not None and ledger.mode & 0o077:
        yield Finding(
            "ledger",
            "Other users of this machine can read what people wrote",
            f"the mode of {ledger.address} is {ledger.mode:04o}",
            f"chmod 600 {ledger.address}",
        )
    for path, mode in facts.socket_modes.items():
        if mode & 0o077:
            yield Finding(
                "admin",
                "Other users of this machine can change the gateway without a token",
                f"the mode of {path} is {mode:04o}",
                f"chmod 600 {path}",
            )
    for path, mode in facts.file_modes.items():
        if path == facts.config_path:
            if mode & 0o022:
                yield Finding(
                    "config",
                    "Other users of this machine can send requests and keys elsewhere",
                    f"the mode of {path} is {mode:04o}",
                    f"chmod go-w {path}",
                )
        elif mode & 0o077:
            yield Finding(
                "config",
                "Other users of this machine can use the secret in it",
                f"the mode of {path} is {mode:04o}",
                f"chmod 600 {path} (and chown it to the daemon's user), or a systemd "
                "credential",
            )


# --- clocks ---------------------------------------------------------------------------


def check_clocks(facts: Facts) -> Iterator[Finding]:
    if facts.clock_synchronized is False:
        yield Finding(
            "clock",
            "Keys expire, budgets reset and logs are dated at wrong moments",
            "this machine's clock is not synchronized",
            "timedatectl set-ntp true",
        )
    skews = {"the database": facts.ledger.skew_s if facts.ledger else None}
    if facts.through:
        skews[facts.through.url] = facts.through.skew_s
    for where, skew_s in skews.items():
        if skew_s is not None and abs(skew_s) > SKEW_S:
            yield Finding(
                "clock",
                "The rows of several hosts are in a wrong order, and days begin at "
                "different moments",
                f"the clock of {where} differs by {skew_s:+.0f} s",
                "synchronize both clocks (chrony, systemd-timesyncd)",
            )


# --- the client of this user ----------------------------------------------------------


def check_codex(facts: Facts) -> Iterator[Finding]:
    for client in facts.clients:
        for what, why, change in _codex(client):
            place = f"[model_providers.{client.name}] of {client.file}"
            yield Finding("codex", what, f"{place}: {why}", f"{change} there")


def _codex(client: ClientFacts) -> Iterator[tuple[str, str, str]]:
    table = client.table
    if table.get("wire_api") != CODEX_WIRE:
        yield (
            "Codex does not start with this provider, or loses what it thought",
            f"wire_api is {table.get('wire_api', 'missing')}",
            f'wire_api = "{CODEX_WIRE}"',
        )
    env_key = str(table.get("env_key", ""))
    if env_key and _LOOKS_LIKE_KEY.fullmatch(env_key):
        yield (
            "Codex sends no key, and gets 401",
            "env_key looks like a key, and has to be the name of a variable",
            'env_key = "GATEWAY_API_KEY"',
        )
    elif not env_key and not table.get("experimental_bearer_token"):
        yield (
            "Codex sends no key of the gateway, and gets 401",
            "env_key is missing",
            'env_key = "GATEWAY_API_KEY"',
        )
    idle_ms = table.get("stream_idle_timeout_ms")
    if isinstance(idle_ms, int) and idle_ms < CODEX_IDLE_MS:
        yield (
            "Codex gives up on requests that wait or think",
            f"stream_idle_timeout_ms is {idle_ms}",
            "remove it: its default is 300000",
        )
    path = str(table["base_url"]).rstrip("/")
    if path.endswith(tuple(wire.path for wire in PROTOCOLS.values())):
        yield (
            "Codex asks for a path that is not there, and gets 404",
            f"base_url is {path}; Codex adds the path itself",
            f'base_url = "{path.partition("/v1")[0]}/v1"',
        )


CHECKS: tuple[Check, ...] = (
    check_ledger,
    check_file_system,
    check_disk,
    check_sqlite,
    check_modes,
    check_clocks,
    check_codex,
)
