"""
What was seen from outside: by the upstream, by the clients, in the ledger and the log.

Times are monotonic seconds of the one process that is the upstream and all clients.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass
class Served:
    """One request at the upstream, from its last byte to the end of its answer."""

    ident: str
    account: str
    user: str
    node: int
    began: float
    ended: float = float("inf")
    cut: bool = False  # the gateway closed the connection


@dataclass
class Asked:
    """
    One request of a client.

    Attributes:
        ending: "" while it runs, then ``ok``, ``left`` (the client went away),
            ``unreached`` (no connection), ``broken`` (the connection ended without the
            protocol's ending), ``hung`` (it never ended), ``twice`` (more than one
            ending), or the code of the failure that it was given.
        in_line: the request waits in the same line as others of its user.
    """

    ident: str
    user: str
    node: int
    at: float
    ended: float = float("inf")
    ending: str = ""
    in_line: bool = True


class Window(NamedTuple):
    """A fault while it lasts; *node* -1: all."""

    kind: str
    node: int
    begin: float
    end: float

    def hits(self, node: int) -> bool:
        return self.node in (-1, node)

    def meets(self, begin: float, end: float, after_s: float = 0.0) -> bool:
        """Whether it, and *after_s* behind it, has a moment in common with a time."""
        return self.begin <= end and begin <= self.end + after_s


class Limit(NamedTuple):
    """A limit that holds from *at* on."""

    at: float
    scope: str  # "account" or "user"
    name: str
    most: int


class Over(NamedTuple):
    """A node showed at *at* that more runs than allowed."""

    at: float
    scope: str
    name: str


class Row(NamedTuple):
    """A request in the ledger."""

    ident: str
    outcome: str
    error_code: str


@dataclass
class Journal:
    """
    Attributes:
        finished: the canonical lines of each request.
        processes: that serve, in all.
        begin, end: of the time that is judged.
    """

    served: list[Served] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    over: list[Over] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    finished: Counter[str] = field(default_factory=Counter)
    left_behind: list[str] = field(default_factory=list)
    processes: int = 1
    begin: float = 0.0
    end: float = 0.0
