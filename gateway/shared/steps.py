"""
Every step that a node takes in the engine: its script, its arguments, its answer.

Rule 1: nothing here talks to the engine: a step is sent by the connection, and its
        ``read`` makes the answer out of the engine's reply.
Rule 2: a step may be sent again when its reply was lost: it changes nothing more.
Rule 3: durations cross the wire, moments never: only the engine's clock counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from gateway.shared.answers import (
    AccountAnswer,
    BeatAnswer,
    HolderRow,
    LeaseNews,
    MarkAnswer,
    MarkRow,
    PlacesAnswer,
    UserAnswer,
    account_answer,
    beat_answer,
    fenced_or,
    holder_rows,
    mark_answer,
    mark_rows,
    number,
    places_answer,
    resync_news,
    texts,
    user_answer,
)
from gateway.shared.script import Script, script

A = TypeVar("A")
Tiers = Sequence[Sequence[str]]

TTL_S = 3.5
"""A node that has not said for so long that it lives has lost everything."""
RESERVED_S = 5.0
"""A request that timed out may come back to its position for so long."""
PROBE_S = 10.0
"""A probe that says nothing for so long lets another start."""
PART = 500
"""Leases, or limits, that one command carries: the engine does nothing else then."""


@dataclass(slots=True, eq=False)
class EngineStep(Generic[A]):
    """
    Attributes:
        words: the script's arguments, behind the prefix of the keys.
        read: makes the answer of the engine's reply.
    """

    script: Script
    words: tuple[str | int, ...]
    read: Callable[[Any], A]


class LeaseReport(NamedTuple):
    """
    What a node says that one of its requests has.

    Attributes:
        state: ``u`` waits for the user's slot, ``U`` has it, ``a`` waits for an
            account too, ``A`` has both, ``D`` has them and drains.
        group: the accounts that it waits for.
        age_s: seconds since it arrived; *held_s*: since it got its latest slot.
        turn: what the engine said of its user's turn; "" if unknown.
    """

    lease: str
    state: str
    user: str
    account: str = ""
    group: tuple[str, ...] = ()
    age_s: float = 0.0
    turn: str = ""
    held_s: float = 0.0


def key_prefix(prefix: str) -> str:
    """
    What every key and channel begins with. The braces make a cluster keep all of them
    in one place. A layout of keys that this one cannot meet gets another prefix.
    """
    return f"{{{prefix}}}:"


def node_channel(prefix: str, node: str) -> str:
    """Where the node *node* hears what is granted to it (see ``read_push``)."""
    return key_prefix(prefix) + node


def common_channel(prefix: str) -> str:
    """Where every node hears what concerns all."""
    return key_prefix(prefix) + "all"


def lease_id(node: str, count: int) -> str:
    """The *count*-th lease of *node*; ids are in the order of their numbers."""
    return f"{node}.{count:010}"


def group_of(names: Iterable[str]) -> str:
    """A set of accounts as the engine knows it."""
    return ",".join(sorted(names))


def user_gate(user: str) -> str:
    """The gate of a user's slots."""
    return f"u{user}"


def account_gate(account: str) -> str:
    """The gate of an account's slots."""
    return f"a{account}"


# --- a request ------------------------------------------------------------------------


def enter_user(
    lease: str,
    user: str,
    max_queued: int,
    *,
    age_s: float = 0.0,
    session: str = "",
    requests_per_minute: int = 0,
    ahead: Tiers = (),
) -> EngineStep[UserAnswer]:
    """
    Ask for the slot of *user*.

    Args:
        age_s: since the request arrived.
        session: whose reserved position it may take.
        requests_per_minute: 0 = no limit.
        ahead: the accounts that it asks for next. Where neither the user nor the best
            of them must be waited for, one answer brings both slots.
    """
    words = (
        *(lease, user, max_queued, _us(age_s), session, requests_per_minute),
        _tiers(ahead),
    )
    return EngineStep(script("enter_user"), words, user_answer)


def enter_account(
    lease: str, tiers: Tiers, fits: Iterable[str], max_queued: int
) -> EngineStep[AccountAnswer]:
    """
    Ask for a slot of any account in *tiers*, the best tier first.

    Args:
        fits: those that it may wait for.
        max_queued: -1 = it may wait, however many do.
    """
    words = (lease, _tiers(tiers), group_of(fits), max_queued)
    return EngineStep(script("enter_account"), words, account_answer)


def regroup(lease: str, tiers: Tiers, fits: Iterable[str]) -> EngineStep[AccountAnswer]:
    """A waiter may take others than before; it keeps its position."""
    words = (lease, _tiers(tiers), group_of(fits))
    return EngineStep(script("regroup"), words, account_answer)


def leave(lease: str, *, reserve: str = "") -> EngineStep[int]:
    """
    Give back everything.

    Args:
        reserve: the session whose position is kept for ``RESERVED_S``.
    """
    words = (lease, "*", reserve, round(RESERVED_S * 1000))
    return EngineStep(script("leave"), words, number)


def leave_account(lease: str, *, keep_turn: bool = False) -> EngineStep[int]:
    """
    Give back the account's slot, or the place in the line for one.

    Args:
        keep_turn: the user's turn counts for the next wait: it chooses anew.
    """
    words = (lease, "t" if keep_turn else "a", "", 0)
    return EngineStep(script("leave"), words, number)


def drain(lease: str) -> EngineStep[int]:
    """Its client has left: the slots are kept while no other request needs them."""
    return EngineStep(script("drain"), (lease,), number)


def places(leases: Sequence[str]) -> EngineStep[PlacesAnswer]:
    """Where these waiters stand; at most ``PART`` of them."""
    return EngineStep(script("places"), tuple(leases), places_answer)


# --- a node ---------------------------------------------------------------------------


def beat(
    node: str,
    leases: int,
    *,
    join: bool = False,
    learn: bool = False,
    expected: int = 0,
    place: str = "",
    ttl_s: float = TTL_S,
    gates: Sequence[str] = (),
) -> EngineStep[BeatAnswer]:
    """
    Say that *node* lives and has so many *leases*.

    Args:
        join: it is new, or was declared dead.
        learn: as *join*; an engine that knows no node has lost its state, and one in
            another *place* may have lost the last moment of it, so nothing is granted
            before all have said what they hold.
        expected: how many nodes there were, if this one was among them; 0 = it is new.
        place: where the engine is, if that changes with a fail-over.
        gates: whose load the answer brings.
    """
    mode = "learn" if learn else "join" if join else ""
    words: tuple[str | int, ...] = (
        node,
        _us(ttl_s),
        leases,
        mode,
        expected,
        place,
        *gates,
    )
    return EngineStep(script("beat"), words, beat_answer)


def give(node: str, gate: str, keep: int = 0) -> EngineStep[int]:
    """Others may have what was set aside for *node* at *gate*, but for *keep* slots."""
    return EngineStep(script("give"), (node, gate, keep), number)


def reap(node: str) -> EngineStep[int]:
    """*node* has ended; how many leases it had, -1 if another step has reaped it."""
    return EngineStep(script("reap"), (node,), number)


def resync(
    node: str, reports: Sequence[LeaseReport]
) -> list[EngineStep[list[LeaseNews] | None]]:
    """
    Say everything that *node* has, in as many steps as it takes. What holds a slot
    comes first, so that none of it is granted meanwhile. None: fenced.
    """
    ordered = sorted(reports, key=lambda one: one.state in "ua")
    parts = [ordered[i : i + PART] for i in range(0, len(ordered), PART)] or [[]]
    steps = []
    for part in parts:
        last = part is parts[-1]
        ids = [one.lease for one in ordered] if last else []
        words = [word for one in part for word in _report_words(one)]
        steps.append(
            EngineStep(
                script("resync"),
                (node, int(last), len(ids), *ids, *words),
                resync_news,
            )
        )
    return steps


def conf(
    node: str, config: str, limits: Sequence[tuple[str, int | None]]
) -> list[EngineStep[int]]:
    """
    Make *limits* hold for all nodes.

    Args:
        config: the hash of the node's config; "" leaves that of the last one.
        limits: gate and slots; 0 = no limit, None = there is no such gate any more.
    """
    parts = [limits[i : i + PART] for i in range(0, len(limits), PART)] or [[]]
    steps = []
    for part in parts:
        words = [
            word
            for gate, slots in part
            for word in (gate, "-" if slots is None else slots)
        ]
        name = config if part is parts[-1] else ""
        steps.append(EngineStep(script("conf"), (node, name, *words), fenced_or))
    return steps


def nodes() -> EngineStep[list[str]]:
    """The nodes that live."""
    return EngineStep(script("nodes"), (), texts)


def holders(node: str, most: int) -> EngineStep[list[HolderRow]]:
    """The first *most* leases of *node*."""
    return EngineStep(script("holders"), (node, most), holder_rows)


# --- what is known in common ----------------------------------------------------------


def mark(
    key: str, version: int, text: str, keep_s: float = 0.0
) -> EngineStep[MarkAnswer]:
    """
    Replace what is known of an account.

    Args:
        version: of what the change was made from; 0 = there was nothing.
        text: "" = nothing is known any more.
    """
    words = (key, version, text, max(1, round(keep_s * 1000)))
    return EngineStep(script("mark"), words, mark_answer)


def marks() -> EngineStep[list[MarkRow]]:
    """Everything that is known of accounts."""
    return EngineStep(script("marks"), (), mark_rows)


def probe(key: str, attempt: str) -> EngineStep[bool]:
    """Ask to be the one request that tries an account; the answer: it is."""
    return EngineStep(script("probe"), (key, attempt, round(PROBE_S * 1000)), bool)


def end_probe(key: str, attempt: str) -> EngineStep[bool]:
    """The attempt is over, so another may try."""
    return EngineStep(script("probe"), (key, attempt, 0), bool)


def _report_words(one: LeaseReport) -> tuple[str | int, ...]:
    return (
        one.lease,
        one.state,
        one.user,
        one.account,
        group_of(one.group),
        _us(one.age_s),
        one.turn,
        _us(one.held_s),
    )


def _tiers(tiers: Tiers) -> str:
    return ";".join([",".join(tier) for tier in tiers])


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
