"""What ``gateway doctor`` has seen of an installation, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.config.schema import Config


class Finding(NamedTuple):
    """
    Attributes:
        part: what was looked at.
        what: what will happen.
        why: the fact behind it.
        change: the line to change, or what to do.
    """

    part: str
    what: str
    why: str
    change: str


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """
    Attributes:
        problem: why it cannot be used; "" if it can.
        path: of a SQLite file; "" for another database.
        file_system: the type below it.
        mode: the permission bits of that file.
        unwritable: what of it this user may not write.
        free_files: how many more files its disk can hold; None: any number.
    """

    address: str
    problem: str = ""
    path: str = ""
    file_system: str | None = None
    journal_mode: str | None = None
    free_bytes: int | None = None
    free_files: int | None = None
    mode: int | None = None
    unwritable: str = ""
    skew_s: float | None = None  # of the database server's clock


@dataclass(frozen=True, slots=True)
class ThroughFacts:
    """
    One slow trial stream through a web server, and what else it lets pass.

    Attributes:
        problem: why it could not be asked.
        code: of the gateway's refusal; "" where another server refuses.
        direct_status: what the gateway itself answers to the same key.
        events: how many events came; *arrivals*: in how many pieces.
        gap_s: the longest silence between two pieces.
        whole: its terminal came.
        encoding: of the stream; "" if it is not compressed.
        body_limit: the size of a body that it refused before the gateway saw it.
        upgrades: it passes websockets on.
        open_paths: of the operator that it shows to anyone.
        certificate_s: how long its certificate is still valid.
    """

    url: str
    problem: str = ""
    status: int = 200
    code: str = ""
    direct_status: int | None = None
    events: int = 0
    arrivals: int = 0
    gap_s: float = 0.0
    seconds: float = 0.0
    whole: bool = True
    server: str = ""
    encoding: str = ""
    body_limit: int | None = None
    upgrades: bool | None = None
    open_paths: tuple[str, ...] = ()
    certificate_s: float | None = None
    skew_s: float | None = None


@dataclass(frozen=True, slots=True)
class WayFacts:
    """
    How far it is to an account's server; nothing was asked of it.

    Attributes:
        step: the first that failed: name, connect, tls; "" for none.
        detail: why.
        certificate_s: how long its certificate is still valid.
    """

    step: str = ""
    detail: str = ""
    certificate_s: float | None = None


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """
    What the running daemon says of itself, over its admin side.

    Attributes:
        problem: why the commands cannot ask it; "" if they can, or nothing serves.
        accounts, users: as the admin API gives them.
        changed: the sections of the config that differ from what it serves with.
        open_files: how many it may have open.
        lines_lost: of its log.
        slots_over: how many run above a limit.
    """

    problem: str = ""
    version: str = ""
    engine: str = ""
    accounts: tuple[Mapping[str, Any], ...] = ()
    users: tuple[Mapping[str, Any], ...] = ()
    changed: tuple[str, ...] = ()
    open_files: int | None = None
    lines_lost: int = 0
    slots_over: int = 0


@dataclass(frozen=True, slots=True)
class PastFacts:
    """
    The last day in the ledger.

    Attributes:
        requests: that have ended.
        codes: how many ended with each code of the gateway's own.
        absent_models: how often each model was asked for that no account serves.
        in_vain: how many of each user were refused in the queue.
        attempts: at each account; *failures*: of them, by account and code.
        unpriced: requests of each model without a price.
        models: one that each account has served.
    """

    requests: int = 0
    codes: Mapping[str, int] = field(default_factory=dict)
    absent_models: Mapping[str, int] = field(default_factory=dict)
    in_vain: Mapping[str, int] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unpriced: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """
    A provider in the Codex config of this user that points at the gateway.

    Attributes:
        file: where it stands.
        name: of the provider.
        table: its keys.
    """

    file: str
    name: str
    table: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What is not known is None or empty, and says nothing.

    Attributes:
        config_path: the file that was looked at.
        config: None where it has *mistakes*.
        absent: secrets of the config that are not here, by reference: why.
        daemon: why it does not answer; "" if it does; None where that was not asked.
        inside: what it says of itself.
        engine_problems: what is wrong with the engine itself, each with its key.
        unit: the properties of the systemd unit; None where there is none.
        unit_settings: the keys of its files.
        shipped_settings: those of the unit that this version comes with.
        wanted_unit: the unit was named, so that it has to be there.
        clock_synchronized: as systemd says.
        sqlite: its version.
        socket_modes: of the admin side's unix sockets, by path.
        file_modes: of the config and the files with its secrets, by path.
        ways: to each account's server.
        accounts: why each account that was tested failed; "" if it did not.
        clients: of this user.
    """

    config_path: str = ""
    config: Config | None = None
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    daemon: str | None = None
    inside: DaemonFacts = DaemonFacts()
    engine_problems: tuple[str, ...] = ()
    ledger: LedgerFacts | None = None
    past: PastFacts = PastFacts()
    unit_name: str = "gateway.service"
    unit: Mapping[str, str] | None = None
    unit_settings: frozenset[str] = frozenset()
    shipped_settings: frozenset[str] = frozenset()
    wanted_unit: bool = False
    clock_synchronized: bool | None = None
    sqlite: tuple[int, ...] | None = None
    socket_modes: Mapping[str, int] = field(default_factory=dict)
    file_modes: Mapping[str, int] = field(default_factory=dict)
    ways: Mapping[str, WayFacts] = field(default_factory=dict)
    through: ThroughFacts | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)
    clients: tuple[ClientFacts, ...] = ()


Check = Callable[[Facts], Iterator[Finding]]
