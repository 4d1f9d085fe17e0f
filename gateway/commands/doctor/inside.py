"""What the running daemon says of itself, asked over its two sides."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.commands.admin_client import CommandError, DaemonClient, part
from gateway.commands.doctor.facts import DaemonFacts
from gateway.config.parse import ConfigError
from gateway.config.schema import Config

DAEMON_S = 5.0
MAX_METRICS_BYTES = 8 << 20
COMPARED = ("server", "limits", "upstream", "ledger", "shared", "account")
# Secrets are masked; at another address the daemon would not have answered.
NOT_COMPARED = frozenset(
    ("metrics_token", "token", "api_key", "headers", "url", "listen")
)

_METRIC = re.compile(
    r"(?m)^(gateway_log_lines_lost_total|gateway_slots_over)\S* (\S+)$"
)
_OPEN_FILES = re.compile(r"(?m)^Max open files\s+(\d+)")


def inside(path: Path, config: Config) -> DaemonFacts:
    """What the daemon of the config *path* says; it answers already."""
    facts = _metrics(config)
    if config.admin is None:
        return facts
    try:
        client = DaemonClient(path)
        status = client.ask("GET", "/status")
        return dataclasses.replace(
            facts,
            version=status["version"],
            engine=status["engine"],
            accounts=tuple(client.ask("GET", "/accounts")["data"]),
            users=tuple(client.ask("GET", "/users")["data"]),
            changed=tuple(differences(client.ask("GET", "/config"), config)),
            open_files=open_files(status["pid"]),
        )
    except (CommandError, ConfigError) as error:
        return dataclasses.replace(facts, problem=str(error))


def differences(served: Mapping[str, Any], config: Config) -> list[str]:
    """The keys that the file *config* says otherwise than the daemon."""
    written = dataclasses.asdict(config)
    found = []
    for section in COMPARED:
        theirs, ours = served.get(section), _plain(written[section])
        if isinstance(theirs, list):
            named = {one.get("name"): one for one in theirs}
            if set(named) != {one["name"] for one in ours}:
                found.append(section)
            pairs = [(named.get(one["name"], {}), one) for one in ours]
        else:
            pairs = [(theirs or {}, ours)]
        for there, here in pairs:
            name = f"{section} {here['name']}" if "name" in here else section
            found += [
                f"{name}.{key}"
                for key, value in here.items()
                if key in there and key not in NOT_COMPARED and there[key] != value
            ]
    return found


def _plain(value: Any) -> Any:
    """Values as JSON would give them back."""
    return json.loads(json.dumps(value))


def open_files(pid: int) -> int | None:
    """How many files the process *pid* may have open."""
    try:
        found = _OPEN_FILES.search(Path(f"/proc/{pid}/limits").read_text("utf-8"))
    except OSError:
        return None
    return int(found[1]) if found else None


def _metrics(config: Config) -> DaemonFacts:
    token = config.server.metrics_token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    counts: dict[str, float] = {}
    with suppress(OSError, http.client.HTTPException, ValueError):
        status, body = asked(config.server.listen[0], "/metrics", headers)
        for name, number in _METRIC.findall(body.decode()) if status == 200 else ():
            counts[name] = counts.get(name, 0.0) + float(number)
    return DaemonFacts(
        lines_lost=int(counts.get("gateway_log_lines_lost_total", 0)),
        slots_over=int(counts.get("gateway_slots_over", 0)),
    )


def tested(path: Path, models: Mapping[str, str]) -> dict[str, str]:
    """
    Why each account of the running daemon fails a test; "" if it does not.

    Args:
        models: one that each account serves, where the config names none.
    """
    found: dict[str, str] = {}
    try:
        client = DaemonClient(path)
        names = [one["name"] for one in client.ask("GET", "/accounts")["data"]]
    except (CommandError, ConfigError) as error:
        return {"(all)": f"they cannot be tested: {error}"}
    for name in names:
        found[name] = _test(client, name, models.get(name, ""))
    return found


def _test(client: DaemonClient, name: str, model: str) -> str:
    body = {"model": model} if model else {}
    try:
        answer = client.ask("POST", f"/accounts/{part(name)}/test", body=body)
    except CommandError as error:
        if error.code == "invalid_request" and not model:
            return (
                "it cannot be tested: its models are patterns, and none was used in "
                f"the last day (gateway account test {name} --model MODEL)"
            )
        return f"it cannot be tested: {error}"
    failed = [one for one in answer["steps"] if not one["ok"]]
    if answer["ok"] or not failed:
        return ""
    return f"the step {failed[0]['step']} failed: {failed[0]['detail']}"


# --- the side of the clients ----------------------------------------------------------


def probe(config: Config) -> str:
    """Why the daemon does not answer, or takes no work; "" if it does."""
    address = config.server.listen[0]
    try:
        status, body = asked(address, "/readyz", {})
        state = json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        return f"nothing answers at {address}: {reason}"
    if status != 200:
        given = state.get("reasons", ()) if isinstance(state, dict) else ()
        reasons = ", ".join(map(str, given)) or f"status {status}"
        return f"the daemon at {address} takes no work: {reasons}"
    return ""


def asked(address: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """
    What a GET of *path* at a listen *address* answers.

    Raises:
        OSError, http.client.HTTPException, ValueError: it does not.
    """
    if address.startswith("unix:"):
        connection = http.client.HTTPConnection("localhost", timeout=DAEMON_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(DAEMON_S)
        connection.sock.connect(address[5:])
    else:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        connection = http.client.HTTPConnection(host, int(port), timeout=DAEMON_S)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read(MAX_METRICS_BYTES)
    finally:
        connection.close()
