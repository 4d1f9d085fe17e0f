"""``gateway check``: whether a config can be served, and what is taken from it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gateway.commands.refusal import CANNOT, mistakes_document
from gateway.commands.tables import print_json
from gateway.config.load import load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Account, Config


class Found(NamedTuple):
    """
    What a config that can be served holds.

    Attributes:
        users: those of the config.
        stored: how many more were made at run time.
        accounts: by name: the dialect; "" for the trial account.
        engine: what it is; "" for none.
    """

    config: str
    users: int
    stored: int
    accounts: dict[str, str]
    engine: str
    warnings: list[str]


def check(path: Path, *, as_json: bool = False) -> int:
    """Print every mistake in the config *path*, or what it holds; returns 2 or 0."""
    warnings: list[str] = []
    try:
        found = _found(path, warnings)
    except ConfigError as error:
        if as_json:
            print_json(mistakes_document(error.mistakes))
        else:
            _print(warnings, error.mistakes)
        return CANNOT
    if as_json:
        print_json(found._asdict())
        return 0
    more = f" ({found.stored} more made at run time)" if found.stored else ""
    accounts = len(found.accounts)
    lines = [f"{path}: fine, {found.users} users{more}, {accounts} accounts"]
    if found.engine:
        lines.append(f"  engine {found.engine}")
    lines += [f"  {name}: {text}" for name, text in found.accounts.items() if text]
    _print(warnings, lines)
    return 0


def _print(warnings: list[str], lines: list[str]) -> None:
    print(*(f"warning: {one}" for one in warnings), *lines, sep="\n")


def _found(path: Path, warnings: list[str]) -> Found:
    """
    Args:
        warnings: takes each, also where there are mistakes.

    Raises:
        ConfigError: with every mistake.
    """
    served = load_served(
        path, stored_users=partial(stored_names, path.parent), warn=warnings.append
    )
    config = served.config
    stored = stored_names(path.parent, config)
    warnings += _twins(config, stored, served.key)
    engine = ""
    if config.shared.url:
        engine, mistakes, more = engine_facts(config)
        warnings += [f"shared.url: {one}" for one in more]
        if mistakes:
            raise ConfigError(mistakes)
    accounts = {
        one.name: "" if one.embedded else _dialects(one) for one in config.account
    }
    users = 0 if served.key else len(config.user)
    return Found(str(path), users, len(stored), accounts, engine, warnings)


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


def _twins(config: Config, stored: set[str], key: str) -> list[str]:
    """The users of the config that were made at run time, too."""
    return [
        f"user[{i}].name: {user.name!r} was made at run time, too; "
        "the limits and keys of the config count"
        for i, user in enumerate(config.user)
        if user.name in stored and not key
    ]


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
