"""The accounts' health as others ask for it: endpoints, metrics, the next process."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gateway.accounts import refusals
from gateway.accounts.health import Health
from gateway.accounts.model_index import ModelIndex
from gateway.accounts.saved_outages import merge_outages
from gateway.config.schema import Account, Price
from gateway.errors import whole_retry_after

LASTING = ("refused", "quota")  # a person must act
MAX_ROWS = 64  # of one account that other processes hear of


class KnownOutage(NamedTuple):
    """
    Attributes:
        scope: ``account``, or the ``user`` or ``model`` that *name* is.
        returns_in_s: until it is asked again.
    """

    scope: str
    name: str
    reason: str
    returns_in_s: float
    strikes: int


class AccountStatus:
    """What is known of every account's health at this moment."""

    def __init__(self, index: ModelIndex, health: Health) -> None:
        self._index = index
        self._health = health

    def is_available(self, account: Account, user: str = "") -> bool:
        """Whether *account* takes requests while others could."""
        now = time.monotonic()
        return self._health.available(account.name, "", now, user).ok

    def check(self, account: Account, user: str) -> None:
        """
        Refuse what *account* alone could serve, while it is out.

        Raises:
            GatewayError: "cooling_down", or why it is out for longer.
        """
        if not self.is_available(account, user):
            now = time.monotonic()
            raise refusals.refusal(self._health, [account.name], "", now, user)

    def states(self) -> dict[str, dict[str, Any]]:
        """Every account: whether it takes requests, else why not and until when."""
        now = time.monotonic()
        states: dict[str, dict[str, Any]] = {}
        for name in self._index.by_name:
            found = self._health.available(name, "", now)
            states[name] = {"available": found.ok}
            if found.reason:
                states[name]["reason"] = found.reason
            if found.until is not None and not found.ok:
                states[name]["returns_in_s"] = whole_retry_after(found.until - now)
        return states

    def outages(self, account: str) -> list[KnownOutage]:
        """What *account* is left out for now: for all, for a user, for a model."""
        now = time.monotonic()
        return [
            KnownOutage(scope, name, outage.reason, outage.until - now, outage.strikes)
            for scope, name, outage in self._health.all_outages(account)
            if not outage.back(now)
        ]

    def set_paused(self, since: Mapping[str, float]) -> None:
        """
        The operator has paused these accounts, and no others.

        Args:
            since: when, in monotonic seconds.
        """
        self._health.paused = dict(since)

    def usable(self) -> bool:
        """
        Whether any account takes requests, if only because no other is left; one
        whose credential or quota was refused does not.
        """
        now = time.monotonic()
        names = self._index.by_name
        looks = [self._health.last_resort(name, "", now) for name in names]
        return any(look.ok and look.reason not in LASTING for look in looks)

    def dump(self) -> list[dict[str, Any]]:
        """The outages that still run, for the next process."""
        rows = self._health.dump(time.monotonic(), time.time())
        for row in rows:
            if account := self._index.by_name.get(row["account"]):
                row["asked"] = _fingerprint(account)
        return rows

    def rows_of(self, account: str) -> list[dict[str, Any]]:
        """The outages of *account* that still run, for other processes."""
        one = self._index.by_name.get(account)
        if one is None:
            return []
        dumped = self._health.dump(time.monotonic(), time.time())
        rows = [row for row in dumped if row["account"] == account]
        return [{**row, "asked": _fingerprint(one)} for row in rows[:MAX_ROWS]]

    def take(
        self, account: str, rows: Iterable[dict[str, Any]], *, whole: bool
    ) -> None:
        """Take up what another process says of *account* (see ``merge_outages``)."""
        one = self._index.by_name.get(account)
        if one is None:
            return
        asked = _fingerprint(one)
        same = [row for row in rows if row.get("asked") == asked]
        now = time.monotonic()
        known, shift = self._health.account(account), now - time.time()
        merge_outages(account, known, same, now, shift, whole)

    def load(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take up the outages of an earlier process, of accounts that are the same."""
        fits = []
        for row in rows:
            account = self._index.by_name.get(str(row.get("account")))
            asked = row.pop("asked", "")  # earlier versions did not write it
            if account and asked in ("", _fingerprint(account)):
                fits.append(row)
        self._health.load(fits, time.monotonic(), time.time())


def access(account: Account) -> Account:
    """What lets the gateway in: *account* without what its requests do not show."""
    return dataclasses.replace(
        account, max_concurrent=0, priority=0, models=(), price=Price()
    )


def _fingerprint(account: Account) -> str:
    """``access`` as 8 hex digits; the account's key is in it."""
    facts = dataclasses.asdict(access(account))
    return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:8]
