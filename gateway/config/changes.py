"""
What a reload changes: each key that differs, and whether it can be changed live.

A key is named by its path, users and accounts by their names: ``limits.max_queued``,
``user.alice.max_concurrent``, ``account.openai-1.api_key``. One that was added or
removed is named as a whole: ``user.bob``. No value is named, since it may be a secret.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.config.schema import Account, Config, Overrides, User

RESTART = frozenset(
    {"ledger.url", "server.listen", "server.log_format", "server.log_level"}
)
"""What a running daemon cannot change; every other key is taken up by a reload."""


class Changes(NamedTuple):
    """
    Attributes:
        changed: paths that are taken up.
        restart_needed: paths that keep their old value until the next start.
        config: the new config, with the old values of ``restart_needed``.
    """

    changed: list[str]
    restart_needed: list[str]
    config: Config


def compare(running: Config, wanted: Config) -> Changes:
    """The way from the config *running* to the config *wanted*."""
    paths = list(_differences(running, wanted, ""))
    needed = [path for path in paths if path in RESTART]
    config = wanted
    for path in needed:
        section, _, key = path.partition(".")
        kept = getattr(getattr(running, section), key)
        part = dataclasses.replace(getattr(config, section), **{key: kept})
        config = dataclasses.replace(config, **{section: part})
    changed = [path for path in paths if path not in RESTART]
    return Changes(sorted(changed), sorted(needed), config)


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """The paths of all keys that differ between two objects of one section."""
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        here = f"{path}{field.name}"
        if dataclasses.is_dataclass(before):
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
    """The same of users or accounts; their order says nothing."""
    before, after = ({one.name: one for one in some} for some in (old, new))
    for name in before.keys() | after.keys():
        if name in before and name in after:
            yield from _differences(before[name], after[name], f"{path}{name}.")
        else:
            yield f"{path}{name}"
