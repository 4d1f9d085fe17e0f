"""
Which hosts ``NO_PROXY`` names, as curl reads it.

Entries are separated by commas or blanks. An entry is a domain (with those below it,
with or without a leading dot), an address, a network (10.0.0.0/8, fd00::/8), or "*" for
every host; case does not matter. An entry may end in a port, and then names that port
alone: curl has no such form, Go and Python do. No name is looked up for this.

Source: curl, lib/noproxy.c, 2026-11
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):(\d{1,5})")


@lru_cache(maxsize=256)
def matches(no_proxy: str, host: str, port: int) -> bool:
    """Whether *no_proxy* says that *host* is reached without a proxy."""
    host = _bare(host)
    address = _address(host)
    return any(
        _matches(entry, host, address, port)
        for entry in no_proxy.replace(",", " ").split()
    )


def _matches(
    entry: str, host: str, address: IPv4Address | IPv6Address | None, port: int
) -> bool:
    if entry == "*":
        return True
    if found := _WITH_PORT.fullmatch(entry):
        if int(found[2]) != port:
            return False
        entry = found[1]
    if address is None:
        domain = _bare(entry.lstrip("."))
        return bool(domain) and (host == domain or host.endswith("." + domain))
    try:
        network = entry.replace("[", "").replace("]", "")
        return address in ip_network(network, strict=False)
    except ValueError:
        return False


def _bare(host: str) -> str:
    """*host* without brackets, case and the dot of the root."""
    return host.strip("[]").rstrip(".").lower()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
