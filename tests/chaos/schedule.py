"""
Which fault comes when: the same seed gives the same schedule.

Pure. Every kind has its turn before one comes again, so that a run of some minutes has
seen all. Behind each fault there is a time of quiet, in which everything must be as
without it; now and then a second fault begins while the first one lasts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

QUIET_S = (4.0, 8.0)
SECOND_FAULT = 0.2  # how often one fault begins within another
KILLS_A_MINUTE = 3  # of one node; its parent gives up at five deaths


class Kind(NamedTuple):
    """
    Attributes:
        lasts_s: shortest and longest; (0, 0) for what is over at once.
        node: whether it hits one node.
        kills: whether a process of the node dies.

    Its part is what it breaks: of one part there is one fault at a time.
    """

    name: str
    lasts_s: tuple[float, float] = (0.0, 0.0)
    node: bool = True
    kills: bool = False

    @property
    def part(self) -> str:
        first = self.name.partition("-")[0]
        if self.name == "node-partitioned":
            return "link"
        return "process" if first in ("worker", "parent", "node", "restart") else first


KINDS = {
    one.name: one
    for one in (
        Kind("worker-killed", kills=True),
        Kind("worker-stopped", (0.3, 7.0)),
        Kind("parent-killed", kills=True),
        Kind("node-killed", (0.5, 3.0), kills=True),
        Kind("restart"),
        Kind("reload", (2.0, 4.0), node=False),
        Kind("engine-killed", (0.3, 6.0), node=False),
        Kind("engine-hung", (0.3, 6.0), node=False),
        Kind("engine-replaced", node=False),
        Kind("engine-flushed", node=False),
        Kind("clock-leapt", node=False),
        Kind("link-cut"),
        Kind("link-lossy", (1.0, 4.0)),
        Kind("link-slow", (1.0, 4.0)),
        Kind("link-half-open", (0.5, 6.0)),
        Kind("node-partitioned", (0.5, 8.0)),
        Kind("account-busy", (0.5, 2.0), node=False),
        Kind("account-failing", (0.5, 2.0), node=False),
    )
}


class Fault(NamedTuple):
    """
    Attributes:
        at_s: since the start of the run.
        lasts_s: until it is mended.
        node: which one it hits; -1: all.
        chance: a number in [0, 1) for whatever else the fault chooses.
    """

    at_s: float
    kind: str
    lasts_s: float
    node: int
    chance: float

    @property
    def end_s(self) -> float:
        return self.at_s + self.lasts_s

    @property
    def shown(self) -> str:
        where = f" node {self.node}" if self.node >= 0 else ""
        return f"{self.at_s:7.2f} s  {self.kind}{where}, {self.lasts_s:.2f} s"


def schedule(
    seed: int, seconds: float, nodes: int, only: tuple[str, ...] = ()
) -> list[Fault]:
    """The faults of a run, in order; the last is over before it ends."""
    chance = random.Random(seed)
    turns = _turns(chance, only or tuple(KINDS))
    kills: dict[int, list[float]] = {node: [] for node in range(nodes)}
    found: list[Fault] = []
    at_s = chance.uniform(*QUIET_S)
    while True:
        kind = KINDS[next(turns)]
        lasts_s = chance.uniform(*kind.lasts_s)
        node = chance.randrange(nodes) if kind.node else -1
        fault = Fault(at_s, kind.name, lasts_s, node, chance.random())
        if kind.kills:
            fault = _spread(fault, kills)
        if fault.end_s + QUIET_S[1] > seconds:
            return found
        found.append(fault)
        if lasts_s > 1.0 and chance.random() < SECOND_FAULT:
            at_s += chance.uniform(0.3, 1.0) * lasts_s
        else:
            last_s = max(one.end_s for one in found)
            at_s = last_s + chance.uniform(*QUIET_S)


def _turns(chance: random.Random, names: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from chance.sample(names, len(names))


def _spread(fault: Fault, kills: dict[int, list[float]]) -> Fault:
    """*fault* at a node that has not lost too many processes lately."""
    recent = {
        node: len([at for at in times if fault.at_s - at < 60.0])
        for node, times in kills.items()
    }
    node = fault.node
    if recent[node] >= KILLS_A_MINUTE:
        node = min(recent, key=lambda one: recent[one])
    kills[node].append(fault.at_s)
    return fault._replace(node=node)
