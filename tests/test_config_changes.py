"""
Every key of the config: taken up by a reload, or named as one that needs a restart.

For each key there is a place where the running daemon looks when it needs the value;
the tests read it there, after a reload that has changed this key alone.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from gateway.config.changes import RESTART, compare
from gateway.config.schema import (
    Account,
    AdminSettings,
    Budget,
    Config,
    LedgerSettings,
    Limits,
    Overrides,
    Price,
    ServerSettings,
    User,
)
from gateway.daemon.app import components_of
from gateway.daemon.wiring import Components
from gateway.protocols.options import Options
from tests.conftest import Serve
from tests.kit import settings
from tests.kit.gateway import Gateway
from tests.test_docs_keys import fields_of

Look = Callable[[Components], Any]


def identity(parts: Components) -> Any:
    key = settings.key_of("alice")
    return parts.live.keys.identify({"Authorization": f"Bearer {key}"})


def of_identity(name: str) -> Look:
    return lambda parts: getattr(identity(parts).limits, name)


def of_account(path: str) -> Look:
    def look(parts: Components) -> Any:
        found: Any = parts.accounts.by_name["chat"]
        for name in path.split("."):
            found = (
                found.options("chat-x") if name == "convert" else getattr(found, name)
            )
        return found

    return look


def of_budget(name: str) -> Look:
    return lambda parts: getattr(parts.budget_guard._budgets.limited["alice"], name)


def of_relay(name: str) -> Look:
    return lambda parts: getattr(parts.relay.limits, name)


def slots(scope: str, name: str) -> Look:
    def look(parts: Components) -> int:
        [count] = [one for one in parts.registry.counts(scope) if one.name == name]
        return count.limit

    return look


def kept_days(table: str) -> Look:
    """The days that the ledger's retention keeps rows of *table*."""

    def look(parts: Components) -> int:
        rules: list[Any] = [*parts.ledger._retention._rules]
        aged = [rule.args for rule in rules if hasattr(rule, "args")]
        return min(age.days for one, _, age in aged if one.name == table)

    return look


SERVER: dict[str, Look] = {
    "max_body_bytes": lambda parts: parts.live.config.server.max_body_bytes,
    "drain_timeout_s": lambda parts: parts.live.config.server.drain_timeout_s,
    "metrics_token": lambda parts: parts.live.config.server.metrics_token,
    "websocket_max_age_s": lambda parts: (parts.live.config.server.websocket_max_age_s),
    "coalesce_ms": lambda parts: parts.upstream.gathering._period_s * 1000,
    "tell_account": lambda parts: parts.live.config.server.tell_account,
    "allow_origins": lambda parts: tuple(parts.live.origins._allowed),
}
LEDGER: dict[str, Look] = {
    "retention_days": kept_days("request"),
    "trace_retention_days": kept_days("timeline"),
    "response_retention_days": lambda parts: parts.response_store._retention.days,
    "response_max_bytes": lambda parts: parts.response_store._insert._max_bytes,
}
UPSTREAM: dict[str, Look] = {
    "connect_timeout_s": lambda parts: parts.upstream._limits.connect_timeout_s,
    "client_gone_drain_s": lambda parts: parts.drains.limit_s,
}
LIMITS: dict[str, Look] = {
    "max_concurrent": slots("user", "alice"),
    "max_queued": lambda parts: parts.registry._max_queued["alice"],
    "max_waiting_bytes": of_identity("max_waiting_bytes"),
}
ACCOUNT: dict[str, Look] = {"max_concurrent": slots("account", "chat")}


def look_of(path: str) -> Look | None:
    """Where the value of the key *path* is looked up by the running daemon."""
    section, _, name = path.partition(".")
    if section == "server":
        return SERVER.get(name)
    if path == "admin.token":
        return lambda parts: parts.live.config.admin.token  # type: ignore[union-attr]
    if section == "ledger":
        return LEDGER.get(name)
    if section == "shared":
        return lambda parts: parts.live.config.shared.alone
    if section == "upstream":
        return UPSTREAM.get(name) or of_relay(name)
    if path.startswith("user.budget."):
        return of_budget(name.removeprefix("budget."))
    if path == "user.key_sha256":
        return lambda parts: identity(parts).user.key_sha256
    if section in ("limits", "user"):
        return LIMITS.get(name) or of_identity(name)
    return ACCOUNT.get(name) or of_account(name)


NAMES = ("user.name", "account.name")
KEYS = [key for key, _ in fields_of(Config) if key not in NAMES]
"""A name is not changed: another name is another user or account."""

LIVE = [key for key in KEYS if key not in RESTART]

GIVEN: dict[str, Any] = {
    "ledger.url": "sqlite:///other.db",
    "admin.listen": ("unix:other.sock",),
    "server.listen": ("127.0.0.1:2",),
    "server.log_format": "json",
    "server.log_level": "debug",
    "account.models": ("chat-*", "more"),
    "account.base_url": "http://127.0.0.1:9/elsewhere",
    "account.headers": {"x-a": "b"},
    "account.rename": {"a": "b"},
}


def other(hint: Any, old: Any) -> Any:
    """A value of the type *hint* that is not *old*."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return next(one for one in reversed(args) if one != old)
    if type(None) in args:
        return other(args[0], old)
    if hint is bool:
        return not old
    if hint in (int, float):
        return hint((old or 0) + 3)
    if origin is tuple:
        inner = args[0]
        if typing.get_origin(inner) is Literal:
            return tuple(one for one in typing.get_args(inner)[:1])
        return (*old, "0" * 64) if old else ("one",)
    if origin is Mapping:
        return {**old, "a": "b"}
    return f"{old}x"


def changed(config: Config, path: str) -> tuple[Config, Any]:
    """*config* with another value of the key *path*, and that value."""
    section, *names = path.split(".")
    target: Any = getattr(config, section)
    index = 0
    if section in ("user", "account"):
        index = [one.name for one in target].index(
            "alice" if section == "user" else "chat"
        )
        target = target[index]
    value, fresh = _with(target, names, path)
    if section in ("user", "account"):
        some = list(getattr(config, section))
        some[index] = fresh
        return dataclasses.replace(config, **{section: tuple(some)}), value
    return dataclasses.replace(config, **{section: fresh}), value


def _with(target: Any, names: list[str], path: str) -> tuple[Any, Any]:
    name, *rest = names
    if isinstance(target, Overrides):
        hint = typing.get_type_hints(Options)[name]
        old = getattr(Account("chat", "", "chat").options("chat-x"), name)
        value = other(hint, old)
        return value, Overrides({name: value})
    old = getattr(target, name)
    if rest:
        value, inner = _with(old, rest, path)
        return value, dataclasses.replace(target, **{name: inner})
    hint = typing.get_type_hints(type(target))[name]
    value = GIVEN[path] if path in GIVEN else other(hint, old)
    return value, dataclasses.replace(target, **{name: value})


def test_every_key_is_looked_up_somewhere_or_needs_a_restart() -> None:
    """A new key wants a row: which object reads it, and does a reload reach it?"""
    assert [] == [key for key in LIVE if look_of(key) is None]
    assert [] == sorted(RESTART - set(KEYS))


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    return await serve()


async def test_each_key_is_taken_up_live(gateway: Gateway) -> None:
    parts = components_of(gateway.inside.app)
    # A budget that is set shows each of its keys.
    budget = Budget(1.0, 1.0, 1, 1)
    first = dataclasses.replace(parts._config, admin=AdminSettings())
    users = (dataclasses.replace(first.user[0], budget=budget), *first.user[1:])
    first = dataclasses.replace(first, user=users)
    for path in LIVE:
        parts.reload(first)
        look = look_of(path)
        assert look
        wanted, value = changed(first, path)
        before = look(parts)
        changes = compare(first, wanted)
        parts.reload(changes.config)

        named = path.replace("user.", "user.alice.", 1)
        named = named.replace("account.", "account.chat.", 1)
        assert ([named], []) == (changes.changed, changes.restart_needed), path
        assert value != before, path
        assert value == look(parts), path


@pytest.mark.parametrize("path", sorted(RESTART))
def test_what_needs_a_restart_keeps_its_value_and_is_named(path: str) -> None:
    first = Config(admin=AdminSettings())
    wanted, value = changed(first, path)
    for _ in range(2):  # at each reload, until the restart
        changes = compare(first, wanted)
        assert ([], [path]) == (changes.changed, changes.restart_needed)
        assert first == changes.config


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        pytest.param(None, AdminSettings(token="x" * 8), id="gets-one"),
        pytest.param(AdminSettings(), None, id="loses-it"),
    ],
)
def test_an_admin_side_comes_and_goes_by_a_restart(
    first: AdminSettings | None, wanted: AdminSettings | None
) -> None:
    changes = compare(Config(admin=first), Config(admin=wanted, limits=Limits(1)))

    assert (["limits.max_concurrent"], ["admin"]) == (
        changes.changed,
        changes.restart_needed,
    )
    assert Config(admin=first, limits=Limits(1)) == changes.config


def test_a_live_key_is_taken_up_beside_one_that_needs_a_restart() -> None:
    first = Config()
    wanted = dataclasses.replace(
        first,
        server=ServerSettings(listen=("127.0.0.1:2",), max_body_bytes=1),
        ledger=LedgerSettings(url="sqlite:///other.db", retention_days=1),
        limits=Limits(max_queued=1),
    )
    changes = compare(first, wanted)

    assert ["ledger.url", "server.listen"] == changes.restart_needed
    assert [
        "ledger.retention_days",
        "limits.max_queued",
        "server.max_body_bytes",
    ] == changes.changed
    assert (first.server.listen, 1) == (
        changes.config.server.listen,
        changes.config.server.max_body_bytes,
    )
    assert (first.ledger.url, 1) == (
        changes.config.ledger.url,
        changes.config.ledger.retention_days,
    )


def test_users_and_accounts_are_named_and_no_value_is() -> None:
    first = Config(
        user=(User("alice", ("a" * 64,)), User("bob", ("b" * 64,))),
        account=(Account("one", "http://one"), Account("two", "http://two")),
    )
    wanted = Config(
        user=(User("carol", ("c" * 64,)), User("alice", ("d" * 64,))),
        account=(
            Account("two", "http://two"),
            Account("one", "http://one", api_key="secret", price=Price(input=1.0)),
        ),
    )
    changes = compare(first, wanted)

    assert [
        "account.one.api_key",
        "account.one.price.input",
        "user.alice.key_sha256",
        "user.bob",
        "user.carol",
    ] == changes.changed
    assert "secret" not in str(changes.changed)


def test_the_order_of_accounts_and_users_says_nothing() -> None:
    one, two = Account("one", "http://one"), Account("two", "http://two")
    changes = compare(Config(account=(one, two)), Config(account=(two, one)))

    assert ([], []) == (changes.changed, changes.restart_needed)
