"""
Whether an engine can be used: what ``gateway check`` says of it.

Everything that a node will need is tried once, on keys that end with the check.
"""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

from gateway.shared import steps
from gateway.shared.address import EngineAddress, parse_address
from gateway.shared.connection import EngineConnection
from gateway.shared.dialing import dial
from gateway.shared.errors import EngineLost, EngineRefused

REDIS_SINCE = (6, 2)
CLOCKS_S = 2.0


class EngineReport(NamedTuple):
    """
    Attributes:
        found: what it is, in a few words; "" if it could not be asked.
        mistakes: why it cannot be used.
        warnings: what will go wrong some day, or does now and may pass.
        hosts: from how many addresses processes of a gateway use it, with this one.
    """

    found: str
    mistakes: list[str]
    warnings: list[str]
    hosts: int = 1


async def inspect(url: str, prefix: str) -> EngineReport:
    """What the engine at *url* is, and what is wrong with it."""
    address = parse_address(url)
    away = "processes go on alone until it is there"
    try:
        connection = await dial(address, "gateway:check", dial_s=3.0)
    except EngineRefused as error:
        return EngineReport("", [f"{address.shown}: {error}"], [])
    except EngineLost as error:
        return EngineReport("", [], [f"{address.shown}: {error}; {away}"])
    try:
        return await _inspected(connection, address, prefix)
    except EngineLost as error:
        return EngineReport("", [f"{address.shown}: {error}"], [])
    finally:
        await connection.closed()


async def _inspected(
    connection: EngineConnection, address: EngineAddress, prefix: str
) -> EngineReport:
    mistakes, warnings = [], []
    server = _facts(await connection.send("INFO", "server"))
    name, version = _version(server)
    if name == "Redis" and version < REDIS_SINCE:
        mistakes.append(f"Redis {_dotted(version)} is too old: 6.2 or newer is needed")
    if skew_s := await _skew_s(connection):
        warnings.append(
            f"its clock and the one of this host are {skew_s:.0f} s apart: cooldowns "
            "of accounts end so much too early or late on other hosts"
        )
    memory = _facts(await connection.send("INFO", "memory"))
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"its maxmemory-policy is {policy}: it may drop what requests hold; set "
            "noeviction"
        )
    step = steps.nodes()
    keys = steps.key_prefix(prefix)
    nodes = step.read(await connection.call(step.script, 1, keys, *step.words))
    await connection.send("PUBLISH", f"{keys}check", "")
    shown = f"{address.shown}: {name} {_dotted(version)}, {len(nodes)} processes"
    hosts = await _hosts(connection) if not address.path else 1
    return EngineReport(shown, mistakes, warnings, hosts)


async def _hosts(connection: EngineConnection) -> int:
    """From how many hosts processes of a gateway are connected."""
    reply = await connection.send("CLIENT", "LIST")
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    found = re.findall(r"addr=(\S+):\d+ .*name=gateway:", text)
    return len(set(found))


async def _skew_s(connection: EngineConnection) -> float:
    """How far its clock is from ours; 0 if no more than the way there explains."""
    before = time.time()
    seconds, micros = await connection.send("TIME")
    after = time.time()
    theirs = int(seconds) + int(micros) / 1e6
    apart = max(before - theirs, theirs - after, 0.0)
    return apart if apart > CLOCKS_S else 0.0


def _facts(reply: Any) -> dict[str, str]:
    """What ``INFO`` says, by name."""
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


def _version(server: dict[str, str]) -> tuple[str, tuple[int, ...]]:
    name = "Valkey" if server.get("server_name") == "valkey" else "Redis"
    text = server.get("valkey_version") or server.get("redis_version", "0")
    return name, tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
