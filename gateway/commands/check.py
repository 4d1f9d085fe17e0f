"""``gateway check``: whether a config can be served, and what is taken from it."""

from __future__ import annotations

from pathlib import Path

from gateway.config.load import load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Account


def check(path: Path) -> int:
    """Print every mistake in the config *path*, or what it holds; returns 2 or 0."""
    warnings: list[str] = []
    try:
        served = load_served(path, warn=warnings.append)
    except ConfigError as error:
        print(*error.mistakes, sep="\n")
        return 2
    for warning in warnings:
        print(f"warning: {warning}")
    config = served.config
    users = 0 if served.key else len(config.user)
    print(f"{path}: fine, {users} users, {len(config.account)} accounts")
    for account in config.account:
        if not account.embedded:
            print(f"  {account.name}: {_dialects(account)}")
    return 0


def _dialects(account: Account) -> str:
    """The dialect of the account's server, by model where the model decides."""
    if account.dialect != "auto":
        return f"dialect {account.dialect}"
    models: dict[str, list[str]] = {}
    for name in (*account.models, *account.rename):
        dialect = account.dialect_for(account.upstream_model(name))
        known = models.setdefault(dialect, [])
        if name not in known:
            known.append(name)
    if len(models) == 1:
        return f"dialect {next(iter(models))} (auto)"
    each = (f"{dialect} for {', '.join(names)}" for dialect, names in models.items())
    return f"dialect {'; '.join(each)} (auto)"
