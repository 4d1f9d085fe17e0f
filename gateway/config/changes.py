"""
What a reload changes: each key that differs, and whether it can be changed live.

A key has its path; users and accounts are in it by name: ``limits.max_queued``,
``user.alice.max_concurrent``, ``account.openai-1.api_key``. A user or account that was
added or removed is one path: ``user.bob``. No value is given, since it may be a secret.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.config.schema import Account, Config, Overrides, User

RESTART = frozenset(
    {
        *("admin.listen", "ledger.url", "shared.prefix", "shared.url"),
        *("server.listen", "server.log_format", "server.log_level", "server.workers"),
    }
)
"""What a running daemon cannot change; a reload applies every other key."""

RESTART_SECTIONS = frozenset({"admin"})
"""Tables that may be left out, and that a running daemon can neither get nor lose."""


class Changes(NamedTuple):
    """
    Attributes:
        changed: paths that a reload applies.
        restart_needed: paths that keep their old value until the next start.
        config: the new config, with the old values of ``restart_needed``.
    """

    changed: list[str]
    restart_needed: list[str]
    config: Config


def compare(running: Config, wanted: Config) -> Changes:
    """What changes from the config *running* to the config *wanted*."""
    paths = list(_differences(running, wanted, ""))
    needed = [path for path in paths if path in RESTART | RESTART_SECTIONS]
    config = wanted
    for path in needed:
        config = _keeping(path, running, config)
    changed = [path for path in paths if path not in needed]
    return Changes(sorted(changed), sorted(needed), config)


def _keeping(path: str, running: Config, config: Config) -> Config:
    """*config* with what *running* has at *path*."""
    section, _, key = path.partition(".")
    part = getattr(running, section)
    if key:
        kept = {key: getattr(part, key)}
        part = dataclasses.replace(getattr(config, section), **kept)
    return dataclasses.replace(config, **{section: part})


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """The paths of all keys that differ between two objects of one section."""
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        here = f"{path}{field.name}"
        if before is None or after is None:  # a section that may be left out
            yield here
        elif dataclasses.is_dataclass(before):
            yield from _differences(before, after, f"{here}.")
        elif isinstance(before, Overrides):
            names = before.keys() | after.keys()
            different = [n for n in names if before.get(n) != after.get(n)]
            yield from (f"{here}.{name}" for name in different)
        elif field.name in ("user", "account") and not path:
            yield from _named(before, after, f"{here}.")
        else:
            yield here


def _named(
    old: tuple[User | Account, ...], new: tuple[User | Account, ...], path: str
) -> Iterator[str]:
    """The same for users or accounts, whose order has no meaning."""
    before, after = ({one.name: one for one in some} for some in (old, new))
    for name in before.keys() | after.keys():
        if name in before and name in after:
            yield from _differences(before[name], after[name], f"{path}{name}.")
        else:
            yield f"{path}{name}"
