"""
What must hold, whatever broke: each rule reads the journal and names what violates it.

Pure. An allowance is a named constant or a named set of faults, with its reason.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.chaos.journal import Asked, Journal, Row, Served, Window

HEAL_S = 2.0  # until a node that comes back has said what it has
SETTLE_S = 5.0  # until the slots of a dead host are back: its lease has ended
FENCED_S = (
    2.5  # a node that is silent for so long may lose its lease (3.5 s, a beat less)
)
LOWERED_S = 4.0  # until all nodes have a lowered limit and older streams have ended
OVER_SHOWN_S = 2.0  # an excess that lasts so long must be shown
TRAVEL_S = 0.25  # two requests that come to two nodes closer together have no order
ENGINE_WAIT_S = 1.1
LEARN_S = 1.5  # an engine that came back empty grants nothing for so long
SLACK_S = 0.4  # of a machine that others use, and of the way to the upstream

CUT_OFF = ("worker-stopped", "node-partitioned", "link-half-open")
AWAY = ("engine-killed", "engine-hung", "node-partitioned", "link-half-open")
KILLED = ("worker-killed", "node-killed", "parent-killed")
ACCOUNTS_OUT = ("account-busy", "account-failing")
OUT_S = 30.0  # a cooldown may last so long behind the trouble itself
NO_OUTPUT = ("left", "unreached")
KNEW = -1  # in the place of a node: its process is not blind


class Violation(NamedTuple):
    """
    Attributes:
        near: the faults that lasted then, or had lasted until shortly before.
    """

    rule: str
    at: float
    evidence: str
    near: tuple[str, ...] = ()


def judge(journal: Journal) -> list[Violation]:
    """Every violation, by rule and time."""
    found = [
        *limits(journal),
        *shown(journal),
        *endings(journal),
        *order(journal),
        *records(journal),
        *waits(journal),
        *(Violation("left-behind", journal.end, one) for one in journal.left_behind),
    ]
    return [one._replace(near=_near(journal, one.at)) for one in found]


def _near(journal: Journal, at: float) -> tuple[str, ...]:
    return tuple(
        f"{one.kind}{'' if one.node < 0 else f' node {one.node}'}"
        f" {one.begin - journal.begin:.1f}-{one.end - journal.begin:.1f} s"
        for one in journal.windows
        if one.meets(at, at, SETTLE_S)
    )


# --- never above a limit --------------------------------------------------------------


def most_allowed(journal: Journal, scope: str, name: str, at: float) -> int:
    """The highest limit that may still hold at *at*; 0: none."""
    known = [one for one in journal.limits if (one.scope, one.name) == (scope, name)]
    old = [one for one in known if one.at <= at - LOWERED_S]
    recent = [one for one in known if at - LOWERED_S < one.at <= at]
    return max((one.most for one in [*old[-1:], *recent]), default=0)


def fenced(journal: Journal, one: Served) -> bool:
    """Whether *one* ran at a node that may have been declared dead while it lived."""
    return any(
        window.hits(one.node)
        and window.meets(one.began, one.ended, HEAL_S)
        and window.end - window.begin >= FENCED_S
        for window in journal.windows
        if window.kind in CUT_OFF
    )


def _began_blind(journal: Journal, one: Served) -> bool:
    """Its process began while it could not reach the engine: nothing is set aside."""
    away = [w for w in journal.windows if w.kind in AWAY and w.hits(one.node)]
    return any(
        window.hits(one.node)
        and out.meets(window.begin, window.end, 1.0)
        and out.meets(one.began, one.ended, HEAL_S)
        for window in journal.windows
        if window.kind in (*KILLED, "restart")
        for out in away
    )


def _names(one: Served) -> Iterator[tuple[str, str]]:
    yield "account", one.account
    yield "user", one.user


def _moves(served: Iterable[Served]) -> list[tuple[float, int, Served]]:
    moves = [(one.began, 1, one) for one in served]
    moves += [(one.ended, -1, one) for one in served]
    return sorted(moves, key=lambda move: (move[0], move[1]))


def limits(journal: Journal) -> Iterator[Violation]:
    """
    Counted at the upstream, without the streams that the fencing allows. A process
    that began without the engine has an equal part of each limit.
    """
    strict = [one for one in journal.served if not fenced(journal, one)]
    blind = {id(one) for one in strict if _began_blind(journal, one)}
    running: dict[tuple[str, str], dict[str, int]] = {}
    above: set[tuple[str, str]] = set()
    for at, step, one in _moves(strict):
        for scope, name in _names(one):
            now = running.setdefault((scope, name), {})
            if step > 0:
                now[one.ident] = one.node if id(one) in blind else KNEW
            else:
                now.pop(one.ident, None)
            most = most_allowed(journal, scope, name, at)
            if not most or _counted(journal, now, most) <= most:
                above.discard((scope, name))
            elif (scope, name) not in above:
                above.add((scope, name))
                yield Violation(
                    "limit",
                    at,
                    f"{scope} {name}: {len(now)} of {most}; node {one.node} began"
                    f" {one.ident}; running {' '.join(sorted(now))}",
                )


def _counted(journal: Journal, now: dict[str, int], most: int) -> int:
    """How many count: of those that blind processes run, what is beyond their parts."""
    part = -(-most // journal.processes)
    nodes = Counter(now.values())
    knew = nodes.pop(KNEW, 0)
    return knew + sum(max(0, count - part) for count in nodes.values())


def shown(journal: Journal) -> Iterator[Violation]:
    """What runs above a limit, and is allowed to, is shown by a metric."""
    running: Counter[tuple[str, str]] = Counter()
    since: dict[tuple[str, str], float] = {}
    for at, step, one in _moves(journal.served):
        for key in _names(one):
            running[key] += step
            most = most_allowed(journal, *key, at)
            if most and running[key] > most:
                since.setdefault(key, at)
                continue
            begun = since.pop(key, at)
            healed = max(
                [
                    begun,
                    *(w.end + HEAL_S for w in journal.windows if w.meets(begun, at)),
                ]
            )
            if at - healed >= OVER_SHOWN_S and not any(
                (seen.scope, seen.name) == key and begun <= seen.at <= at + 1.0
                for seen in journal.over
            ):
                yield Violation(
                    "shown",
                    begun,
                    f"{key[0]} {key[1]} was above its limit for {at - begun:.1f} s,"
                    " and no node showed it",
                )


# --- one ending, one record, in order -------------------------------------------------


def excused(journal: Journal, one: Asked) -> bool:
    """Whether a fault may have cost this request its answer."""
    return any(
        _may_cost(window, one)
        for window in journal.windows
        if window.kind in (*KILLED, *ACCOUNTS_OUT, "worker-stopped")
    )


def _may_cost(window: Window, one: Asked) -> bool:
    if window.kind in ACCOUNTS_OUT:
        codes = ("broken", "hung", "twice", "no-ending")
        return one.ending not in codes and window.meets(one.at, one.ended, OUT_S)
    if window.kind == "worker-stopped" and window.end - window.begin < 9.0:
        return False  # it goes on when it may
    return window.hits(one.node) and window.meets(one.at, one.ended, 1.0)


def endings(journal: Journal) -> Iterator[Violation]:
    """Each request ends once, as its protocol says, and well unless a fault hit it."""
    for one in journal.asked:
        if one.ending in ("ok", "left") or excused(journal, one):
            continue
        yield Violation(
            "ending",
            min(one.ended, journal.end),
            f"{one.ident} of {one.user} at node {one.node}: {one.ending or 'hung'}"
            f" after {min(one.ended, journal.end) - one.at:.1f} s",
        )


class Slowness:
    """
    How long requests that nothing keeps waiting took on their way through a node: so
    long may its part of any order be late. A node that is slow without a reason is the
    business of ``waits``.
    """

    NEAR_S = 1.5

    def __init__(self, journal: Journal, began: dict[str, float]) -> None:
        self._seen: dict[int, list[tuple[float, float]]] = {}
        for one in journal.asked:
            if not one.in_line and one.ident in began:
                seen = one.at, began[one.ident]
                self._seen.setdefault(one.node, []).append(seen)

    def at(self, node: int, begin: float, end: float) -> float:
        """The longest at *node* near that time."""
        return max(
            (
                came - asked
                for asked, came in self._seen.get(node, ())
                if asked <= end + self.NEAR_S and came >= begin - self.NEAR_S
            ),
            default=0.0,
        )


def order(journal: Journal) -> Iterator[Violation]:
    """Of one user, who came later is not served while an earlier one waits."""
    began = {one.ident: one.began for one in reversed(journal.served)}
    slow = Slowness(journal, began)

    def late_s(one: Asked, other: Asked) -> float:
        ways = (slow.at(a.node, a.at, began[a.ident]) for a in (one, other))
        return TRAVEL_S + max(ways)

    lines: dict[str, list[Asked]] = {}
    for one in sorted(journal.asked, key=lambda one: one.at):
        if one.in_line and one.ident in began and not _disturbed(journal, one, began):
            lines.setdefault(one.user, []).append(one)
    for line in lines.values():
        for number, later in enumerate(line):
            passed = [
                one
                for one in line[max(0, number - 40) : number]
                if later.at - one.at > TRAVEL_S
                and began[one.ident] - began[later.ident] > TRAVEL_S
                and later.at - one.at > (late := late_s(one, later))
                and began[one.ident] - began[later.ident] > late
            ]
            if passed:
                yield Violation(
                    "order",
                    began[later.ident],
                    f"{later.ident} (asked {later.at - passed[0].at:.2f} s later) began"
                    f" {began[passed[0].ident] - began[later.ident]:.2f} s before"
                    f" {passed[0].ident}",
                )


def _disturbed(journal: Journal, one: Asked, began: dict[str, float]) -> bool:
    """Whether a fault met its wait: the lines of nodes that are alone are their own."""
    return any(
        window.meets(one.at, began[one.ident], SETTLE_S) for window in journal.windows
    )


def records(journal: Journal) -> Iterator[Violation]:
    """Every row is closed, once, with what its client saw."""
    seen = {one.ident: one for one in journal.asked}
    rows: dict[str, list[Row]] = {}
    for row in journal.rows:
        rows.setdefault(row.ident, []).append(row)
        if row.outcome == "open":
            yield Violation("record", journal.end, f"{row.ident} is still open")
    for ident, count in journal.finished.items():
        if count > 1:
            yield Violation("record", journal.end, f"{ident} has {count} log lines")
    for ident, asked in seen.items():
        mine = rows.get(ident, [])
        if len(mine) > 1:
            yield Violation("record", asked.ended, f"{ident} has {len(mine)} rows")
        if asked.ending == "ok" and [row.outcome for row in mine] != ["ok"]:
            kept = [f"{row.outcome} {row.error_code}" for row in mine]
            yield Violation("record", asked.ended, f"{ident} ended ok, kept: {kept}")


# --- never long for the engine --------------------------------------------------------


def waits(journal: Journal) -> Iterator[Violation]:
    """A request that nothing keeps waiting is served within what an engine may cost."""
    began = {one.ident: one.began for one in reversed(journal.served)}
    for one in journal.asked:
        if one.in_line or one.ending in NO_OUTPUT or one.ident not in began:
            continue
        wait_s = began[one.ident] - one.at
        most_s = _most_wait_s(journal, one, began[one.ident])
        if wait_s > most_s + SLACK_S:
            yield Violation(
                "wait",
                began[one.ident],
                f"{one.ident} at node {one.node}: {wait_s:.2f} s with slots free, at"
                f" most {most_s:.2f} s",
            )


def _most_wait_s(journal: Journal, one: Asked, began: float) -> float:
    most_s = ENGINE_WAIT_S
    for window in journal.windows:
        if not window.hits(one.node) or not window.meets(one.at, began, SETTLE_S):
            continue
        if window.kind in ("worker-stopped", *KILLED, "restart"):
            most_s += window.end - window.begin + 1.0
        if window.kind.startswith("engine-") or window.kind in AWAY:
            most_s += LEARN_S
    return most_s


def ledger_rows(path: Path) -> list[Row]:
    """All requests of a SQLite ledger."""
    with sqlite3.connect(path) as connection:
        kept = "SELECT request_id, outcome, error_code FROM request"
        found = [Row(*map(str, row)) for row in connection.execute(kept)]
    connection.close()
    return found
