"""What the engine answers, and what it pushes, as named values."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple


class Outcome(IntEnum):
    """
    What became of a request's step.

    FENCED: the node, or the lease, is not known: it must join and say what it has.
    UNKNOWN: the engine has no such user, or none of the accounts.
    TOO_OFTEN: more requests a minute than the user may send.
    """

    GRANTED = 1
    QUEUED = 0
    FULL = -1
    FENCED = -2
    UNKNOWN = -3
    TOO_OFTEN = -4


OUTCOMES = {outcome.value: outcome for outcome in Outcome}


class GateLoad(NamedTuple):
    """
    Attributes:
        gate: ``u`` and a user, or ``a`` and an account.
        ending: how many of the slots *used* are about to be free.
        ages_s: since each of the others was granted; where there are many, a sample
            that is as long.
    """

    gate: str
    limit: int
    used: int
    ending: int
    ages_s: Sequence[float]


class LinePlace(NamedTuple):
    """
    Attributes:
        position: in the fair order, from 1.
        waiting: how many wait for what it waits for, with itself.
        loads: of the gates that it waits for.
    """

    position: int
    waiting: int
    loads: Sequence[GateLoad]


class UserAnswer(NamedTuple):
    """
    Attributes:
        admitted: it has taken a reserved position: it may wait, however many do.
        drawn: the slot is one that was set aside for this node.
        place: where it waits, or would have.
        retry_s: TOO_OFTEN: until the next may be sent.
        account: whose slot it has, too; "" for none. *account_drawn*: as *drawn*.
    """

    outcome: Outcome
    admitted: bool = False
    place: LinePlace | None = None
    retry_s: float = 0.0
    drawn: bool = False
    account: str = ""
    account_drawn: bool = False


class AccountAnswer(NamedTuple):
    """
    Attributes:
        account: whose slot was granted.
        place: where it waits, or would have.
        drawn: the slot is one that was set aside for this node.
    """

    outcome: Outcome
    account: str = ""
    place: LinePlace | None = None
    drawn: bool = False


class GateCount(NamedTuple):
    """
    Attributes:
        used: slots in use.
        limit: how many there are; -1: there is no such gate.
        spare: how many are set aside for the node that asked.
    """

    used: int
    limit: int
    spare: int = 0


class BeatAnswer(NamedTuple):
    """
    Attributes:
        fenced: the node was declared dead: it must join and say what it has.
        nodes: how many live; *rank*: the node's own number among them, from 0.
        resync: the node's number of leases is not the engine's. Once may be a refusal
            on its way; twice in a row something was lost.
        learning_s: so long nothing is granted yet; a beat after it ends that.
        reaped: the nodes that this beat has declared dead.
        config: the hash of the newest config; "" if there is none.
        counts: of the gates asked for.
    """

    fenced: bool
    nodes: int = 0
    rank: int = 0
    resync: bool = False
    learning_s: float = 0.0
    reaped: Sequence[str] = ()
    config: str = ""
    counts: Sequence[GateCount] = ()


class LeaseNews(NamedTuple):
    """
    What the engine knows better than the node.

    *state*: ``U`` or ``A``: a slot was granted; ``E``: it was asked to end; ``D``: it
    drains.
    """

    lease: str
    state: str
    account: str


class PlacesAnswer(NamedTuple):
    """The places of those that wait, by lease; a lease that does not is left out."""

    places: dict[str, LinePlace]


class MarkAnswer(NamedTuple):
    """
    Attributes:
        stored: the mark is the new one, of this *version*.
        text: what another has stored instead; "" = nothing is known.
    """

    stored: bool
    version: int
    text: str = ""


class MarkRow(NamedTuple):
    """What is known of an account."""

    key: str
    version: int
    text: str


class HolderRow(NamedTuple):
    """One lease; *age_s*: since its arrival. The states are those of LeaseReport."""

    lease: str
    state: str
    user: str
    account: str
    age_s: float


class Push(NamedTuple):
    """
    What a channel says.

    Attributes:
        kind: ``U``: *lease* has its user's slot; ``A``: a slot of *account*, too;
            ``E``: its drain must end; ``G``: what is set aside at the gate *account* is
            needed, but for *lease* slots; ``M``: *mark* is what is known of an account
            now (text "" = nothing); others are the nodes' own words.
        account: of the slot; the user, where his is *drawn*.
        rest: everything behind the kind.
        drawn: the slot is one that was set aside for this node.
    """

    kind: str
    lease: str = ""
    account: str = ""
    mark: MarkRow | None = None
    rest: str = ""
    drawn: bool = False


def read_push(data: bytes) -> Push:
    """What was published on a node's channel, or on that of all."""
    kind, _, rest = data.decode().partition(" ")
    if kind == "M":
        key, version, text = rest.split("\1", 2)
        return Push(kind, mark=MarkRow(key, int(version), text), rest=rest)
    lease, _, account = rest.partition(" ")
    return Push(kind.upper(), lease, account, rest=rest, drawn=kind in "ua")


# --- replies --------------------------------------------------------------------------


def user_answer(reply: Any) -> UserAnswer:
    """The answer of ``enter_user``."""
    outcome = OUTCOMES[reply[0]]
    if outcome is Outcome.GRANTED:
        answer = UserAnswer(outcome, bool(reply[1]), drawn=bool(reply[2]))
        if len(reply) == 3:
            return answer
        account, drawn = reply[3].decode(), bool(reply[4])
        return answer._replace(account=account, account_drawn=drawn)
    if outcome is Outcome.QUEUED:
        return UserAnswer(outcome, bool(reply[1]), _place(reply[2:]))
    if outcome is Outcome.FULL:
        return UserAnswer(outcome, place=_place(reply[1:]))
    if outcome is Outcome.TOO_OFTEN:
        return UserAnswer(outcome, retry_s=reply[1] / 1e6)
    return UserAnswer(outcome)


def account_answer(reply: Any) -> AccountAnswer:
    """The answer of ``enter_account`` and ``regroup``."""
    outcome = OUTCOMES[reply[0]]
    if outcome is Outcome.GRANTED:
        return AccountAnswer(outcome, reply[1].decode(), drawn=bool(reply[2]))
    if outcome in (Outcome.QUEUED, Outcome.FULL):
        return AccountAnswer(outcome, place=_place(reply[1:]))
    return AccountAnswer(outcome)


def beat_answer(reply: Any) -> BeatAnswer:
    """The answer of ``beat``."""
    if reply[0] == Outcome.FENCED:
        return BeatAnswer(fenced=True)
    living, rank, resync, learning_us, reaped, config, *counts = reply
    return BeatAnswer(
        False,
        living,
        rank,
        bool(resync),
        learning_us / 1e6,
        texts(reaped),
        config.decode(),
        [GateCount(*counts[i : i + 3]) for i in range(0, len(counts), 3)],
    )


def resync_news(reply: Any) -> list[LeaseNews] | None:
    """The answer of ``resync``; None: fenced."""
    if reply and reply[0] == Outcome.FENCED:
        return None
    words = texts(reply)
    return [LeaseNews(*words[i : i + 3]) for i in range(0, len(words), 3)]


def places_answer(reply: Any) -> PlacesAnswer:
    """The answer of ``places``."""
    loads = {load.gate: load for load in map(_load, reply[1])}
    return PlacesAnswer(
        {
            lease.decode(): LinePlace(
                position, waiting, [loads[gate.decode()] for gate in gates]
            )
            for lease, position, waiting, *gates in reply[0]
        }
    )


def mark_answer(reply: Any) -> MarkAnswer:
    """The answer of ``mark``."""
    stored, version, *text = reply
    return MarkAnswer(bool(stored), version, text[0].decode() if text else "")


def mark_rows(reply: Any) -> list[MarkRow]:
    """The answer of ``marks``."""
    return [
        MarkRow(reply[i].decode(), reply[i + 1], reply[i + 2].decode())
        for i in range(0, len(reply), 3)
    ]


def holder_rows(reply: Any) -> list[HolderRow]:
    """The answer of ``holders``."""
    rows = (reply[i : i + 5] for i in range(0, len(reply), 5))
    return [
        HolderRow(
            lease.decode(), state.decode(), user.decode(), account.decode(), us / 1e6
        )
        for lease, state, user, account, us in rows
    ]


def texts(reply: Any) -> list[str]:
    """A list of texts."""
    return [one.decode() for one in reply]


def number(reply: Any) -> int:
    """A number; the code of a list that begins with one."""
    return int(reply[0] if isinstance(reply, list) else reply)


fenced_or = number
"""1, or -2 (``Outcome.FENCED``)."""


def _place(reply: Any) -> LinePlace:
    position, waiting, loads = reply
    return LinePlace(position, waiting, [_load(one) for one in loads])


def _load(reply: Any) -> GateLoad:
    gate, limit, used, ending, *ages = reply
    count = max(0, used - ending)
    if 0 < len(ages) < count:
        ages = [ages[i * len(ages) // count] for i in range(count)]
    return GateLoad(gate.decode(), limit, used, ending, [age / 1e6 for age in ages])
