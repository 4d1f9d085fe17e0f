"""``gateway check``: whether a config can be served, and what is taken from it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from gateway.config.load import load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Account, Config


def check(path: Path) -> int:
    """Print every mistake in the config *path*, or what it holds; returns 2 or 0."""
    warnings: list[str] = []
    try:
        served = load_served(
            path,
            stored_users=partial(stored_names, path.parent),
            warn=warnings.append,
        )
    except ConfigError as error:
        print(*error.mistakes, sep="\n")
        return 2
    for warning in warnings:
        print(f"warning: {warning}")
    config = served.config
    stored = stored_names(path.parent, config)
    _warn_of_twins(config, stored, served.key)
    found = ""
    if config.shared.url:
        found, mistakes, warnings = engine_facts(config)
        for warning in warnings:
            print(f"warning: shared.url: {warning}")
        if mistakes:
            print(*mistakes, sep="\n")
            return 2
    users = 0 if served.key else len(config.user)
    print(f"{path}: fine, {users} users{_more(stored)}, {len(config.account)} accounts")
    if found:
        print(f"  engine {found}")
    for account in config.account:
        if not account.embedded:
            print(f"  {account.name}: {_dialects(account)}")
    return 0


def engine_facts(config: Config) -> tuple[str, list[str], list[str]]:
    """What the engine of *config* is; mistakes with their paths, and warnings."""
    from gateway.shared.inspection import inspect  # only if configured

    report = asyncio.run(inspect(config.shared.url, config.shared.prefix))
    mistakes = [f"shared.url: {one}" for one in report.mistakes]
    if report.hosts > 1 and config.ledger.url.startswith("sqlite:"):
        mistakes.append(
            f"ledger.url: {report.hosts} hosts use this engine, and SQLite is for one: "
            "write postgresql://HOST/DATABASE"
        )
    return report.found, mistakes, report.warnings


def _warn_of_twins(config: Config, stored: set[str], key: str) -> None:
    """Name the users of the config that were made at run time, too."""
    for i, user in enumerate(config.user):
        if user.name in stored and not key:
            print(
                f"warning: user[{i}].name: {user.name!r} was made at run time, too; "
                "the limits and keys of the config count"
            )


def _more(stored: set[str]) -> str:
    return f" ({len(stored)} more made at run time)" if stored else ""


def stored_names(base: Path, config: Config) -> set[str]:
    """The names of the users in the ledger; none where it cannot be asked."""
    from gateway.ledger.database import LedgerError
    from gateway.ledger.runtime_users import stored_users

    try:
        return stored_users(config, base)
    except LedgerError:
        return set()


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
