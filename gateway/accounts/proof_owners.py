"""
Which account made a proof: encrypted reasoning, a signature, a compaction, a turn
state.

A proof comes back with every later turn, and an account that is sent another's refuses
the whole request. The client keeps a proof for ever, so what is known of it is kept by
the proof, not by the session.

Rule 1: an account that was seen making a proof can read it. Several may have been:
        servers exist that sign everything alike.
Rule 2: a proof that no account was seen making belongs to the account that gave the
        session's last answer, among the accounts that fit this model. Where that is
        not known either, it may be any account's: it is sent, and a refusal shows.
Rule 3: an account that refused a proof is not sent it again; others may be.
Rule 4: what is known is a user's own, and bounded; the longest unused goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from gateway.protocols.reasoning_proofs import PROOF_CHARS

MAX_PROOFS = 100_000
MAX_ACCOUNTS = 4  # that are remembered as makers of one proof, and as refusing it


@dataclass(slots=True)
class _Known:
    """What is known of one proof; the latest account of each kind is the last."""

    seen: tuple[str, ...] = ()  # accounts that were seen making it
    refused: tuple[str, ...] = ()  # accounts that could not read it
    likely: str = ""  # the account that most likely made it


class ProofOwners:
    """The memory of who made which proof; a proof is named by its last characters."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def made(self, user: str, proofs: Iterable[str], account: str) -> list[int]:
        """*account* was seen making *proofs* for *user*; returns their keys."""
        keys = [_key(user, proof) for proof in proofs]
        self.learn_made(keys, account)
        return keys

    def learn_made(self, keys: Iterable[int], account: str) -> None:
        """``made``, by the keys, as another process says."""
        for key in keys:
            known = self._of(key)
            known.seen = _with(known.seen, account)
            known.refused = _without(known.refused, account)

    def makers(self, user: str, proof: str) -> tuple[str, ...]:
        """The accounts that were seen making *proof*."""
        known = self._known.get(_key(user, proof))
        return known.seen if known else ()

    def is_foreign(self, user: str, proof: str, account: str, latest: str) -> bool:
        """
        Whether *account* cannot read *proof*.

        Args:
            latest: the account of the session's last answer among those that fit the
                model; "" if unknown.
        """
        key = _key(user, proof)
        known = self._known.get(key)
        if known is None:
            if not latest or latest == account:
                return False
            known = self._of(key)
        else:
            self._known.move_to_end(key)
        if account in known.seen:
            return False
        if account in known.refused or known.seen:
            return True
        if not known.likely and latest not in known.refused:
            known.likely = latest
        return known.likely not in ("", account)

    def refused(self, user: str, proofs: Iterable[str], account: str) -> list[int]:
        """
        *account* could not read one or more of *proofs*. Returns the keys of these.

        Blamed are those that it was not seen making; if it made all of them, all are.
        """
        proofs = list(proofs)
        blamed = [one for one in proofs if account not in self.makers(user, one)]
        keys = [_key(user, proof) for proof in blamed or proofs]
        self.learn_refused(keys, account)
        return keys

    def learn_refused(self, keys: Iterable[int], account: str) -> None:
        """``refused``, by the keys, as another process says."""
        for key in keys:
            known = self._of(key)
            known.seen = _without(known.seen, account)
            known.refused = _with(known.refused, account)
            if known.likely == account:
                known.likely = ""

    def dump(self, most: int) -> list[Any]:
        """The latest of what is known, at most *most* proofs, for another process."""
        rows = [
            [key, known.seen, known.refused]
            for key, known in reversed(self._known.items())
            if known.seen or known.refused
        ]
        return rows[most - 1 :: -1] if len(rows) > most else rows[::-1]

    def load(self, rows: Iterable[Sequence[Any]]) -> None:
        """Learn what ``dump`` of another process gave; what is known here stays."""
        for key, seen, refused in rows:
            if key not in self._known:
                known = self._of(key)
                known.seen, known.refused = tuple(seen), tuple(refused)

    def _of(self, key: int) -> _Known:
        known = self._known.setdefault(key, _Known())
        self._known.move_to_end(key)
        while len(self._known) > MAX_PROOFS:
            self._known.popitem(last=False)
        return known


def _key(user: str, proof: str) -> int:
    """
    A number for the two, the same in every process: a hundred thousand texts would take
    three times as much.
    """
    text = f"{user}\0{proof[-PROOF_CHARS:]}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def _with(accounts: tuple[str, ...], account: str) -> tuple[str, ...]:
    return (*_without(accounts, account), account)[-MAX_ACCOUNTS:]


def _without(accounts: tuple[str, ...], account: str) -> tuple[str, ...]:
    if account not in accounts:
        return accounts
    return tuple(name for name in accounts if name != account)
