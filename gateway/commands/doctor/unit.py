"""The systemd unit as systemd sees it, and the one that this version comes with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from gateway.commands.doctor.files import output

PROPERTIES = (
    *("LoadState", "UnitFileState", "Type", "NotifyAccess", "TimeoutStopUSec"),
    *("LimitNOFILE", "Restart", "KillMode", "WatchdogUSec", "NeedDaemonReload"),
    *("FragmentPath", "DropInPaths", "ExecStart", "ProtectSystem", "ReadWritePaths"),
    *("StateDirectory", "RuntimeDirectory", "PrivateTmp", "LoadCredential"),
    *("Environment", "EnvironmentFiles"),
)
_SETTING = re.compile(r"(?m)^([A-Z][A-Za-z]+)=")


def unit_properties(name: str) -> dict[str, str] | None:
    """The properties of the systemd unit *name*; None without systemd."""
    shown = output("systemctl", "show", f"--property={','.join(PROPERTIES)}", name)
    return properties_of(shown) if shown else None


def properties_of(shown: str) -> dict[str, str]:
    """What ``systemctl show`` prints; of a property that is there twice, both."""
    found: dict[str, str] = {}
    for line in shown.splitlines():
        name, is_one, value = line.partition("=")
        if is_one:
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


def settings_of(paths: Iterable[str]) -> frozenset[str]:
    """The keys that the unit files *paths* set; none where one cannot be read."""
    found: set[str] = set()
    try:
        for path in paths:
            found.update(_SETTING.findall(Path(path).read_text("utf-8")))
    except (OSError, UnicodeDecodeError):
        return frozenset()
    return frozenset(found)


def unit_files(unit: dict[str, str] | None) -> list[str]:
    """The files that the unit with these properties is made of."""
    if not unit or not unit.get("FragmentPath"):
        return []
    return [unit["FragmentPath"], *unit.get("DropInPaths", "").split()]


def shipped_unit() -> list[str]:
    """The unit of this version: of an installed package, or of a checkout."""
    places = (
        Path(sys.prefix) / "share/gateway/systemd/gateway.service",
        Path(__file__).parents[3] / "systemd/gateway.service",
    )
    return [str(one) for one in places if one.exists()][:1]
