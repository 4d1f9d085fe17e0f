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
from collections.abc import Iterable
from dataclasses import dataclass

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

    def made(self, user: str, proofs: Iterable[str], account: str) -> None:
        """*account* was seen making *proofs* for *user*."""
        for proof in proofs:
            known = self._of(user, proof)
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
            known = self._of(user, proof)
        else:
            self._known.move_to_end(key)
        if account in known.seen:
            return False
        if account in known.refused or known.seen:
            return True
        if not known.likely and latest not in known.refused:
            known.likely = latest
        return known.likely not in ("", account)

    def refused(self, user: str, proofs: Iterable[str], account: str) -> None:
        """
        *account* could not read one or more of *proofs*.

        Blamed are those that it was not seen making; if it made all of them, all are.
        """
        proofs = list(proofs)
        blamed = [one for one in proofs if account not in self.makers(user, one)]
        for proof in blamed or proofs:
            known = self._of(user, proof)
            known.seen = _without(known.seen, account)
            known.refused = _with(known.refused, account)
            if known.likely == account:
                known.likely = ""

    def _of(self, user: str, proof: str) -> _Known:
        key = _key(user, proof)
        known = self._known.setdefault(key, _Known())
        self._known.move_to_end(key)
        while len(self._known) > MAX_PROOFS:
            self._known.popitem(last=False)
        return known


def _key(user: str, proof: str) -> int:
    """A number for the two: a hundred thousand texts would take three times as much."""
    return hash((user, proof[-PROOF_CHARS:]))


def _with(accounts: tuple[str, ...], account: str) -> tuple[str, ...]:
    return (*_without(accounts, account), account)[-MAX_ACCOUNTS:]


def _without(accounts: tuple[str, ...], account: str) -> tuple[str, ...]:
    if account not in accounts:
        return accounts
    return tuple(name for name in accounts if name != account)
