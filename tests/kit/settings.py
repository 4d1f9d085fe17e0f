"""
The config of a gateway under test, as the text of a ``config.toml``.

By default: two users and, at one scripted upstream, an account for each protocol. The
model says which: ``responses-…`` goes to the account ``responses``, and so on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.kit.answers import PROTOCOLS
from tests.kit.scripted import ScriptedUpstream

ADMIN_TOKEN = "test-admin-token"
ADMIN = {"listen": ["127.0.0.1:0", "unix:admin.sock"], "token": "env:TEST_ADMIN_TOKEN"}
USERS = ("alice", "bob")
LIMITS = {"ping_interval_s": 5.0, "queue_timeout_s": 10.0}
UPSTREAM = {"first_event_timeout_s": 20.0, "idle_timeout_s": 20.0}
HASTY = {"first_event_timeout_s": 1.0, "idle_timeout_s": 1.0}  # to see one run out
TRIAL = {"name": "trial", "base_url": "embedded:", "models": ["trial", "trial-*"]}

Table = Mapping[str, Any]


def key_of(user: str) -> str:
    """The key of a user in every config of the tests."""
    return f"gw-test-{user}"


def user(name: str, **limits: Any) -> Table:
    digest = hashlib.sha256(key_of(name).encode()).hexdigest()
    return {"name": name, "key_sha256": [digest], **limits}


def secret_name(account: str) -> str:
    """The environment variable of an account's key."""
    return "TEST_KEY_" + account.upper().replace("-", "_")


def account(
    upstream: ScriptedUpstream, name: str, protocol: str = "", **fields: Any
) -> Table:
    """An account at *upstream*; without *protocol*, its name begins with it."""
    protocol = protocol or name.partition("-")[0]
    return {
        "name": name,
        "protocol": protocol,
        "base_url": upstream.base_url(name),
        "api_key": f"env:{secret_name(name)}",
        "models": [f"{protocol}-*"],
        **fields,
    }


def accounts(upstream: ScriptedUpstream, **fields: Any) -> list[Table]:
    """One account for each protocol, and the trial account."""
    return [account(upstream, name, **fields) for name in PROTOCOLS] + [TRIAL]


def config_text(
    *,
    listen: Sequence[str],
    accounts: Sequence[Table],
    users: Sequence[Table] = tuple(user(name) for name in USERS),
    limits: Table | None = None,
    upstream: Table | None = None,
    server: Table | None = None,
    ledger: Table | None = None,
    admin: Table | None = None,
    shared: Table | None = None,
) -> str:
    """The text of a ``config.toml``."""
    parts = [
        _section("[server]", {"listen": list(listen), **(server or {})}),
        _section("[limits]", {**LIMITS, **(limits or {})}),
        _section("[upstream]", {**UPSTREAM, **(upstream or {})}),
        _section("[ledger]", {"url": "sqlite:///gateway.db", **(ledger or {})}),
        *([_section("[admin]", admin)] if admin is not None else []),
        *([_section("[shared]", shared)] if shared is not None else []),
        *[_section("[[user]]", one) for one in users],
        *[_section("[[account]]", one) for one in accounts],
    ]
    return "\n".join(parts)


def environment(accounts: Sequence[Table]) -> dict[str, str]:
    """The secrets that *accounts* refer to: each account's key is ``sk-`` + name."""
    keys = {secret_name(one["name"]): f"sk-{one['name']}" for one in accounts}
    return {**keys, "TEST_ADMIN_TOKEN": ADMIN_TOKEN}


def _section(head: str, table: Table) -> str:
    lines = [f"{name} = {_value(value)}" for name, value in table.items()]
    return "\n".join([head, *lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_value(name)} = {_value(item)}" for name, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    return json.dumps(value)
