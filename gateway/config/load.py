"""
Read the config file and its secrets from the disk and the environment.

``load_served`` holds the rules that a config must obey to be served. ``gateway check``,
the start and every reload go through it, so none of them accepts what another refuses.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.config.engine_program import MISSING, engine_program
from gateway.config.keys import key_sha256, new_key, new_token
from gateway.config.parse import MAX_WORKERS, ConfigError, is_loopback, parse
from gateway.config.schema import AdminSettings, Config, User

Warn = Callable[[str], object]
StoredUsers = Callable[[Config], Collection[str]]
"""The names of the users that were made at run time, beside those of a config."""
ANY_SECRET = "redis://other"  # in the place of one that is absent: any key accepts it
_DEFAULT_LISTEN = AdminSettings().listen


def installed_example() -> Path | None:
    """The commented config of an installed package; None in a checkout."""
    from importlib import metadata  # only on the way to an error

    try:
        files = metadata.files("llm-gateway") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.match("share/gateway/config.toml"):
            return Path(os.path.normpath(file.locate()))
    return None


class ConfigSource(NamedTuple):
    """
    What a config was made of, so that another process can make the same of it.

    Attributes:
        secrets: by reference.
    """

    text: str
    secrets: dict[str, str]


class ServedConfig(NamedTuple):
    """
    A config that may be served.

    Attributes:
        key: of the throwaway user that was added; "" if the config has users.
        admin_token: the throwaway token of the admin side; "" if the config has one,
            or needs none.
        source: what it was made of.
    """

    config: Config
    key: str = ""
    admin_token: str = ""
    source: ConfigSource = ConfigSource("", {})


def load_served(
    path: Path,
    *,
    passed: Sequence[str] = (),
    open_addresses: Sequence[str] = (),
    key: str = "",
    admin_token: str = "",
    source: ConfigSource | None = None,
    stored_users: StoredUsers = lambda config: (),
    warn: Warn = lambda text: None,
    absent: dict[str, str] | None = None,
) -> ServedConfig:
    """
    The config in the file *path*, ready to be served. Without any user it gets one with
    a throwaway key and admin token, if only this machine can reach the listeners.

    Args:
        passed: the addresses of sockets that systemd opened, before server.listen.
        open_addresses: where a running daemon listens.
        key, admin_token: the throwaway ones that a running daemon has made.
        source: of what another process has read, and made a key for if it needs one.
        stored_users: asked only if the config has no user.
        warn: called with each warning: its path, and what should be changed.
        absent: takes up what secrets cannot be read, by reference, and why; None: they
            are mistakes, as the one of ``ledger.url`` always is.

    Raises:
        ConfigError: with every mistake.
    """
    is_fit, source = source is not None, source or ConfigSource(_text(path), {})
    config = parse(source.text, _secrets(source, path, absent), warn)
    listen = passed or [*open_addresses, *config.server.listen]
    has_users = bool(config.user or is_fit or stored_users(config))
    if mistakes := [*_common_mistakes(config), *_user_mistakes(has_users, listen)]:
        raise ConfigError(mistakes)
    if config.user:
        return ServedConfig(config, source=source)
    key = key or ("" if has_users else new_key())
    served = _with_user(config, key, source)
    return _with_token(served, admin_token or new_token())


def _with_user(config: Config, key: str, source: ConfigSource) -> ServedConfig:
    """*config* with the user of its throwaway *key*; "" for none."""
    if key:
        user = User("trial", (key_sha256(key),))
        config = dataclasses.replace(config, user=(user,))
    return ServedConfig(config, key, source=source)


def _with_token(served: ServedConfig, token: str) -> ServedConfig:
    """*served* with the throwaway *token*, if its admin side needs one."""
    config, admin = served.config, served.config.admin
    if admin is None or not admin.tcp or admin.token:
        return served
    admin = dataclasses.replace(admin, token=token)
    config = dataclasses.replace(config, admin=admin)
    return served._replace(config=config, admin_token=token)


def _user_mistakes(has_users: bool, listen: Sequence[str]) -> list[str]:
    """What is wrong without a user, since a throwaway key is for this machine alone."""
    if has_users or all(map(is_loopback, listen)):
        return []
    return [
        "user: at least one [[user]] is needed, since server.listen can be "
        "reached from other machines (see: gateway key new)"
    ]


def worker_count(config: Config) -> int:
    """How many processes serve *config* on this machine."""
    if config.server.workers:
        return config.server.workers
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)


def needs_engine(config: Config) -> bool:
    """Whether the processes of *config* need an engine of their own."""
    return worker_count(config) > 1 and not config.shared.url


def _common_mistakes(config: Config) -> list[str]:
    """What is wrong whatever users there are."""
    mistakes = _admin_mistakes(config)
    if needs_engine(config) and not engine_program():
        mistakes.append(f"server.workers: {MISSING}")
    return mistakes


def _admin_mistakes(config: Config) -> list[str]:
    """What is wrong with the admin side of *config* for want of a token."""
    admin = config.admin
    if admin is None or admin.token or not admin.tcp:
        return []
    if config.user:
        return [
            f"admin.token: missing; {admin.tcp[0]} of admin.listen needs one "
            "(a unix socket needs none)"
        ]
    if all(map(is_loopback, admin.tcp)):
        return []
    return [
        "admin.token: missing; admin.listen can be reached from other machines, and "
        "a throwaway token is made for this machine alone"
    ]


def _remembering(known: dict[str, str], path: Path) -> Callable[[str], str]:
    """How secrets are resolved; each is entered into *known*, or taken from there."""
    folder = path.resolve().parent

    def secret(reference: str) -> str:
        if reference not in known:
            known[reference] = _secret(reference, folder)
        return known[reference]

    return secret


def _secrets(
    source: ConfigSource, path: Path, absent: dict[str, str] | None
) -> Callable[[str], str]:
    """How the secrets of *source* are resolved; see ``load_served``."""
    secrets = _remembering(source.secrets, path)
    if absent is None:
        return secrets
    return _enduring(secrets, absent, _written_ledger_url(source.text))


def _enduring(
    secrets: Callable[[str], str], absent: dict[str, str], needed: object
) -> Callable[[str], str]:
    """*secrets*, of which all but *needed* may be *absent*."""

    def secret(reference: str) -> str:
        try:
            return secrets(reference)
        except LookupError as error:
            if reference == needed:
                raise
            absent[reference] = str(error.args[0])
            return ANY_SECRET

    return secret


def load(path: Path, warn: Warn = lambda text: None) -> Config:
    """
    The config in the file *path*.

    Args:
        warn: as for ``load_served``.

    Raises:
        ConfigError: with every mistake.
    """
    return parse(_text(path), _remembering({}, path), warn)


def load_ledger_url(path: Path) -> str:
    """
    ``ledger.url`` of the config file *path*; see ``load_beside``.

    Raises:
        ConfigError: with every mistake.
    """
    return load_beside(path).ledger.url


def load_beside(path: Path) -> Config:
    """
    The config file *path* for a command beside the daemon: of its secrets
    ``ledger.url`` alone has to be there; the others hold no value that is of use.

    Raises:
        ConfigError: with every mistake.
    """
    text = _text(path)
    written, folder = _written_ledger_url(text), path.resolve().parent

    def secret(reference: str) -> str:
        return _secret(reference, folder) if reference == written else ANY_SECRET

    return parse(text, secret)


def load_admin(path: Path) -> AdminSettings | None:
    """
    ``[admin]`` of the config file *path*, for a command that speaks with the daemon.
    Mistakes in other tables do not matter, and its token is read where TCP is all
    there is.

    Raises:
        ConfigError: the file cannot be read, or this table is wrong.
    """
    try:
        table = tomllib.loads(_text(path)).get("admin")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError([f"not TOML: {error}"]) from None
    if table is None:
        return None
    listen = table.get("listen", _DEFAULT_LISTEN) if isinstance(table, dict) else 0
    if not isinstance(listen, list | tuple) or not listen:
        raise ConfigError(["admin.listen: must be a list of addresses"])
    settings = AdminSettings(tuple(map(str, listen)))
    token = table.get("token")
    if not token or len(settings.tcp) < len(settings.listen):
        return settings
    try:
        secret = _secret(str(token), path.resolve().parent).strip()
    except LookupError as error:
        raise ConfigError([f"admin.token: {error.args[0]}"]) from None
    return dataclasses.replace(settings, token=secret)


def _written_ledger_url(text: str) -> object:
    """``ledger.url`` before it is resolved; "" where ``parse`` says what is wrong."""
    try:
        return tomllib.loads(text)["ledger"]["url"]
    except (tomllib.TOMLDecodeError, RecursionError, LookupError, TypeError):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        absent = isinstance(error, FileNotFoundError)
        example = installed_example() if absent else None
        hint = f" (an example is {example})" if example else ""
        raise ConfigError([f"{path}: cannot be read: {_reason(error)}{hint}"]) from None


def _secret(reference: str, folder: Path) -> str:
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise LookupError(f"the environment variable {name} is not set")
        return os.environ[name]
    try:
        return (folder / os.path.expandvars(name)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LookupError(f"{name} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
