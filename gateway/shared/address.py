"""
Where the engine is: the value of ``shared.url``, taken apart.

    unix:///run/valkey/valkey.sock            redis://[[user]:password@]host[:port][/db]
    rediss://…                                sentinel://[…@]a[:port],b,c/name[/db]

Options follow a "?": ``ca=FILE`` (the certificates to trust, for TLS), ``tls=1`` (for
sentinel), ``db``, ``password`` (for unix), ``sentinel_password``.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

ENGINE_PORT = 6379
SENTINEL_PORT = 26379
MAX_HOSTS = 16
SCHEMES = ("unix", "redis", "rediss", "sentinel")
_OPTIONS = {
    "unix": {"db", "password"},
    "redis": {"db"},
    "rediss": {"db", "ca"},
    "sentinel": {"db", "ca", "tls", "sentinel_password"},
}
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,32}")


class Host(NamedTuple):
    """A host name or IP address, and a TCP port."""

    name: str
    port: int


class EngineAddress(NamedTuple):
    """
    Attributes:
        path: of the unix socket; "" for TCP.
        hosts: the engine's, or those of all sentinels.
        master: the name that sentinels know the engine by; "" without sentinels.
        ca: a file of certificates; "" for the system's.
    """

    path: str = ""
    hosts: tuple[Host, ...] = ()
    master: str = ""
    db: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False
    ca: str = ""
    sentinel_password: str = ""

    @property
    def shown(self) -> str:
        """For people: without any password."""
        if self.path:
            return f"unix://{self.path}"
        hosts = ",".join(f"{host.name}:{host.port}" for host in self.hosts)
        if self.master:
            return f"sentinel://{hosts}/{self.master}"
        return f"{'rediss' if self.tls else 'redis'}://{hosts}"


def parse_address(url: str) -> EngineAddress:
    """
    *url* taken apart.

    Raises:
        ValueError: what is wrong, in words that hold no part of a password.
    """
    try:
        parts = urlsplit(url)
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in SCHEMES or parts.fragment:
        raise ValueError(
            "must begin with unix:///PATH, redis://HOST, rediss://HOST or "
            "sentinel://HOST,HOST/NAME"
        )
    for key in options:
        if key not in _OPTIONS[parts.scheme]:
            known = ", ".join(sorted(_OPTIONS[parts.scheme]))
            raise ValueError(f"{parts.scheme}:// knows the options {known} alone")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    common = EngineAddress(
        user=unquote(user),
        password=unquote(password) or options.get("password", ""),
        ca=options.get("ca", ""),
        sentinel_password=options.get("sentinel_password", ""),
    )
    if common.user and not common.password:
        raise ValueError("names a user without a password")
    if parts.scheme == "unix":
        return _unix(common, parts, hosts, options)
    return _tcp(common, parts, hosts, options)


def _unix(
    common: EngineAddress, parts: SplitResult, host: str, options: dict[str, str]
) -> EngineAddress:
    if host or len(parts.path) < 2:
        raise ValueError("must name an absolute path: unix:///run/valkey/valkey.sock")
    path = unquote(parts.path)
    return common._replace(path=path, db=_number(options.get("db", "0")))


def _tcp(
    common: EngineAddress, parts: SplitResult, hosts: str, options: dict[str, str]
) -> EngineAddress:
    sentinel = parts.scheme == "sentinel"
    names = hosts.split(",") if sentinel else [hosts]
    if len(names) > MAX_HOSTS:
        raise ValueError(f"names more than {MAX_HOSTS} hosts")
    words = [word for word in parts.path.split("/") if word]
    master = ""
    if sentinel:
        if not words:
            raise ValueError("must name the engine: sentinel://HOST,HOST/NAME")
        master = unquote(words.pop(0))
    if len(words) > 1:
        raise ValueError("has too long a path: a database is one number")
    return common._replace(
        hosts=tuple(
            _host(name, SENTINEL_PORT if sentinel else ENGINE_PORT) for name in names
        ),
        master=master,
        db=_number(words[0] if words else options.get("db", "0")),
        tls=parts.scheme == "rediss" or options.get("tls", "0") not in ("0", "false"),
    )


def _host(text: str, default_port: int) -> Host:
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name or port == 0:
        raise ValueError("must name a host, and its port if it is not the usual one")
    return Host(name, port or default_port)


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or int(text) > 65535:
        raise ValueError("a database is a number: redis://HOST/0")
    return int(text)


def mistakes_of(url: str, prefix: str) -> list[str]:
    """What is wrong with ``shared.url`` and ``shared.prefix``, each with its path."""
    mistakes = []
    try:
        parse_address(url)
    except ValueError as error:
        mistakes.append(f"shared.url: {error}")
    if not _PREFIX.fullmatch(prefix):
        mistakes.append("shared.prefix: must be 1 to 32 of A-Z a-z 0-9 _ . : -")
    return mistakes
