"""
Users and keys as the admin API takes and shows them.

The fields of a body have the names of the config. In a change, a field that is left out
stays as it is, and null goes back to what ``[limits]`` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from gateway.accounting.budget import BudgetStatus
from gateway.config.parse import name_mistake
from gateway.config.schema import Budget, Limits, User
from gateway.endpoints.admin.errors import AdminError, invalid
from gateway.endpoints.admin.values import UNSET, Unset

MAX_WHOLE = 2**31 - 1  # what the database's columns take
RESERVED = frozenset({"operator"})  # whose requests are the tests of accounts


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What a user may use; 0 = no limit."""

    usd_per_day: float = 0.0
    usd_per_month: float = 0.0
    tokens_per_day: int = 0
    requests_per_minute: int = 0


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """The budgets that change; null = no limit."""

    usd_per_day: float | None | Unset = UNSET
    usd_per_month: float | None | Unset = UNSET
    tokens_per_day: int | None | Unset = UNSET
    requests_per_minute: int | None | Unset = UNSET


@dataclass(frozen=True, slots=True)
class UserChange:
    """What changes of a user; null = as ``[limits]`` says, or no budget."""

    max_concurrent: int | None | Unset = UNSET
    max_queued: int | None | Unset = UNSET
    queue_timeout_s: float | None | Unset = UNSET
    ping_interval_s: float | None | Unset = UNSET
    max_waiting_bytes: int | None | Unset = UNSET
    budget: BudgetChange | None | Unset = UNSET


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made; a limit that is left out is that of ``[limits]``."""

    name: str
    max_concurrent: int | None = None
    max_queued: int | None = None
    queue_timeout_s: float | None = None
    ping_interval_s: float | None = None
    max_waiting_bytes: int | None = None
    budget: BudgetLimits | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made; *expires_at* null = never."""

    label: str = ""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key, shown this once."""

    key: str
    prefix: str
    user: str
    label: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyState:
    """
    Attributes:
        prefix: the first 8 hex digits of the key's hash; its name in the log.
        last_used_at: to the minute.
    """

    prefix: str
    user: str
    source: Literal["config", "runtime"]
    label: str
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyList:
    data: list[KeyState]


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How far one budget is used."""

    budget: str
    used: float
    limit: float
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class UserState:
    """
    Attributes:
        source: users of the config change only there.
        inherited: the limits that are those of ``[limits]``.
        running, waiting: requests on every node.
    """

    name: str
    source: Literal["config", "runtime"]
    created_at: datetime | None
    max_concurrent: int
    max_queued: int
    queue_timeout_s: float
    ping_interval_s: float
    max_waiting_bytes: int
    budget: BudgetLimits
    inherited: list[str]
    budget_used: list[BudgetUse]
    running: int
    waiting: int
    keys: list[KeyState]


@dataclass(frozen=True, slots=True)
class UserList:
    data: list[UserState]
    next: str | None = field(
        default=None, metadata={"doc": "the value of *after* for what follows"}
    )


@dataclass(frozen=True, slots=True)
class UserQuery:
    limit: int = field(default=1000, metadata={"doc": "from 1 to 1000"})
    after: str = field(default="", metadata={"doc": "only names behind this one"})


LIMITS = tuple(one.name for one in dataclasses.fields(Limits))


def new_user(body: NewUser) -> User:
    """
    The user that *body* describes.

    Raises:
        AdminError: "invalid_request", with the field.
    """
    if wrong := name_mistake(body.name):
        raise invalid("name", wrong)
    if body.name in RESERVED:
        raise invalid("name", "is reserved for the gateway's own requests")
    limits = {name: getattr(body, name) for name in LIMITS}
    budget = Budget(**dataclasses.asdict(body.budget)) if body.budget else Budget()
    user = User(body.name, (), **limits, budget=budget)
    _check(user)
    return user


def changed_user(user: User, body: UserChange) -> User:
    """
    *user* as *body* changes it.

    Raises:
        AdminError: "invalid_request", with the field.
    """
    limits = {
        name: value
        for name in LIMITS
        if not isinstance(value := getattr(body, name), Unset)
    }
    budget, change = user.budget, body.budget
    if change is None:
        budget = Budget()
    elif not isinstance(change, Unset):
        given = {
            one.name: getattr(change, one.name) for one in dataclasses.fields(change)
        }
        kept = {n: v or 0 for n, v in given.items() if not isinstance(v, Unset)}
        budget = dataclasses.replace(budget, **kept)
    user = dataclasses.replace(user, **limits, budget=budget)
    _check(user)
    return user


def check_change(body: UserChange) -> None:
    """Refuse what is wrong with *body* for whatever user; see ``changed_user``."""
    changed_user(User("any", ()), body)


def settings_of(user: User) -> dict[str, Any]:
    """What the log says of *user*: its own limits and budgets."""
    own = {name: getattr(user, name) for name in LIMITS}
    budget = dataclasses.asdict(user.budget)
    return {
        **{name: value for name, value in own.items() if value is not None},
        "budget": {name: value for name, value in budget.items() if value},
    }


def user_state(
    user: User,
    default: Limits,
    source: Literal["config", "runtime"],
    created_at: datetime | None,
    counts: tuple[int, int],
    budget_used: Iterable[BudgetUse],
    keys: Iterable[KeyState],
) -> UserState:
    """The state of *user*; *counts*: what runs and what waits."""
    limits = dataclasses.asdict(user.limits(default))
    return UserState(
        name=user.name,
        source=source,
        created_at=created_at,
        **limits,
        budget=BudgetLimits(**dataclasses.asdict(user.budget)),
        inherited=[name for name in LIMITS if getattr(user, name) is None],
        budget_used=list(budget_used),
        running=counts[0],
        waiting=counts[1],
        keys=list(keys),
    )


def budget_use(status: BudgetStatus, moment: datetime) -> BudgetUse:
    """*status*, which is reset at *moment*."""
    return BudgetUse(status.budget, round(status.used, 6), status.limit, moment)


def _check(user: User) -> None:
    """Refuse limits that cannot be; the config's rules, and what the database takes."""
    values = {name: getattr(user, name) for name in LIMITS}
    values |= {
        f"budget.{name}": value
        for name, value in dataclasses.asdict(user.budget).items()
    }
    for name, value in values.items():
        if value is None:
            continue
        if value < 0:
            raise invalid(name, "must not be negative")
        if not value and name in ("ping_interval_s", "max_waiting_bytes"):
            raise invalid(name, "must be above 0")
        whole = name in ("max_concurrent", "max_queued", "budget.requests_per_minute")
        if whole and value > MAX_WHOLE:
            raise invalid(name, f"must be at most {MAX_WHOLE}")


def in_config(name: str) -> AdminError:
    """409: the user *name* is the config's."""
    return AdminError(
        409,
        "user_in_config",
        f"{name} is a user of the config: its limits, budgets and keys (key_sha256) "
        "stand in its [[user]] there; change them there, and reload",
        field="name",
    )
