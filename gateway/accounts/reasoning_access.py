"""
Which reasoning of a request an account is sent.

The memory of which account made what is in ``proof_owners``; how a body is changed, in
``gateway.protocols.reasoning_proofs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from gateway.accounts.choice import AccountQuery
from gateway.accounts.model_index import ModelIndex
from gateway.accounts.proof_owners import ProofOwners
from gateway.protocols import PROTOCOLS
from gateway.protocols.reasoning_proofs import FilteredBody, ProofFilter


class Remedy(Enum):
    """How a request whose reasoning an account refused can be sent to it again."""

    NONE = "none"
    LESS_REASONING = "less_reasoning"
    NO_THINKING = "no_thinking"


class ReasoningAccess:
    """
    Args:
        latest: the account of the session's last answer; "" if unknown.

    Attributes:
        on_learnt: called with the keys of proofs, an account, and whether it made them
            (else it could not read them), for other processes.
    """

    def __init__(
        self,
        index: ModelIndex,
        owners: ProofOwners,
        latest: Callable[[AccountQuery], str],
    ) -> None:
        self._index = index
        self._owners = owners
        self._latest = latest
        self._verifying: set[str] = set()  # accounts that have refused thinking
        self.on_learnt: Callable[[list[int], str, bool], object] | None = None

    def readable(
        self,
        query: AccountQuery,
        account: str,
        document: dict[str, Any],
        *,
        thinking_off: bool = False,
    ) -> FilteredBody:
        """
        *document* without what *account* cannot read.

        Args:
            thinking_off: the request was found to be refused with thinking.
        """
        proofs = PROTOCOLS[query.protocol].proofs
        if proofs is None:
            return FilteredBody(document)
        target = self._index.by_name[account]
        latest, user = self._latest(query), query.user
        is_foreign, model = self._owners.is_foreign, query.model
        native = target.is_native(query.protocol)
        readable = ProofFilter(
            lambda proof: is_foreign(user, proof, account, latest),
            native,
            account in self._verifying or self._index.verifies(target, model),
            thinking_off and native,
        )
        return proofs.filtered(document, readable)

    def refused(
        self,
        query: AccountQuery,
        account: str,
        document: dict[str, Any],
        *,
        thinking_off: bool,
    ) -> Remedy:
        """*account* could not read some reasoning in *document*, as it was sent it."""
        proofs = PROTOCOLS[query.protocol].proofs
        target = self._index.by_name.get(account)
        if proofs is None or target is None:
            return Remedy.NONE  # a reload has removed the account meanwhile

        def read(body: dict[str, Any]) -> FilteredBody:
            return self.readable(query, account, body, thinking_off=thinking_off)

        sent = read(document).body
        if proofs.are_signatures and target.is_native(query.protocol):
            if proofs.lacks_thinking(sent) and not thinking_off:
                return Remedy.NO_THINKING
            self._verifying.add(account)
        keys = self._owners.refused(query.user, proofs.proofs_in(sent), account)
        if self.on_learnt and keys:
            self.on_learnt(keys, account, False)
        return Remedy.LESS_REASONING if read(sent).removed else Remedy.NONE

    def made(self, user: str, found: Iterable[str], account: str) -> None:
        """*account* made the proofs *found*, or gave them as a turn state."""
        keys = self._owners.made(user, found, account)
        if self.on_learnt and keys:
            self.on_learnt(keys, account, True)

    def learn(self, keys: Iterable[int], account: str, made: bool) -> None:
        """What another process has seen (see ``on_learnt``)."""
        if account in self._index.by_name:
            learn = self._owners.learn_made if made else self._owners.learn_refused
            learn(keys, account)

    def dump(self, most: int) -> list[Any]:
        """The latest *most* proofs, for another process as JSON."""
        return self._owners.dump(most)

    def load(self, rows: Iterable[Any]) -> None:
        """Take over what ``dump`` of another process gave."""
        self._owners.load(rows)

    def can_read(self, query: AccountQuery, account: str, proof: str) -> bool:
        """Whether *account* may be sent *proof*."""
        latest = self._latest(query)
        return not self._owners.is_foreign(query.user, proof, account, latest)

    def forget(self, account: str) -> None:
        """The name *account* is another server's now."""
        self._verifying.discard(account)
