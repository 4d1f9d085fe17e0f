"""
What attempts report of accounts, and whether a further one is allowed.

This file gives the pure parts the clock, and writes what happens to accounts into the
log.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from gateway.accounts.affinity import Affinity
from gateway.accounts.health import Health
from gateway.accounts.health_event import HealthEvent
from gateway.accounts.model_index import ModelIndex
from gateway.accounts.retry_budget import RetryBudget
from gateway.accounts.session import Session
from gateway.accounts.verdict import Verdict
from gateway.telemetry import log


class AttemptKey(NamedTuple):
    """
    One attempt, as every report about it names it.

    Attributes:
        model: the client's name of it; "" if the call concerns none.
        started_at: monotonic seconds.
    """

    account: str = ""
    model: str = ""
    user: str = ""
    started_at: float = 0.0


class AttemptObserver(Protocol):
    """Hears of what other processes should know, too."""

    def changed(self, account: str) -> None:
        """What is known of *account* may have changed."""

    def dropped(self, account: str) -> None:
        """An attempt at *account* says nothing of it."""

    def bound(
        self, session: str, account: str, fitting: Iterable[str], model: str
    ) -> None:
        """The session is at *account* now."""


class AttemptReports:
    """
    The reports of all attempts.

    A report about an account that a reload has removed since the attempt began, or
    that is asked with another credential now, counts for nothing.
    """

    def __init__(self, index: ModelIndex, health: Health, affinity: Affinity) -> None:
        self._index = index
        self._health = health
        self._affinity = affinity
        self._budget = RetryBudget()
        self._changed_at: dict[str, float] = {}  # monotonic: by a reload
        self.observer: AttemptObserver | None = None
        self._log = log.get()

    def may_retry(self, key: AttemptKey, *, same: bool) -> bool:
        """
        Whether the retry budget allows a further attempt; if so, it is withdrawn.

        Args:
            same: the attempt before went to the same account.
        """
        account, model, user, now = key
        fitting = self._index.fitting(model)
        proven = self._health.proven(account, model, now, user)
        return self._budget.try_withdraw(
            fitting, account, now, proven=proven and not same
        )

    def start(self, key: AttemptKey, *, first: bool, last_resort: bool) -> bool:
        """
        A request is about to be sent; False if the account's probe is taken.

        Args:
            first: it was sent to no account before.
            last_resort: every account is out.
        """
        account, model, user, now = key
        if first:
            self._budget.deposit(self._index.fitting(model), now)
        return self._health.started(
            account, model, now, last_resort=last_resort, user=user
        )

    def served(self, key: AttemptKey, session: Session, response_id: str) -> None:
        """The account brought output: it is well, and it knows *session* now."""
        if not self._is_current(key):
            return
        account, model, user, started_at = key
        now = time.monotonic()
        events = self._health.succeeded(account, model, started_at, now, user)
        self._write(account, events)
        if session.is_named:
            fitting = self._index.fitting(model)
            self._affinity.bind(session.key, account, now, fitting, model)
            if self.observer:
                self.observer.bound(session.key, account, fitting, model)
        if response_id:
            self._affinity.made(user, response_id, account, now)

    def failed(self, key: AttemptKey, verdict: Verdict) -> None:
        """It failed before its first output."""
        if not self._is_current(key):
            return
        account, model, user, started_at = key
        now = time.monotonic()
        events = self._health.failed(account, model, verdict, started_at, now, user)
        self._write(account, events, changed=True)

    def completed(self, key: AttemptKey) -> None:
        """It brought an answer to its end."""
        if self._is_current(key):
            now = time.monotonic()
            events = self._health.completed(key.account, key.user, now)
            self._write(key.account, events)

    def broke(self, key: AttemptKey) -> None:
        """Its answer broke off behind the first output."""
        self.dropped(key)
        if self._is_current(key):
            account, _, user, started_at = key
            now = time.monotonic()
            events = self._health.broke(account, started_at, now, user)
            self._write(account, events)

    def dropped(self, key: AttemptKey) -> None:
        """It ended and says nothing of the account."""
        account, model, user, started_at = key
        self._health.dropped(account, model, started_at, user)
        if self.observer:
            self.observer.dropped(account)

    def discard_before(self, accounts: Iterable[str], now: float) -> None:
        """Attempts that began before *now* say nothing of *accounts* any more."""
        changed = {**self._changed_at, **dict.fromkeys(accounts, now)}
        configured = self._index.by_name
        self._changed_at = {n: at for n, at in changed.items() if n in configured}

    def _is_current(self, key: AttemptKey) -> bool:
        """Whether the account is still the one that the attempt was made at."""
        if key.account not in self._index.by_name:
            return False
        return key.started_at >= self._changed_at.get(key.account, 0.0)

    def needs_probe(self, key: AttemptKey) -> bool:
        """Whether this attempt would be the probe of its account."""
        account, model, user, now = key
        return self._health.available(account, model, now, user).probe

    def probed_elsewhere(self, key: AttemptKey) -> None:
        """Another process is trying the account."""
        account, model, user, now = key
        self._health.probed_elsewhere(account, model, now, user)

    def _write(
        self, account: str, events: list[HealthEvent], *, changed: bool = False
    ) -> None:
        if self.observer and (events or changed):
            self.observer.changed(account)
        for event in events:
            cooled = event.event == "account.cooled"
            write = self._log.warning if cooled else self._log.info
            if event.facts.get("reason") == "refused":
                write = self._log.error  # a person must act
            write(event.event, **event.facts)
