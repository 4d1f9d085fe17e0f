"""
What a run measured: use of the slots while somebody waits, hand-off, recovery.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.journal import Asked, Journal, Served
from tests.chaos.judge import SETTLE_S, Violation, fenced, most_allowed

WORK = 0.95
ARRIVAL_S = 0.05  # from the client to the line
CALM_S = 4.5  # behind a fault
SLOW_S = 0.1  # what a request with slots free takes where the machine is too busy
SLOW_NEAR_S = 0.5


class Use(NamedTuple):
    """
    Attributes:
        waited_s: how long anybody waited who could have run, in calm times: without a
            fault, and while the machine had time for every node.
        used: slot seconds that were used then, of those that could have been.
        full: the part of that time in which every such slot was in use.
    """

    waited_s: float
    used: float
    full: float


def quantile(values: list[float], part: float) -> float:
    """A quantile of *values*; NaN for none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def use(journal: Journal, accounts: tuple[str, ...], *, calm: bool = True) -> Use:
    """How well the slots of *accounts* were used while anybody waited."""
    running: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    waited_s = full_s = used = could = 0.0
    last = journal.begin
    slow = list(_slow_times(journal)) if calm else []
    for at, what, name, step in _events(journal, accounts):
        counts = _counts(journal, last, calm) and not _within(slow, last)
        if at > last and any(waiting.values()) and counts:
            spent = at - last
            slots = sum(most_allowed(journal, "account", a, last) for a in accounts)
            now = sum(running[f"account {a}"] for a in accounts)
            wanted = _room(journal, running, waiting, last)
            if wanted:
                could_now = min(slots, now + wanted)
                waited_s += spent
                used += spent * min(now, could_now)
                could += spent * could_now
                full_s += spent if now >= could_now else 0.0
        last = max(last, at)
        (running if what == "run" else waiting)[name] += step
    if not waited_s:
        return Use(0.0, 1.0, 1.0)
    return Use(waited_s, used / could, full_s / waited_s)


def _events(
    journal: Journal, accounts: tuple[str, ...]
) -> list[tuple[float, str, str, int]]:
    began = {one.ident: one.began for one in reversed(journal.served)}
    found = []
    for served in journal.served:
        if served.account in accounts:
            for name in (f"account {served.account}", f"user {served.user}"):
                found += [
                    (served.began, "run", name, 1),
                    (served.ended, "run", name, -1),
                ]
    for asked in journal.asked:
        until = began.get(asked.ident, asked.ended)
        if asked.in_line and until > asked.at + ARRIVAL_S:
            found.append((asked.at + ARRIVAL_S, "wait", asked.user, 1))
            found.append((until, "wait", asked.user, -1))
    return sorted(found)


def _room(
    journal: Journal, running: Counter[str], waiting: Counter[str], at: float
) -> int:
    """How many of those who wait their own users' limits would let run."""
    free = 0
    for user, count in waiting.items():
        most = most_allowed(journal, "user", user, at)
        free += min(count, max(0, most - running[f"user {user}"]) if most else count)
    return free


def _slow_times(journal: Journal) -> Iterator[tuple[float, float]]:
    """
    When a request that nothing keeps waiting took long all the same. A node that is
    slow for a reason of its own is the business of ``judge.waits``.
    """
    began = {one.ident: one.began for one in reversed(journal.served)}
    for one in journal.asked:
        came = began.get(one.ident, one.at)
        if not one.in_line and came - one.at > SLOW_S:
            yield one.at - SLOW_NEAR_S, came + SLOW_NEAR_S


def _within(times: list[tuple[float, float]], at: float) -> bool:
    return any(begin <= at <= end for begin, end in times)


def _counts(journal: Journal, at: float, calm: bool) -> bool:
    if not calm:
        return True
    return not any(one.meets(at, at, CALM_S) for one in journal.windows)


def hand_offs(journal: Journal, account: str) -> Iterator[tuple[float, bool]]:
    """
    Seconds from the end of a request to the next one's beginning in its place, and
    whether they ran at two nodes, while all slots were in use and no fault was near.
    """
    moves = [(one.began, 1, one) for one in journal.served if one.account == account]
    moves += [(one.ended, -1, one) for one in journal.served if one.account == account]
    free: list[Served] = []
    asked = {one.ident: one for one in journal.asked}
    running = 0
    for at, step, one in sorted(moves, key=lambda move: (move[0], move[1])):
        running += step
        if step < 0:
            full = running + 1 == most_allowed(journal, "account", account, at)
            free = [*free, one] if full or free else []
        elif free:
            ended = free.pop(0)
            if _waited(asked.get(one.ident), ended.ended) and _counts(
                journal, at, True
            ):
                yield at - ended.ended, ended.node != one.node


def _waited(asked: Asked | None, since: float) -> bool:
    return asked is not None and asked.at < since - ARRIVAL_S


def recoveries(
    journal: Journal, accounts: tuple[str, ...]
) -> Iterator[tuple[str, float]]:
    """How long the slots stay out of use that a dying process held, by its fault."""
    for window in journal.windows:
        if window.kind not in ("worker-killed", "node-killed"):
            continue
        if any(
            one is not window and one.meets(window.begin, window.begin + SETTLE_S)
            for one in journal.windows
        ):
            continue
        lost = [
            one
            for one in journal.served
            if one.cut
            and one.account in accounts
            and one.node == window.node
            and abs(one.ended - window.begin) < 0.3
        ]
        starts = sorted(
            one.began
            for one in journal.served
            if one.began > window.begin and one.account in accounts
        )
        ends = sorted(
            one.ended
            for one in journal.served
            if one.ended > window.begin and one not in lost and one.account in accounts
        )
        if lost:
            yield window.kind, _regained_s(window.begin, len(lost), starts, ends)


def _regained_s(at: float, lost: int, starts: list[float], ends: list[float]) -> float:
    """Until so many more have begun than ended that the lost ones are replaced."""
    balance = -lost
    moves = sorted([(one, 1) for one in starts] + [(one, -1) for one in ends])
    for when, step in moves:
        balance += step
        if balance >= 0:
            return when - at
    return float("inf")


def most_at_once(journal: Journal, scope: str, name: str, *, strict: bool) -> int:
    """The most that ran at once; *strict*: without what the fencing allows."""
    rows = [
        one
        for one in journal.served
        if getattr(one, scope) == name and not (strict and fenced(journal, one))
    ]
    moves = sorted([(r.began, 1) for r in rows] + [(r.ended, -1) for r in rows])
    most = now = 0
    for _, step in moves:
        now += step
        most = max(most, now)
    return most


def conserving(journal: Journal, accounts: tuple[str, ...]) -> list[Violation]:
    """No slot stays free while somebody waits who could have it."""
    found = use(journal, accounts)
    if found.used >= WORK:
        return []
    evidence = f"{found.used:.1%} of the slots in {found.waited_s:.0f} s of waiting"
    return [Violation("conserving", journal.end, evidence)]
