"""``/api/v1/accounts``: how they are; pause, resume and reset."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.accounts.account_status import KnownOutage
from gateway.accounts.accounts import Accounts
from gateway.admission.interface import AdmissionView, SlotCount
from gateway.config.schema import Account
from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.errors import not_found
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.admin.schema import (
    AccountFacts,
    AccountList,
    AccountState,
    OutageFacts,
    SlotFacts,
    SlotHolder,
)
from gateway.endpoints.live_accounts import LiveAccounts
from gateway.ledger.attempt_failures import failures_since
from gateway.ledger.ledger import Ledger
from gateway.telemetry import log

if TYPE_CHECKING:
    from gateway.endpoints.admin.neighbours import Neighbours

FAILURES_KEPT_S = 5.0  # the ledger is asked for failures no more often
NO_SLOTS = SlotCount("account", "", 0, 0, 0)


class AccountView:
    """
    Every account as it is now, read from the parts that know it.

    Attributes:
        neighbours: the other processes; None where there are none.
    """

    def __init__(
        self,
        accounts: Accounts,
        admission: AdmissionView,
        changes: LiveAccounts,
        ledger: Ledger,
    ) -> None:
        self._accounts = accounts
        self._admission = admission
        self._changes = changes
        self._ledger = ledger
        self.neighbours: Neighbours | None = None
        self._failures: dict[str, dict[str, int]] = {}
        self._failures_at = -FAILURES_KEPT_S

    async def all(self) -> list[AccountFacts]:
        """Those of the config, in its order."""
        slots = {one.name: one for one in self._admission.counts("account")}
        holders: dict[str, Counter[str]] = {}
        held, elsewhere = await asyncio.gather(
            self._admission.holders(), self._waiting_elsewhere()
        )
        for one in held:
            if one.account:
                holders.setdefault(one.account, Counter())[one.user] += 1
        failures = await self._recent_failures()
        return [
            self._facts(
                account,
                slots.get(name, NO_SLOTS),
                holders.get(name, Counter()),
                elsewhere[name],
                failures.get(name, {}),
            )
            for name, account in self._accounts.by_name.items()
        ]

    async def _waiting_elsewhere(self) -> Counter[str]:
        return await self.neighbours.waiting() if self.neighbours else Counter()

    async def one(self, name: str) -> AccountFacts:
        """
        Raises:
            AdminError: "not_found".
        """
        for facts in await self.all():
            if facts.name == name:
                return facts
        raise not_found("There is no account of this name")

    def check(self, name: str) -> Account:
        """
        The account *name* of the config.

        Raises:
            AdminError: "not_found".
        """
        account = self._accounts.by_name.get(name)
        if account is None:
            raise not_found("There is no account of this name")
        return account

    async def _recent_failures(self) -> dict[str, dict[str, int]]:
        now = time.monotonic()
        if now - self._failures_at >= FAILURES_KEPT_S:
            self._failures_at = now
            since = datetime.now(UTC) - timedelta(hours=1)
            ask = partial(failures_since, since=since)
            self._failures = await self._ledger.read(ask)
        return self._failures

    def _facts(
        self,
        account: Account,
        slots: SlotCount,
        holders: Counter[str],
        elsewhere: int,
        failures: dict[str, int],
    ) -> AccountFacts:
        now, name = datetime.now(UTC), account.name
        outages = self._accounts.status.outages(name)
        return AccountFacts(
            name=name,
            **self._state(account, outages, now),
            protocol=account.protocol,
            base_url=account.base_url,
            models=[*account.models, *account.rename],
            priority=account.priority,
            slots=SlotFacts(max(slots.in_use, holders.total()), slots.limit),
            holders=[SlotHolder(user, n) for user, n in holders.most_common()],
            waiting=slots.waiting + elsewhere,
            wait_s=round(self._admission.expected_wait_s(name), 1),
            sessions=self._accounts.sessions(name),
            failures_last_hour=sum(failures.values()),
            failures=failures,
            outages=[_outage(one, now) for one in outages],
        )

    def _state(
        self, account: Account, outages: list[KnownOutage], now: datetime
    ) -> dict[str, Any]:
        """State, reason, until when, and who paused it."""
        pause = self._changes.paused.get(account.name)
        whole = [one for one in outages if one.scope == "account"]
        out = not self._accounts.status.is_available(account)
        state: AccountState = "paused" if pause else "cooling" if out else "ready"
        left_s = None
        reason = "paused" if pause else ""
        if state == "cooling":
            first = (whole or outages)[:1]
            reason = first[0].reason if first else ""
            left_s = round(first[0].returns_in_s, 1) if first else None
        return {
            "state": state,
            "reason": reason,
            "until": None if left_s is None else now + timedelta(seconds=left_s),
            "returns_in_s": left_s,
            "paused_at": pause.paused_at if pause else None,
            "paused_by": pause.who if pause else "",
        }


class AccountOperations(OperationSource):
    """The handlers."""

    def __init__(self, view: AccountView, changes: LiveAccounts) -> None:
        self._view = view
        self._changes = changes

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET", "/accounts", "Every account", self._list, answer=AccountList
        )
        yield Operation(
            "GET", "/accounts/{name}", "One account", self._get, answer=AccountFacts
        )
        for action, text, handler in (
            ("pause", "Send it nothing new; what runs there goes on", self._pause),
            ("resume", "Undo a pause", self._resume),
            ("reset", "Forget its cooldown", self._reset),
        ):
            path = f"/accounts/{{name}}/{action}"
            yield Operation(
                "POST", path, text, handler, answer=AccountFacts, errors=(503,)
            )

    async def _list(self, call: AdminCall) -> AccountList:
        return AccountList(await self._view.all())

    async def _get(self, call: AdminCall) -> AccountFacts:
        return await self._view.one(call.part("name"))

    async def _pause(self, call: AdminCall) -> AccountFacts:
        before = await self._view.one(call.part("name"))
        if before.state == "paused":
            return before
        await self._changes.pause(before.name, call.who)
        log.get().warning("account.paused", account=before.name, who=call.who)
        return await self._changed(call, before)

    async def _resume(self, call: AdminCall) -> AccountFacts:
        before = await self._view.one(call.part("name"))
        if before.state != "paused":
            return before
        await self._changes.resume(before.name)
        log.get().info("account.resumed", account=before.name, who=call.who)
        return await self._changed(call, before)

    async def _reset(self, call: AdminCall) -> AccountFacts:
        before = await self._view.one(call.part("name"))
        await self._changes.reset(before.name)
        return await self._changed(call, before)

    async def _changed(self, call: AdminCall, before: AccountFacts) -> AccountFacts:
        """The account after its change, which is logged."""
        after = await self._view.one(before.name)
        call.changed(f"account.{before.name}", before.state, after.state)
        return after


def _outage(one: KnownOutage, now: datetime) -> OutageFacts:
    until = now + timedelta(seconds=max(0.0, one.returns_in_s))
    return OutageFacts(one.scope, one.name, one.reason, until, one.strikes)
