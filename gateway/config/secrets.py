"""
The secrets of a config: read from where it refers to, and listed for redaction.

A secret is ``env:NAME`` or ``file:PATH``. Keys and tokens accept nothing else. In
``ledger.url``, ``shared.url`` and the headers of an account, which need not be secret,
a literal one is accepted with a warning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import parse_qs, unquote, urlsplit

from gateway.config.schema import Account, AdminSettings, Config
from gateway.telemetry.redaction import MIN_SECRET_CHARS, Redaction

Secrets = Callable[[str], str]
"""Takes ``env:NAME`` or ``file:PATH``, gives the secret; LookupError says why not."""

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")
_CREDENTIAL = re.compile(
    r"(proxy-)?authorization|cookie|.*(api[-_]?key|token|secret|password|credential).*",
    re.I,
)
_PUBLIC_HEADERS = frozenset(
    ("accept", "anthropic-beta", "anthropic-version", "content-type")
    + ("openai-beta", "user-agent")
)
_ADVICE = "write it as env:NAME or file:PATH"


def resolve(config: Config, secrets: Secrets, mistakes: list[str]) -> Config:
    """*config* with every secret in the place of its reference."""
    read = _SecretReader(secrets, mistakes)
    server, ledger, shared = config.server, config.ledger, config.shared
    token = read.secret(server.metrics_token, "server.metrics_token")
    return dataclasses.replace(
        config,
        server=dataclasses.replace(server, metrics_token=token),
        admin=config.admin and read.admin(config.admin),
        ledger=dataclasses.replace(ledger, url=read.text(ledger.url, "ledger.url")),
        shared=dataclasses.replace(shared, url=read.text(shared.url, "shared.url")),
        account=tuple(
            read.account(account, f"account[{i}]")
            for i, account in enumerate(config.account)
        ),
    )


class _SecretReader:
    """Reads secrets; each mistake is added to *mistakes*, with its path."""

    def __init__(self, secrets: Secrets, mistakes: list[str]) -> None:
        self._secrets = secrets
        self._mistakes = mistakes

    def admin(self, admin: AdminSettings) -> AdminSettings:
        """*admin* with its token."""
        return dataclasses.replace(admin, token=self.secret(admin.token, "admin.token"))

    def account(self, account: Account, path: str) -> Account:
        """*account* with its secrets."""
        return dataclasses.replace(
            account,
            api_key=self.secret(account.api_key, f"{path}.api_key"),
            headers={
                name: self.text(value, f"{path}.headers.{name}")
                for name, value in account.headers.items()
            },
        )

    def text(self, given: str, path: str) -> str:
        """What *given* refers to, or *given* itself where it is no reference."""
        if given.startswith(("env:", "file:")):
            return self.secret(given, path)
        return given

    def secret(self, reference: str, path: str) -> str:
        """What *reference* refers to; "" for none, and where it cannot be used."""
        if not reference:
            return ""
        if not _REFERENCE.fullmatch(reference):
            self._mistakes.append(
                f"{path}: must be env:NAME or file:PATH; a literal secret is refused"
            )
            return ""
        try:
            secret = self._secrets(reference).strip()
        except LookupError as error:
            self._mistakes.append(f"{path}: {error.args[0]}")
            return ""
        if not secret or CONTROL.search(secret):
            self._mistakes.append(f"{path}: {reference} holds no usable secret")
            return ""
        return secret


def literal_secrets(config: Config) -> Iterator[str]:
    """
    A warning, with its path, for each secret that *config* holds literally.

    Args:
        config: as it is written, before its references are resolved.
    """
    for path, url in (
        ("ledger.url", config.ledger.url),
        ("shared.url", config.shared.url),
    ):
        if _has_password(url):
            yield f"{path}: holds a password; {_ADVICE}"
    looks_free = Redaction().clean_id
    for i, account in enumerate(config.account):
        for name, value in account.headers.items():
            if not value or value.startswith(("env:", "file:")):
                continue
            if _CREDENTIAL.fullmatch(name) or looks_free(value) != value:
                yield (
                    f"account[{i}].headers.{name}: looks like a credential; {_ADVICE}"
                )


def _has_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.password or any(_query_passwords(parts.query)))
    except ValueError:
        return False


def _query_passwords(query: str) -> Iterator[str]:
    found = parse_qs(query)
    for key in ("password", "sentinel_password"):
        yield from found.get(key, ())


def secrets_of(config: Config, urls: Iterable[str] = ()) -> set[str]:
    """
    Every secret that *config* holds.

    Args:
        urls: further addresses that may hold a password, as those of proxies.
    """
    found = {config.server.metrics_token, config.admin.token if config.admin else ""}
    for account in config.account:
        found.add(account.api_key)
        for name, value in account.headers.items():
            if name.lower() not in _PUBLIC_HEADERS:
                found.add(value.strip())
                found.add(value.strip().partition(" ")[2])  # behind Bearer, Basic
    for url in (config.ledger.url, config.shared.url, *urls):
        found |= set(_passwords_of(url))
    return {one for one in found if len(one) >= MIN_SECRET_CHARS}


def _passwords_of(url: str) -> Iterator[str]:
    """The password of *url*, percent-encoded as it is there, and decoded."""
    try:
        parts = urlsplit(url)
        password = parts.password or ""
        yield from (password, unquote(password), *_query_passwords(parts.query))
    except ValueError:
        return
