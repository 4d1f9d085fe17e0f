"""
What will go wrong with an installation: pure checks over the facts that were gathered.

Each check takes ``Facts`` and gives findings. A fact that is not known is None, and
says nothing: what cannot be seen is no finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from gateway.commands.doctor_facts import Facts, Finding
from gateway.config.parse import is_loopback

NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smb2 smb3 smbfs afs ceph glusterfs lustre 9p fuse.sshfs "
    "fuse.glusterfs fuse.s3fs ncpfs ocfs2 gfs2 beegfs".split()
)
MIN_FREE_BYTES = 1 << 30
STOP_MARGIN_S = 10.0  # between the end of a drain and systemd's SIGKILL
MIN_OPEN_FILES = 8192
WEB_SERVER_READ_S = 60.0  # the default of nginx and of most load balancers
CLIENT_IDLE_S = 300.0  # Codex: the longest silence between two events
SKEW_S = 5.0
BURST = 4  # events that arrive together, on average: a buffer is in between
GAP_S = 0.5  # an event of the measured stream comes each 0.05 s

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|w|month|y)")
_SPAN_S = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400} | {
    "w": 604800,
    "month": 2629800,
    "y": 31557600,
}


Check = Callable[[Facts], Iterator[Finding]]


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that is wrong, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(facts)]


def seconds_of(span: str) -> float | None:
    """
    A time span of ``systemctl show`` in seconds: ``10min 15s``; None for no limit, or
    what is none.
    """
    parts = _SPAN.findall(span)
    if not parts or _SPAN.sub("", span).strip():
        return 0.0 if span == "0" else None
    return sum(float(number) * _SPAN_S[unit] for number, unit in parts)


# --- config and daemon ----------------------------------------------------------------


def check_config(facts: Facts) -> Iterator[Finding]:
    for mistake in facts.mistakes:
        yield Finding(
            "config",
            "The daemon will not start, and a reload is refused",
            mistake,
            f"{mistake.partition(':')[0]} in the config (see: gateway check)",
        )
    for warning in facts.warnings:
        yield Finding(
            "config",
            "Everyone who can read the config can use the secret in it",
            warning,
            f"{warning.partition(':')[0]} in the config",
        )


def check_daemon(facts: Facts) -> Iterator[Finding]:
    if facts.daemon:
        yield Finding(
            "daemon",
            "Clients get no answer, and neither do the commands that speak with it",
            facts.daemon,
            "start it: systemctl start gateway (or: gateway serve)",
        )


def check_engine(facts: Facts) -> Iterator[Finding]:
    for problem in facts.engine_problems:
        yield Finding(
            "engine",
            "Limits do not hold for all processes together, or state is lost",
            problem,
            f"{problem.partition(':')[0]} in the config, or the engine's own settings",
        )
    if facts.engine == "lost":
        yield Finding(
            "engine",
            "Every node goes on with its share of the slots alone, or refuses",
            "the daemon has lost the engine of shared.url",
            "start the engine, or mend shared.url in the config",
        )


def check_accounts(facts: Facts) -> Iterator[Finding]:
    for name, problem in facts.accounts.items():
        if problem:
            yield Finding(
                f"account {name}",
                "Requests that it fits go to other accounts, or fail",
                problem,
                f"the [[account]] named {name} in the config",
            )


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
    if ledger.file_system in NETWORK_FILE_SYSTEMS:
        yield Finding(
            "ledger",
            "The database can be damaged, and commits can hang",
            f"{ledger.address} is on {ledger.file_system}: SQLite's locks and shared "
            "memory do not work over a network",
            'ledger.url = "sqlite:////var/lib/gateway/gateway.db" (a local disk), or '
            "a postgresql:// address",
        )
    if ledger.journal_mode and ledger.journal_mode != "wal":
        yield Finding(
            "ledger",
            "Every answer waits longer for its commit, and reading blocks writing",
            f"the journal of {ledger.address} is {ledger.journal_mode}, not wal",
            "stop what else uses the file, and restart the daemon",
        )
    if ledger.free_bytes is not None and ledger.free_bytes < MIN_FREE_BYTES:
        yield Finding(
            "disk",
            "The ledger fails when the disk is full, and every request then gets 503",
            f"{ledger.free_bytes >> 20} MiB are free beside {ledger.address}",
            "ledger.retention_days in the config, or more room",
        )


def check_ledger_mode(facts: Facts) -> Iterator[Finding]:
    ledger = facts.ledger
    if ledger and ledger.mode is not None and ledger.mode & 0o077:
        yield Finding(
            "ledger",
            "Other users of this machine can read what people wrote",
            f"the mode of {ledger.address} is {ledger.mode:04o}",
            f"chmod 600 {ledger.address}",
        )


# --- systemd --------------------------------------------------------------------------


def check_unit(facts: Facts) -> Iterator[Finding]:
    unit, name = facts.unit, facts.unit_name
    if unit is None or unit.get("LoadState") != "loaded":
        if facts.wanted_unit:
            yield Finding(
                "systemd",
                "The gateway is not started with the machine",
                f"systemd knows no unit {name}",
                "install systemd/gateway.service, or name another with --unit",
            )
        return
    yield from _check_stop(facts, unit)
    yield from _check_service(name, unit)


def _check_service(name: str, unit: Mapping[str, str]) -> Iterator[Finding]:
    files = unit.get("LimitNOFILE", "infinity")
    if files.isdecimal() and int(files) < MIN_OPEN_FILES:
        yield Finding(
            "systemd",
            f"More than about {int(files) // 2} streams at once are refused",
            f"{name} has LimitNOFILE={files}, and a stream takes two",
            "LimitNOFILE=65536 in [Service]",
        )
    is_notify = unit.get("Type", "").startswith("notify")
    if is_notify and unit.get("NotifyAccess") not in ("main", "all"):
        yield Finding(
            "systemd",
            "systemd never learns that the daemon is ready, and kills it",
            f"{name} has Type=notify and NotifyAccess={unit.get('NotifyAccess')}",
            "NotifyAccess=main in [Service]",
        )
    if unit.get("Restart") == "no":
        yield Finding(
            "systemd",
            "After a crash the gateway stays down",
            f"{name} has Restart=no",
            "Restart=on-failure in [Service]",
        )
    if unit.get("KillMode") not in ("mixed", None):
        yield Finding(
            "systemd",
            "A stop reaches the workers beside their parent: streams may be cut",
            f"{name} has KillMode={unit.get('KillMode')}",
            "KillMode=mixed in [Service]",
        )


def _check_stop(facts: Facts, unit: Mapping[str, str]) -> Iterator[Finding]:
    stop_s = seconds_of(unit.get("TimeoutStopUSec", "infinity"))
    if facts.config is None or stop_s is None:
        return
    drain_s = facts.config.server.drain_timeout_s
    if stop_s < drain_s + STOP_MARGIN_S:
        yield Finding(
            "systemd",
            f"Streams that still run {stop_s:.0f} s after a stop are cut without an "
            "ending",
            f"{facts.unit_name} has TimeoutStopSec={stop_s:.0f}, and "
            f"server.drain_timeout_s is {drain_s:.0f}",
            f"TimeoutStopSec={drain_s + 6 * STOP_MARGIN_S:.0f} in [Service], or "
            f"server.drain_timeout_s = {max(0.0, stop_s - STOP_MARGIN_S):.1f}",
        )


# --- time-outs ------------------------------------------------------------------------


def check_timeouts(facts: Facts) -> Iterator[Finding]:
    """The ladder: client, web server, gateway, upstream."""
    config = facts.config
    if config is None:
        return
    pings = {"limits": config.limits.ping_interval_s}
    pings |= {
        f"user {one.name}": one.ping_interval_s
        for one in config.user
        if one.ping_interval_s is not None
    }
    for where, ping_s in pings.items():
        if ping_s >= WEB_SERVER_READ_S:
            yield Finding(
                "time-outs",
                "A web server cuts requests that wait or think",
                f"ping_interval_s of {where} is {ping_s:.0f} s, and nginx gives up "
                f"after {WEB_SERVER_READ_S:.0f} s of silence unless it is configured "
                f"otherwise; Codex after {CLIENT_IDLE_S:.0f} s",
                "ping_interval_s = 10.0",
            )
    upstream = config.upstream
    if upstream.connect_timeout_s >= upstream.first_event_timeout_s:
        yield Finding(
            "time-outs",
            "An address that does not answer uses up the whole time for an answer, "
            "and no other account is asked",
            f"upstream.connect_timeout_s is {upstream.connect_timeout_s:.0f} s, "
            f"first_event_timeout_s {upstream.first_event_timeout_s:.0f} s",
            "connect_timeout_s = 10.0 in [upstream]",
        )


# --- exposure and clocks --------------------------------------------------------------


def check_exposure(facts: Facts) -> Iterator[Finding]:
    admin = facts.config.admin if facts.config else None
    for address in admin.tcp if admin else ():
        if not is_loopback(address):
            yield Finding(
                "admin",
                "The admin token crosses the network in clear text",
                f"admin.listen has {address}, which other machines reach",
                'listen = ["127.0.0.1:8081", "unix:admin.sock"] in [admin], and a web '
                "server with TLS, or ssh, in front of it",
            )
    for path, mode in facts.socket_modes.items():
        if mode & 0o077:
            yield Finding(
                "admin",
                "Other users of this machine can change the gateway without a token",
                f"the mode of {path} is {mode:04o}",
                f"chmod 600 {path}",
            )
    server = facts.config.server if facts.config else None
    if server and not server.metrics_token:
        public = [one for one in server.listen if not is_loopback(one)]
        if public:
            yield Finding(
                "metrics",
                "Everyone who reaches the gateway can read who uses it, and how much",
                f"server.listen has {public[0]}, and server.metrics_token is not set",
                'metrics_token = "env:METRICS_TOKEN" in [server]',
            )


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


# --- the web server -------------------------------------------------------------------


def check_through(facts: Facts) -> Iterator[Finding]:
    seen = facts.through
    if seen is None:
        return
    part, server = f"through {seen.url}", seen.server or "the web server"
    if seen.problem or seen.status != 200:
        yield Finding(
            part,
            "Clients behind this address get no stream",
            seen.problem or f"{server} answered {seen.status}",
            "the address, GATEWAY_API_KEY, or the proxy rules of the web server",
        )
        return
    if seen.events > seen.arrivals * BURST and seen.gap_s > GAP_S:
        yield Finding(
            part,
            "Words arrive in bursts, and keepalives too late: clients give up",
            f"{seen.events} events of a stream of {seen.seconds:.1f} s came in "
            f"{seen.arrivals} pieces, up to {seen.gap_s:.1f} s apart: {server} buffers",
            "proxy_buffering off; (nginx, and no proxy_ignore_headers "
            "X-Accel-Buffering), or flush_interval -1 (Caddy)",
        )
    if not seen.whole:
        yield Finding(
            part,
            "Long answers are cut: Codex says that the stream was closed early",
            f"the stream ended after {seen.seconds:.1f} s without its terminal event",
            "proxy_read_timeout 3600s; and proxy_send_timeout 3600s; (nginx)",
        )


CHECKS: tuple[Check, ...] = (
    check_config,
    check_daemon,
    check_ledger,
    check_ledger_mode,
    check_engine,
    check_unit,
    check_timeouts,
    check_through,
    check_exposure,
    check_clocks,
    check_accounts,
)
