"""
``config.toml`` as frozen dataclasses.

A key *is* a field: same name, unit in the name, its default here and nowhere else.
The shipped ``config.toml`` says what a key does; ``gateway.config.parse`` reads and
checks it. Secrets are resolved: a field holds the secret itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.protocols import PROTOCOLS, dialects
from gateway.protocols.options import Options
from gateway.protocols.protocol import WireProtocol

EMBEDDED = "embedded:"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    listen: tuple[str, ...] = ("127.0.0.1:8080",)
    max_body_bytes: int = 64 * 1024 * 1024
    drain_timeout_s: float = 600.0
    log_format: Literal["json", "console", "auto"] = "auto"
    metrics_token: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    workers: int = 1  # 0 = one a core
    allow_origins: tuple[str, ...] = ()
    tell_account: bool = False
    websocket_max_age_s: float = 3300.0
    coalesce_ms: float = 1.0


@dataclass(frozen=True, slots=True)
class AdminSettings:
    listen: tuple[str, ...] = ("127.0.0.1:8081", "unix:admin.sock")
    token: str = ""

    @property
    def tcp(self) -> tuple[str, ...]:
        """The addresses that ask for the token."""
        return tuple(one for one in self.listen if not one.startswith("unix:"))


@dataclass(frozen=True, slots=True)
class Limits:
    max_concurrent: int = 5
    max_queued: int = 20
    queue_timeout_s: float = 30.0
    ping_interval_s: float = 10.0
    max_waiting_bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    connect_timeout_s: float = 10.0
    first_event_timeout_s: float = 600.0
    idle_timeout_s: float = 180.0
    max_switches: int = 3
    client_gone_drain_s: float = 60.0
    sticky_wait_s: float = 3.0
    quote_errors: bool = False


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    url: str = "sqlite:///gateway.db"
    retention_days: int = 90
    trace_retention_days: int = 14
    response_retention_days: int = 7
    response_max_bytes: int = 268435456  # of one user; 0 = no limit


@dataclass(frozen=True, slots=True)
class SharedSettings:
    """``url`` empty: one process, whose limits no other one shares."""

    url: str = ""
    prefix: str = "gw1"
    alone: Literal["share", "refuse"] = "share"


@dataclass(frozen=True, slots=True)
class Budget:
    """0 = no limit."""

    usd_per_day: float = 0.0
    usd_per_month: float = 0.0
    tokens_per_day: int = 0
    requests_per_minute: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens; None: the price of the price list."""

    input: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    output: float | None = None


@dataclass(frozen=True, slots=True)
class User:
    name: str
    key_sha256: tuple[str, ...]
    max_concurrent: int | None = None
    max_queued: int | None = None
    queue_timeout_s: float | None = None
    ping_interval_s: float | None = None
    max_waiting_bytes: int | None = None
    budget: Budget = field(default_factory=Budget)

    def limits(self, default: Limits) -> Limits:
        """This user's limits: its own where given, else *default*."""
        own = (getattr(self, name) for name in Limits.__slots__)
        rest = (getattr(default, name) for name in Limits.__slots__)
        return Limits(*[r if o is None else o for o, r in zip(own, rest)])


class Overrides(dict[str, Any]):
    """The keys of ``Options`` that an ``[account.convert]`` sets, with their values."""


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    base_url: str
    protocol: str = field(default="", metadata={"choices": tuple(PROTOCOLS)})
    api_key: str = ""
    auth: Literal["", "bearer", "x-api-key", "api-key"] = ""
    max_concurrent: int = 0
    priority: int = 1
    models: tuple[str, ...] = ("*",)
    rename: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    price: Price = field(default_factory=Price)
    transport: Literal["http", "websocket"] = "http"
    websocket_compression: bool = False
    dialect: dialects.Dialect = "auto"
    convert: Overrides = field(default_factory=Overrides)

    @property
    def embedded(self) -> bool:
        """Whether this is the trial account, which speaks all three protocols."""
        return self.base_url == EMBEDDED

    def upstream_protocol(self, protocol: str) -> str:
        """The protocol used towards this account for a *protocol* client."""
        return protocol if self.embedded else self.protocol

    def is_native(self, protocol: str) -> bool:
        """Whether a *protocol* client's requests go to this account unconverted."""
        return self.upstream_protocol(protocol) == protocol

    @property
    def wire(self) -> WireProtocol | None:
        """The protocol that the config names; None if it names none."""
        return PROTOCOLS.get(self.protocol)

    @property
    def keeps_responses(self) -> bool:
        """Whether the account's server stores its answers."""
        return self.wire is not None and self.wire.keeps_responses

    def upstream_model(self, model: str) -> str:
        """The client's *model* under the name that this account knows."""
        return self.rename.get(model, model)

    def names(self, model: str) -> bool:
        """Whether the config names the upstream *model* itself, not by a pattern."""
        return model in self.models or model in self.rename.values()

    def dialect_for(self, upstream_model: str) -> str:
        """The row of ``dialects`` that applies to *upstream_model*."""
        if self.dialect != "auto":
            return self.dialect
        return dialects.detected(self.protocol, self.base_url, upstream_model)

    @property
    def server(self) -> str:
        """
        A name of the account's server; accounts with one ``base_url`` share it.

        It travels through clients, and must not reveal the address.
        """
        address = self.base_url.rstrip("/").encode()
        return hashlib.blake2b(address, digest_size=6).hexdigest()

    def options(self, upstream_model: str) -> Options:
        """What the server accepts in requests for *upstream_model*."""
        return dialects.options(self.dialect_for(upstream_model), self.convert)


@dataclass(frozen=True, slots=True)
class Config:
    server: ServerSettings = field(default_factory=ServerSettings)
    admin: AdminSettings | None = None  # without its table there is no admin side
    limits: Limits = field(default_factory=Limits)
    upstream: UpstreamLimits = field(default_factory=UpstreamLimits)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    shared: SharedSettings = field(default_factory=SharedSettings)
    user: tuple[User, ...] = ()
    account: tuple[Account, ...] = ()
