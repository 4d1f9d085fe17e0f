"""
All accounts: the config of each, and what is known of it.

The parts share one index of the accounts, their health, and the memory of sessions,
responses and reasoning; a reload replaces or forgets in all of them together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from gateway.accounts.account_status import AccountStatus, access
from gateway.accounts.affinity import Affinity
from gateway.accounts.attempts import AttemptReports
from gateway.accounts.choice import LoadOf
from gateway.accounts.chooser import Chooser
from gateway.accounts.health import Health
from gateway.accounts.model_index import ModelIndex
from gateway.accounts.proof_owners import ProofOwners
from gateway.accounts.reasoning_access import ReasoningAccess
from gateway.config.schema import Account

HANDED_OVER = 20_000
"""Sessions, and responses, that a following process is given: some 50 ms of work."""


class Accounts:
    """
    Args:
        load: the accounts' slots at this moment.

    Attributes:
        chooser: which account a request goes to, or why to none.
        attempts: what attempts report; whether a further one is allowed.
        reasoning: which reasoning an account is sent.
        status: the accounts' health, for endpoints, metrics and the next process.
        probe_claim: whether this process may send an account's probe; None: it is the
            only one.
    """

    def __init__(self, accounts: Iterable[Account], load: LoadOf) -> None:
        self._index = ModelIndex(accounts)
        self._health = Health(random.random)
        self._affinity = Affinity()
        owners = ProofOwners()
        self.chooser = Chooser(self._index, self._health, self._affinity, owners, load)
        self.attempts = AttemptReports(self._index, self._health, self._affinity)
        self.reasoning = ReasoningAccess(self._index, owners, self.chooser.latest)
        self.status = AccountStatus(self._index, self._health)
        self.probe_claim: Callable[[str], Awaitable[bool]] | None = None

    @property
    def by_name(self) -> Mapping[str, Account]:
        """Every account by its name."""
        return self._index.by_name

    def names(self, account: str, model: str) -> bool:
        """Whether the config names the upstream *model* for *account*."""
        return self._index.names(account, model)

    def replace(self, accounts: Iterable[Account]) -> None:
        """Take up a changed config: what is new is well, what is gone is forgotten."""
        accounts = list(accounts)
        configured = self._index.by_name
        fresh = {account.name: account for account in accounts}
        changed = []
        for name in configured.keys() | fresh.keys():
            old, new = configured.get(name), fresh.get(name)
            if old and new and access(old) == access(new):
                continue
            changed.append(name)
            self._health.forget(name)
            if not (old and new and old.base_url == new.base_url):
                self._affinity.forget(name)
                self.reasoning.forget(name)
            if old and new and old.base_url != new.base_url:
                self._affinity.forget_responses(name)
        self._index.replace(accounts)
        self.attempts.discard_before(changed, time.monotonic())

    def reset(self, account: str) -> None:
        """Forget the outages of *account*, and what older attempts still report."""
        self._health.forget(account)
        self.attempts.discard_before([account], time.monotonic())

    def sessions(self, account: str) -> int:
        """How many sessions go to *account*."""
        return self._affinity.sessions(account)

    # --- the next process ------------------------------------------------------------

    def dump_memory(self) -> dict[str, Any]:
        """What is known of sessions, responses and reasoning, for another process."""
        known = self._affinity.dump(HANDED_OVER)
        return {**known, "proofs": self.reasoning.dump(HANDED_OVER)}

    def load_memory(self, known: Mapping[str, Any]) -> None:
        """Take over what ``dump_memory`` of another process gave."""
        self._affinity.load(known)
        self.reasoning.load(known.get("proofs", ()))

    # --- stored responses ------------------------------------------------------------

    def maker(self, user: str, response_id: str) -> Account | None:
        """The account that made the response *response_id* for *user*."""
        name = self._affinity.maker(user, response_id, time.monotonic())
        return self._index.by_name.get(name)

    def learn_binding(
        self, session: str, account: str, fitting: Iterable[str], model: str
    ) -> None:
        """The session is at *account*, as another process says."""
        if account in self._index.by_name:
            now = time.monotonic()
            self._affinity.bind(session, account, now, frozenset(fitting), model)

    def learn_maker(self, user: str, response_id: str, account: str) -> None:
        """*account* made the response, as another process has written down."""
        if account in self._index.by_name:
            now = time.monotonic()
            self._affinity.made(user, response_id, account, now)

    def keeps_response(self, user: str, response_id: str) -> bool:
        """Whether the account that made *response_id* keeps responses itself."""
        account = self.maker(user, response_id)
        return account is not None and account.keeps_responses

    def has_native(self, model: str, protocol: str) -> bool:
        """Whether an account that serves *model* speaks *protocol* itself."""
        return bool(self._index.native(model, protocol))
