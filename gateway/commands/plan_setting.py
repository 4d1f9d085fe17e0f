"""The limits that ``gateway plan`` tries: the config's, and what is asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from gateway.admission.simulation import Plan, UserLimits
from gateway.config.schema import Account, Config, User

USER_KEYS: dict[str, type[int] | type[float]] = {
    "max_concurrent": int,
    "max_queued": int,
    "queue_timeout_s": float,
}
ACCOUNT_KEYS: dict[str, type[int] | type[float]] = {"max_concurrent": int}
MAX_ALIKE = 100


class PlanError(ValueError):
    """A change that makes no sense; the text says why."""


class Change(NamedTuple):
    """``account.NAME.KEY=VALUE``; of ``--like``, *key* is ``like``."""

    scope: str
    name: str
    key: str
    value: float


class Setting(NamedTuple):
    """Limits and accounts, as they are or as they are asked about."""

    accounts: tuple[Account, ...]
    users: Mapping[str, UserLimits]
    sticky_wait_s: float

    def plan(self) -> Plan:
        slots = {one.name: one.max_concurrent for one in self.accounts}
        return Plan(self.users, slots, self.sticky_wait_s)


def parse_set(text: str) -> Change:
    """
    ``account.NAME.max_concurrent=12`` or ``user.NAME.KEY=VALUE``; a name may hold dots.

    Raises:
        PlanError: it is neither.
    """
    place, _, value = text.partition("=")
    scope, _, rest = place.partition(".")
    name, _, key = rest.rpartition(".")
    keys = {"account": ACCOUNT_KEYS, "user": USER_KEYS}.get(scope) or {}
    if not name or key not in keys:
        raise PlanError(
            f"--set {text}: must be account.NAME.max_concurrent=N or"
            f" user.NAME.({'|'.join(USER_KEYS)})=N"
        )
    return Change(scope, name, key, _number(f"--set {text}", value, keys[key]))


def parse_like(text: str) -> Change:
    """
    ``account.NAME=2``: as if there were so many accounts like that one.

    Raises:
        PlanError: it is not.
    """
    place, _, value = text.partition("=")
    scope, _, name = place.partition(".")
    if scope != "account" or not name:
        raise PlanError(f"--like {text}: must be account.NAME=N")
    number = _number(f"--like {text}", value, int)
    if not 1 <= number <= MAX_ALIKE:
        raise PlanError(f"--like {text}: must be from 1 to {MAX_ALIKE}")
    return Change("account", name, "like", number)


def _number(where: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1e9:
        noun = "a whole number" if kind is int else "a number"
        raise PlanError(f"{where}: must be {noun} from 0 on")
    return value


def setting_of(
    config: Config, users: Iterable[str], made: Iterable[User] = ()
) -> Setting:
    """
    The limits of *users*; one that is known no more has the default ones.

    Args:
        made: those of run time; where the config names the same, it counts.
    """
    every = (*made, *config.user)
    known = {user.name: user.limits(config.limits) for user in every}
    found = {
        name: UserLimits(
            limits.max_concurrent, limits.max_queued, limits.queue_timeout_s
        )
        for name in users
        for limits in [known.get(name, config.limits)]
    }
    return Setting(config.account, found, config.upstream.sticky_wait_s)


def _limits(limits: UserLimits, key: str, value: float) -> UserLimits:
    if key == "queue_timeout_s":
        return limits._replace(queue_timeout_s=value)
    if key == "max_queued":
        return limits._replace(max_queued=int(value))
    return limits._replace(max_concurrent=int(value))


def changed(setting: Setting, changes: Sequence[Change]) -> Setting:
    """
    *setting* with *changes*, in their order.

    Raises:
        PlanError: one names something that is not there.
    """
    accounts = {one.name: one for one in setting.accounts}
    users = dict(setting.users)
    for scope, name, key, value in changes:
        known: Mapping[str, object] = users if scope == "user" else accounts
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise PlanError(f"{scope} {name} is not known (known: {names})")
        if scope == "user":
            users[name] = _limits(users[name], key, value)
        elif key == "like":
            for n in range(2, int(value) + 1):
                accounts[f"{name}-{n}"] = replace(accounts[name], name=f"{name}-{n}")
        else:
            accounts[name] = replace(accounts[name], max_concurrent=int(value))
    return Setting(tuple(accounts.values()), users, setting.sticky_wait_s)
