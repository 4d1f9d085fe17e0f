"""Checks of the systemd unit: what it does to the daemon, and what it forbids it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.commands.doctor.check_daemon import MIN_OPEN_FILES
from gateway.commands.doctor.facts import Check, Facts, Finding

STOP_MARGIN_S = 10.0  # between the end of a drain and systemd's SIGKILL
OPTIONAL = frozenset(
    ("ExecStartPre", "AmbientCapabilities", "StateDirectory", "WorkingDirectory")
    + ("StateDirectoryMode", "DynamicUser", "CapabilityBoundingSet", "IPAddressDeny")
)  # an operator has reasons to do without them, or other checks see to them

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|w|month|y)")
_SPAN_S = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400} | {
    "w": 604800,
    "month": 2629800,
    "y": 31557600,
}
_CONFIG_OPTION = re.compile(r"--config[= ](\S+)")


def seconds_of(span: str) -> float | None:
    """
    A time span of ``systemctl show`` in seconds: ``10min 15s``; None for no limit, or
    what is none.
    """
    parts = _SPAN.findall(span)
    if not parts or _SPAN.sub("", span).strip():
        return 0.0 if span == "0" else None
    return sum(float(number) * _SPAN_S[unit] for number, unit in parts)


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
    for check in (_stop, _service, _ready, _files, _paths):
        yield from check(facts, unit)


def _stop(facts: Facts, unit: Mapping[str, str]) -> Iterator[Finding]:
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


def _service(facts: Facts, unit: Mapping[str, str]) -> Iterator[Finding]:
    name = facts.unit_name
    files = unit.get("LimitNOFILE", "infinity")
    if files.isdecimal() and int(files) < MIN_OPEN_FILES:
        yield Finding(
            "systemd",
            f"More than about {int(files) // 2} streams at once are refused",
            f"{name} has LimitNOFILE={files}, and a stream takes two",
            "LimitNOFILE=65536 in [Service]",
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
    if unit.get("UnitFileState") == "disabled":
        yield Finding(
            "systemd",
            "The gateway is not started with the machine",
            f"{name} is disabled",
            f"systemctl enable {name}",
        )


def _ready(facts: Facts, unit: Mapping[str, str]) -> Iterator[Finding]:
    name, kind = facts.unit_name, unit.get("Type", "notify")
    if not kind.startswith("notify"):
        yield Finding(
            "systemd",
            "systemd takes the gateway for ready before it listens, and for healthy "
            "when it hangs",
            f"{name} has Type={kind}",
            "Type=notify, NotifyAccess=main and WatchdogSec=30 in [Service]",
        )
        return
    if unit.get("NotifyAccess", "main") not in ("main", "all"):
        yield Finding(
            "systemd",
            "systemd never learns that the daemon is ready, and kills it",
            f"{name} has Type=notify and NotifyAccess={unit.get('NotifyAccess')}",
            "NotifyAccess=main in [Service]",
        )
    if unit.get("WatchdogUSec") in ("0", "infinity"):
        yield Finding(
            "systemd",
            "A gateway that hangs is not started again",
            f"{name} has no WatchdogSec",
            "WatchdogSec=30 in [Service]",
        )


def _files(facts: Facts, unit: Mapping[str, str]) -> Iterator[Finding]:
    name = facts.unit_name
    if unit.get("NeedDaemonReload") == "yes":
        yield Finding(
            "systemd",
            "The next restart runs the unit as it was before it was changed",
            f"the files of {name} are newer than what systemd has read",
            "systemctl daemon-reload",
        )
    lacking = facts.shipped_settings - facts.unit_settings - OPTIONAL
    if facts.unit_settings and lacking:
        yield Finding(
            "systemd",
            "The gateway runs without what the unit of this version gives it",
            f"{name} lacks {', '.join(sorted(lacking)[:6])}"
            + (f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""),
            "install the shipped systemd/gateway.service again, and keep changes in "
            f"systemctl edit {name}",
        )


def _paths(facts: Facts, unit: Mapping[str, str]) -> Iterator[Finding]:
    """The unit's config is the one looked at, and what it writes may be written."""
    command = unit.get("ExecStart", "")
    found = _CONFIG_OPTION.search(command)
    if found and facts.config_path and found[1].rstrip(";") != facts.config_path:
        yield Finding(
            "systemd",
            f"What is said here is not about what {facts.unit_name} runs",
            f"it serves {found[1]}, and {facts.config_path} was looked at",
            f"gateway doctor --config {found[1]}",
        )
        return
    if unit.get("ProtectSystem") != "strict" or facts.config is None:
        return
    for key, path in _written(facts):
        if not _may_write(path, unit):
            yield Finding(
                "systemd",
                f"The daemon cannot write {path}",
                f"{facts.unit_name} has ProtectSystem=strict, and {key} is outside "
                "of its StateDirectory, RuntimeDirectory and ReadWritePaths",
                _in_state(key, unit),
            )


def _written(facts: Facts) -> Iterator[tuple[str, Path]]:
    if facts.ledger and facts.ledger.path:
        yield "ledger.url", Path(facts.ledger.path)
    folder = Path(facts.config_path).parent
    admin = facts.config.admin if facts.config else None
    for address in admin.listen if admin else ():
        if address.startswith("unix:"):
            yield "admin.listen", folder / address[5:]


def _in_state(key: str, unit: Mapping[str, str]) -> str:
    state = f"/var/lib/{unit.get('StateDirectory') or 'gateway'}"
    if key == "ledger.url":
        return f'url = "sqlite:///{state}/gateway.db" in [ledger]'
    return f'listen = ["127.0.0.1:8081", "unix:{state}/admin.sock"] in [admin]'


def _may_write(path: Path, unit: Mapping[str, str]) -> bool:
    roots = [f"/var/lib/{one}" for one in unit.get("StateDirectory", "").split()]
    roots += [f"/run/{one}" for one in unit.get("RuntimeDirectory", "").split()]
    roots += [one.lstrip("-+") for one in unit.get("ReadWritePaths", "").split()]
    if unit.get("PrivateTmp") != "yes":
        roots += ["/tmp", "/var/tmp"]
    return any(path.is_relative_to(root) for root in roots if root)


CHECKS: tuple[Check, ...] = (check_unit,)
