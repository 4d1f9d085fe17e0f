"""
Which account knows a session, and which one made a response.

Rule 1: everything is scoped by user: two users never share a session, a response or
        its account.
Rule 2: a session that was never seen goes where rendezvous hashing says, so that
        restarts and second nodes agree without memory; no account gets more than
        ``SLACK`` times its share of the sessions.
Rule 3: a session has one place for each set of accounts that its models fit: what its
        small model does never moves its big one. Models that fit the same accounts
        share a place.
Rule 4: a session that moved stays where it moved. A model with no place of its own
        yet goes to an account that the session knows from its other models.
Rule 5: all memory is bounded, by number and by age.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")

SLACK = 1.1
_SPARE_SESSIONS = 2  # a few sessions are no imbalance
MAX_PLACES = 8  # of one session; each is a set of fitting accounts
MAX_ACCOUNTS = 4  # that are remembered at a place
MAX_SESSIONS = 100_000
MAX_RESPONSES = 100_000
SESSION_S = 3600.0  # since its last request
RESPONSE_S = 86400.0
WARM_S = 300.0  # a prompt cache outlives the last request by about this


class Bound(NamedTuple):
    """The account of a session, and whether its cache is still warm."""

    account: str
    warm: bool


Fitting = frozenset[str]
"""The names of all accounts that the config lets serve a model."""
_ANY: Fitting = frozenset()


@dataclass(slots=True)
class _Place:
    """
    What a session has among the accounts that fit one or more of its models.

    Attributes:
        accounts: those that answered, the latest first.
        maker: the account of the last answer, even if it has been removed since.
        model: the model of the last answer.
    """

    accounts: list[str]
    maker: str
    model: str
    used_at: float


_Places = OrderedDict[Fitting, _Place]
"""A session: the place that was used last is the last."""


class Affinity:
    """The memory of sessions and responses; times are monotonic seconds."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Places] = OrderedDict()
        self._held: Counter[str] = Counter()  # places by their latest account
        self._made: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    # -- sessions ---------------------------------------------------------------------

    def bound(
        self,
        key: str,
        well: Iterable[str],
        now: float,
        fitting: Fitting = _ANY,
        model: str = "",
    ) -> Bound | None:
        """
        The account among *well* that knows the session *key*; None if none.

        Args:
            fitting: all accounts that fit the *model*, well or not.
        """
        places = self._sessions.get(key)
        if not places:
            return None
        able = set(well)
        own, others = _places_of(places, fitting, model)
        for place in (*own, *others):
            idle_s = now - place.used_at
            for account in place.accounts:
                if account in able and idle_s <= SESSION_S:
                    return Bound(account, place in own and idle_s <= WARM_S)
        return None

    def latest(self, key: str, fitting: Fitting = _ANY, model: str = "") -> str:
        """
        The account of the session's last answer among *fitting*; "" if unknown.

        It may have been removed since.
        """
        places = self._sessions.get(key)
        own = _places_of(places, fitting, model)[0] if places else []
        return own[0].maker if own else ""

    def bind(
        self,
        key: str,
        account: str,
        now: float,
        fitting: Fitting = _ANY,
        model: str = "",
    ) -> None:
        """*account*, one of those that fit *model*, brought output for *key*."""
        self._expire(now)
        places = self._sessions.setdefault(key, OrderedDict())
        place = places.setdefault(fitting, _Place([], "", "", now))
        before = place.accounts[:1]
        if before != [account]:
            self._hold(before, -1)
            self._held[account] += 1
            others = [name for name in place.accounts if name != account]
            place.accounts = [account, *others][:MAX_ACCOUNTS]
        place.maker, place.model, place.used_at = account, model, now
        places.move_to_end(fitting)
        if len(places) > MAX_PLACES:
            self._hold(places.popitem(last=False)[1].accounts, -1)
        self._sessions.move_to_end(key)
        while len(self._sessions) > MAX_SESSIONS:
            self._drop(self._sessions.popitem(last=False)[1])

    def sessions(self, account: str) -> int:
        """How many sessions have *account* as their latest."""
        return self._held[account]

    def forget(self, account: str) -> None:
        """Free every session from *account*, as after its removal."""
        for places in self._sessions.values():
            for place in places.values():
                if account in place.accounts:
                    self._hold(place.accounts, -1)
                    place.accounts.remove(account)
                    self._hold(place.accounts, 1)

    def forget_responses(self, account: str) -> None:
        """The name *account* is another server's now, which made nothing."""
        for key in [key for key, made in self._made.items() if made[0] == account]:
            del self._made[key]

    def first_choice(
        self, key: str, weights: Mapping[str, float], now: float
    ) -> list[str]:
        """
        The accounts in the order in which a new session *key* should try them.

        Args:
            weights: account → its share of new sessions, above 0.
        """
        self._expire(now)
        order = rendezvous(key, weights)
        sessions = 1 + sum(self._held[name] for name in order)
        whole = sum(weights.values())
        full = {
            name
            for name in order
            if self._held[name]
            >= _SPARE_SESSIONS + SLACK * sessions * weights[name] / whole
        }
        return [n for n in order if n not in full] + [n for n in order if n in full]

    # -- responses --------------------------------------------------------------------

    def made(self, user: str, response_id: str, account: str, now: float) -> None:
        """*account* made the response *response_id* for *user*."""
        key = (user, response_id)
        self._made[key] = (account, now)
        self._made.move_to_end(key)
        while len(self._made) > MAX_RESPONSES:
            self._made.popitem(last=False)

    def maker(self, user: str, response_id: str, now: float) -> str:
        """The account that made *response_id* for *user*; "" if unknown."""
        account, at = self._made.get((user, response_id), ("", now))
        return account if now - at <= RESPONSE_S else ""

    # -- another process of this machine, whose clock it is ---------------------------

    def dump(self, limit: int) -> dict[str, list[Any]]:
        """The *limit* sessions and responses that were used last, as JSON."""
        sessions = [
            [key, [_dumped(fitting, place) for fitting, place in places.items()]]
            for key, places in _last(self._sessions, limit)
        ]
        made = [[*key, *value] for key, value in _last(self._made, limit)]
        return {"sessions": sessions, "made": made}

    def load(self, known: Mapping[str, list[Any]]) -> None:
        """Begin with what ``dump`` of another process gave."""
        for key, dumped in known["sessions"]:
            if key not in self._sessions:
                places: _Places = OrderedDict()
                for fitting, *place in dumped:
                    places[frozenset(fitting)] = _Place(*place)
                    self._hold(place[0], 1)
                self._sessions[key] = places
        for user, response_id, account, at in known["made"]:
            self._made.setdefault((user, response_id), (account, at))

    # -- inside -----------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        while self._sessions:
            key, places = next(iter(self._sessions.items()))
            if now - next(reversed(places.values())).used_at <= SESSION_S:
                return
            del self._sessions[key]
            self._drop(places)

    def _drop(self, places: _Places) -> None:
        for place in places.values():
            self._hold(place.accounts, -1)

    def _hold(self, accounts: Sequence[str], count: int) -> None:
        """Count a place of these *accounts* as held by the latest of them."""
        if accounts:
            self._held[accounts[0]] += count


def _dumped(fitting: Fitting, place: _Place) -> list[Any]:
    return [sorted(fitting), place.accounts, place.maker, place.model, place.used_at]


def _last(ordered: OrderedDict[K, V], limit: int) -> list[tuple[K, V]]:
    """The last *limit* entries, in their order."""
    return list(islice(ordered.items(), max(0, len(ordered) - limit), None))


def _places_of(
    places: _Places, fitting: Fitting, model: str
) -> tuple[list[_Place], list[_Place]]:
    """
    The places of *model*, and the others; the latest first.

    A model has more than one place when a reload has changed which accounts fit it.
    """
    own: list[_Place] = []
    others: list[_Place] = []
    for names, place in reversed(places.items()):
        (own if names == fitting or place.model == model else others).append(place)
    return own, others


def rendezvous(key: str, weights: Mapping[str, float]) -> list[str]:
    """
    *weights*' names, the one that hashing gives *key* first.

    Weighted highest-random-weight hashing: each name wins its share of all keys, and
    taking one away moves only the keys that it had won.
    """

    def score(name: str) -> float:
        digest = hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
        chance = (int.from_bytes(digest) + 0.5) / 2.0**64  # never 0; 1 rounds up
        return -weights[name] / math.log(min(chance, 1 - 2.0**-53))

    return sorted(weights, key=lambda name: (-score(name), name))


def even_weights(limits: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Weights by slots; an account without a limit counts as the largest."""
    most = max((limit for _, limit in limits), default=0) or 1
    return {name: float(limit or most) for name, limit in limits}
