"""What ``gateway doctor`` has seen of an installation, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

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
        file_system: the type below a SQLite file.
        mode: the permission bits of that file.
    """

    address: str
    problem: str = ""
    file_system: str | None = None
    journal_mode: str | None = None
    free_bytes: int | None = None
    mode: int | None = None
    skew_s: float | None = None  # of the database server's clock


@dataclass(frozen=True, slots=True)
class ThroughFacts:
    """
    One slow trial stream through a web server.

    Attributes:
        problem: why it could not be asked.
        events: how many events came; *arrivals*: in how many pieces.
        gap_s: the longest silence between two pieces.
        whole: its terminal came.
    """

    url: str
    problem: str = ""
    status: int = 200
    events: int = 0
    arrivals: int = 0
    gap_s: float = 0.0
    seconds: float = 0.0
    whole: bool = True
    server: str = ""
    skew_s: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """
    Attributes:
        config: None where it has *mistakes*.
        daemon: why it does not answer; "" if it does; None where that was not asked.
        engine: what the daemon says of the engine: none, up, lost.
        engine_problems: what is wrong with the engine itself, each with its key.
        unit: the properties of the systemd unit; None where there is none.
        wanted_unit: the unit was named, so that it has to be there.
        clock_synchronized: as systemd says.
        socket_modes: of the admin side's unix sockets, by path.
        accounts: why each account that was tested failed; "" if it did not.
    """

    config: Config | None = None
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    daemon: str | None = None
    engine: str | None = None
    engine_problems: tuple[str, ...] = ()
    ledger: LedgerFacts | None = None
    unit_name: str = "gateway.service"
    unit: Mapping[str, str] | None = None
    wanted_unit: bool = False
    clock_synchronized: bool | None = None
    socket_modes: Mapping[str, int] = field(default_factory=dict)
    through: ThroughFacts | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)
