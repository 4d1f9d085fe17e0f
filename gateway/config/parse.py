"""
Read ``config.toml``: from text to ``Config``, or to the list of all its mistakes.

Rule 1: everything that is wrong is reported in one run, each mistake with its path.
Rule 2: unknown, missing and mistyped keys are mistakes; nothing is guessed.
Rule 3: ``gateway.config.secrets`` resolves the secrets.

The dataclasses give the structure (``_read``); the rules that a type cannot express are
the checks of each section.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
import tomllib
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from gateway.config.cors import origin_mistake
from gateway.config.schema import (
    EMBEDDED,
    Account,
    AdminSettings,
    Config,
    Overrides,
    SharedSettings,
    User,
)
from gateway.config.secrets import CONTROL, Secrets, literal_secrets, resolve
from gateway.protocols import PROTOCOLS
from gateway.protocols.options import EFFORTS, Options

MAX_WORKERS = 64
_MISSING = object()
_TYPE_NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list",
    Mapping: "a table",
}
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What the transport and the account's own ``auth`` set.
_RESERVED_HEADERS = frozenset(
    "host content-length transfer-encoding connection accept-encoding "
    "content-encoding upgrade te trailer".split()
)


class ConfigError(Exception):
    """A config that cannot be used; ``mistakes`` holds all, each with its path."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


def parse(
    text: str, secrets: Secrets, warn: Callable[[str], object] = lambda text: None
) -> Config:
    """
    *text* (TOML) as a Config with its secrets resolved.

    Args:
        warn: called with each warning: its path, and what should be changed.

    Raises:
        ConfigError: with every mistake.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError([f"not TOML: {error}"]) from None
    mistakes: list[str] = []
    config: Config = _read(Config, document, "", mistakes)
    warnings = list(literal_secrets(config))
    config = resolve(config, secrets, mistakes)
    mistakes += _check(config)
    if mistakes:
        raise ConfigError(_first_of_each_path(mistakes))
    for warning in warnings:
        warn(warning)
    return config


def _first_of_each_path(mistakes: list[str]) -> list[str]:
    """A missing or mistyped key breaks further rules; only the first is reported."""
    found: dict[str, str] = {}
    for mistake in mistakes:
        found.setdefault(mistake.partition(":")[0], mistake)
    return list(found.values())


# --- structure -----------------------------------------------------------------


def _read(cls: type, table: Mapping[str, Any], path: str, mistakes: list[str]) -> Any:
    """*table* as the dataclass *cls*; what is wrong keeps its default."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in table.keys() - fields.keys():
        near = difflib.get_close_matches(key, fields, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        mistakes.append(f"{path}{key}: unknown key{hint}")
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        value = _MISSING
        if name in table:
            given, place = table[name], path + name
            if choices := spec.metadata.get("choices"):
                value = _choice(choices, given, place, mistakes)
            else:
                value = _value(hints[name], given, place, mistakes)
        elif _required(spec):
            mistakes.append(f"{path}{name}: missing")
        if value is not _MISSING:
            values[name] = value
        elif _required(spec):
            values[name] = () if "tuple" in str(hints[name]) else ""
    return cls(**values)


def _required(spec: dataclasses.Field[Any]) -> bool:
    return (
        spec.default is dataclasses.MISSING
        and spec.default_factory is dataclasses.MISSING
    )


def _value(hint: Any, value: Any, path: str, mistakes: list[str]) -> Any:
    """*value* as the type *hint* wants it; ``_MISSING`` and a mistake otherwise."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # T | None: a key that is there has a T
        return _value(args[0], value, path, mistakes)
    if origin is Literal:
        return _choice([choice for choice in args if choice], value, path, mistakes)
    if origin is tuple:
        return _list(args[0], value, path, mistakes)
    if origin is Mapping:
        return _mapping(value, path, mistakes)
    if hint is Overrides:
        return _overrides(value, path, mistakes)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return _read(typing.cast(type, hint), value, f"{path}.", mistakes)
        mistakes.append(f"{path}: must be a table")
        return _MISSING
    return _scalar(hint, value, path, mistakes)


def _choice(choices: Sequence[str], value: Any, path: str, mistakes: list[str]) -> Any:
    if value in choices:
        return value
    mistakes.append(f"{path}: must be one of {', '.join(choices)}")
    return _MISSING


def _scalar(hint: type, value: Any, path: str, mistakes: list[str]) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        mistakes.append(f"{path}: must be {_TYPE_NAMES[hint]}")
        return _MISSING
    if isinstance(value, float) and not math.isfinite(value):
        mistakes.append(f"{path}: must be a finite number")
        return _MISSING
    if isinstance(value, int | float) and value < 0 and not path.endswith("priority"):
        mistakes.append(f"{path}: must not be negative")
        return _MISSING
    return value


def _list(hint: Any, value: Any, path: str, mistakes: list[str]) -> Any:
    if not isinstance(value, list):
        mistakes.append(f"{path}: must be a list")
        return _MISSING
    items = [
        _value(hint, item, f"{path}[{i}]", mistakes) for i, item in enumerate(value)
    ]
    return tuple(item for item in items if item is not _MISSING)


def _mapping(value: Any, path: str, mistakes: list[str]) -> Any:
    if not isinstance(value, dict):
        mistakes.append(f"{path}: must be a table")
        return _MISSING
    bad = [key for key, item in value.items() if not isinstance(item, str)]
    mistakes += [f"{path}.{key}: must be a string" for key in bad]
    return {key: item for key, item in value.items() if key not in bad}


def _overrides(value: Any, path: str, mistakes: list[str]) -> Any:
    """The keys of ``Options`` that *value* sets, each checked as a field of it."""
    if not isinstance(value, dict):
        mistakes.append(f"{path}: must be a table")
        return _MISSING
    read = _read(Options, value, f"{path}.", mistakes)
    known = (field.name for field in dataclasses.fields(Options))
    return Overrides({name: getattr(read, name) for name in known if name in value})


# --- the rules that a type cannot express ----------------------------------------


def _check(config: Config) -> list[str]:
    """Every broken rule, with its path."""
    mistakes = [
        f"server.listen[{i}]: {wrong}"
        for i, address in enumerate(config.server.listen)
        if (wrong := listen_mistake(address))
    ]
    mistakes += [
        f"server.allow_origins[{i}]: {wrong}"
        for i, origin in enumerate(config.server.allow_origins)
        if (wrong := origin_mistake(origin))
    ]
    if config.admin:
        mistakes += _check_admin(config.admin, config.server.listen)
    if config.server.coalesce_ms > 2:
        mistakes.append("server.coalesce_ms: must be 2 at most")
    if config.limits.ping_interval_s <= 0:
        mistakes.append("limits.ping_interval_s: must be above 0")
    if config.limits.max_waiting_bytes <= 0:
        mistakes.append("limits.max_waiting_bytes: must be above 0")
    for name in ("connect_timeout_s", "first_event_timeout_s", "idle_timeout_s"):
        if getattr(config.upstream, name) <= 0:
            mistakes.append(f"upstream.{name}: must be above 0")
    if config.server.workers > MAX_WORKERS:
        mistakes.append(f"server.workers: must be {MAX_WORKERS} at most")
    if config.server.max_body_bytes <= 0:
        mistakes.append("server.max_body_bytes: must be above 0")
    if not re.match(r"(sqlite:///.|postgresql://.)", config.ledger.url):
        mistakes.append(
            "ledger.url: must begin with sqlite:///PATH or postgresql://HOST/DATABASE"
        )
    mistakes += _check_shared(config.shared)
    mistakes += _twice("user", config.user) + _twice("account", config.account)
    for i, user in enumerate(config.user):
        mistakes += _check_user(user, f"user[{i}]")
    for i, account in enumerate(config.account):
        mistakes += _check_account(account, f"account[{i}]")
    if not config.account:
        mistakes.append("account: at least one [[account]] is needed")
    return mistakes + _keys_twice(config.user)


def _check_admin(admin: AdminSettings, public: tuple[str, ...]) -> list[str]:
    mistakes = [
        f"admin.listen[{i}]: {wrong}"
        for i, address in enumerate(admin.listen)
        if (wrong := listen_mistake(address) or _public_mistake(address, public))
    ]
    if not admin.listen:
        mistakes.append("admin.listen: must name an address (or leave [admin] out)")
    return mistakes


def _public_mistake(address: str, public: tuple[str, ...]) -> str:
    is_shared = address in public and not address.endswith(":0")
    return "is an address of server.listen" if is_shared else ""


def _check_shared(shared: SharedSettings) -> list[str]:
    if not shared.url:
        return []
    from gateway.shared.address import mistakes_of  # only if configured

    return mistakes_of(shared.url, shared.prefix)


def listen_mistake(address: str) -> str:
    """What is wrong with a listen *address*, "" if nothing."""
    if address.startswith("unix:"):
        return "" if len(address) > 5 else "must name a path: unix:/run/gateway.sock"
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        return "must be HOST:PORT or unix:PATH"
    return ""


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a listen *address*."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _twice(section: str, named: Iterable[User | Account]) -> list[str]:
    """Names must be unique and fit for logs and metric labels."""
    mistakes, seen = [], set()
    for i, item in enumerate(named):
        if item.name in seen:
            mistakes.append(f"{section}[{i}].name: {item.name!r} is there twice")
        elif wrong := name_mistake(item.name):
            mistakes.append(f"{section}[{i}].name: {wrong}")
        seen.add(item.name)
    return mistakes


def name_mistake(name: str) -> str:
    """What is wrong with the *name* of a user or account, "" if nothing."""
    return "" if _NAME.fullmatch(name) else "must be 1 to 64 of A-Z a-z 0-9 . _ @ -"


def _keys_twice(users: tuple[User, ...]) -> list[str]:
    counts = Counter(key for user in users for key in user.key_sha256)
    return [
        f"user[{i}].key_sha256[{k}]: the same key is there twice"
        for i, user in enumerate(users)
        for k, key in enumerate(user.key_sha256)
        if counts[key] > 1
    ]


def _check_user(user: User, path: str) -> list[str]:
    mistakes = [
        f"{path}.key_sha256[{i}]: must be 64 hex digits (see: gateway key new)"
        for i, key in enumerate(user.key_sha256)
        if not _SHA256.fullmatch(key)
    ]
    if not user.key_sha256:
        mistakes.append(f"{path}.key_sha256: at least one key is needed")
    if user.ping_interval_s is not None and user.ping_interval_s <= 0:
        mistakes.append(f"{path}.ping_interval_s: must be above 0")
    if user.max_waiting_bytes == 0:
        mistakes.append(f"{path}.max_waiting_bytes: must be above 0")
    return mistakes


def _check_account(account: Account, path: str) -> list[str]:
    mistakes = []
    if account.embedded:
        if account.api_key:
            mistakes.append(f"{path}.api_key: the embedded account takes none")
    else:
        mistakes += _check_url(account.base_url, f"{path}.base_url")
        if not account.protocol:
            mistakes.append(f"{path}.protocol: must be one of {', '.join(PROTOCOLS)}")
    speaks = account.wire is not None and account.wire.has_websocket
    if account.transport != "http" and (account.embedded or not speaks):
        able = (name for name, wire in PROTOCOLS.items() if wire.has_websocket)
        mistakes.append(
            f'{path}.transport: "websocket" needs protocol = "{", ".join(able)}"'
        )
    if account.websocket_compression and account.transport != "websocket":
        mistakes.append(f'{path}.websocket_compression: needs transport = "websocket"')
    if not account.models:
        mistakes.append(f"{path}.models: at least one model is needed")
    mistakes += [
        f"{path}.convert.efforts[{i}]: must be one of {', '.join(EFFORTS)}"
        for i, effort in enumerate(account.convert.get("efforts", ()))
        if effort not in EFFORTS
    ]
    for name, value in account.headers.items():
        if not _HEADER_NAME.fullmatch(name) or CONTROL.search(value):
            mistakes.append(f"{path}.headers.{name}: not a header")
        elif name.lower() in _RESERVED_HEADERS:
            mistakes.append(f"{path}.headers.{name}: set by the gateway itself")
    return mistakes


def _check_url(url: str, path: str) -> list[str]:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
        fine = fine and parts.port != 0
    except ValueError:
        return [f"{path}: not a URL"]
    if not fine:
        return [f"{path}: must be http://HOST… or https://HOST… (or {EMBEDDED})"]
    if parts.username or parts.password:
        return [f"{path}: must not hold a password; use api_key"]
    if parts.query or parts.fragment:
        return [f"{path}: must not have a query or fragment"]
    return []
