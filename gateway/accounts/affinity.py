"""
Which account knows a session, and which one made a response.

Rule 1: everything is scoped by user: two users never share a session, a response or
        its account.
Rule 2: a session that was never seen goes where rendezvous hashing says, so that
        restarts and second nodes agree without memory; no account gets more than
        ``SLACK`` times its share of the sessions.
Rule 3: a session that moved stays where it moved. It keeps its earlier accounts for
        models that the latest does not serve.
Rule 4: all memory is bounded, by number and by age.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SLACK = 1.1
_SPARE_SESSIONS = 2  # a few sessions are no imbalance
_KEPT_ACCOUNTS = 4
MAX_SESSIONS = 100_000
MAX_RESPONSES = 100_000
SESSION_S = 3600.0  # since its last request
RESPONSE_S = 86400.0
WARM_S = 300.0  # a prompt cache outlives the last request by about this


class Bound(NamedTuple):
    """Where a session stands: its account, and whether its cache is still warm."""

    account: str
    warm: bool


@dataclass(slots=True)
class _Binding:
    accounts: list[str]  # latest first
    used_at: float


class Affinity:
    """The memory of sessions and responses; times are monotonic seconds."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Binding] = OrderedDict()
        self._held: Counter[str] = Counter()
        self._made: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    # -- sessions ---------------------------------------------------------------------

    def bound(self, key: str, fitting: Iterable[str], now: float) -> Bound | None:
        """The account among *fitting* that knows the session *key*; None if none."""
        binding = self._sessions.get(key)
        if binding is None or now - binding.used_at > SESSION_S:
            return None
        fit = set(fitting)
        for account in binding.accounts:
            if account in fit:
                return Bound(account, now - binding.used_at <= WARM_S)
        return None

    def latest(self, key: str) -> str:
        """The account of the session's last answer; "" if unknown."""
        binding = self._sessions.get(key)
        return binding.accounts[0] if binding else ""

    def bind(self, key: str, account: str, now: float) -> str:
        """
        *account* brought output for the session *key*.

        Returns:
            The account that the session had before; "" if it is new.
        """
        self._expire(now)
        binding = self._sessions.setdefault(key, _Binding([], now))
        before = binding.accounts[0] if binding.accounts else ""
        if before != account:
            self._held[account] += 1
            if before:
                self._held[before] -= 1
            others = [name for name in binding.accounts if name != account]
            binding.accounts = [account, *others][:_KEPT_ACCOUNTS]
        binding.used_at = now
        self._sessions.move_to_end(key)
        while len(self._sessions) > MAX_SESSIONS:
            self._drop(*self._sessions.popitem(last=False))
        return before

    def forget(self, account: str) -> None:
        """Free every session from *account*, as after its removal."""
        for key, binding in list(self._sessions.items()):
            if account in binding.accounts:
                self._held[binding.accounts[0]] -= 1
                binding.accounts.remove(account)
                if binding.accounts:
                    self._held[binding.accounts[0]] += 1
                else:
                    del self._sessions[key]

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

    # -- inside -----------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        while self._sessions:
            key, binding = next(iter(self._sessions.items()))
            if now - binding.used_at <= SESSION_S:
                return
            del self._sessions[key]
            self._drop(key, binding)

    def _drop(self, key: str, binding: _Binding) -> None:
        self._held[binding.accounts[0]] -= 1


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
