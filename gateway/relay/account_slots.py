"""
The account that a request goes to next, with a slot of it.

    choose ──▶ wait for a slot of any chosen account ──▶ may it still be asked?
       ▲                                                          │ no
       └──────────────────────────────────────────────────────────┘

A reload or a half-open probe may take the account away while the request waits; then
it chooses again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.accounts.attempts import AttemptKey
from gateway.accounts.choice import Choice
from gateway.admission.interface import AccountsChanged, Slot, Tiers
from gateway.context import RequestContext
from gateway.relay.dependencies import Dependencies
from gateway.relay.failover_state import FailoverState
from gateway.relay.last_error import last_error


class GrantedAccount(NamedTuple):
    """
    The right to ask an account.

    Attributes:
        slot: its owner must release it.
        key: names the attempt in reports about the account.
    """

    slot: Slot
    key: AttemptKey


class AccountSlots:
    """The slots of all accounts, for requests that need one."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._accounts = dependencies.accounts

    async def next(self, state: FailoverState) -> GrantedAccount:
        """
        Wait for a slot of the best account that was not tried.

        Raises:
            GatewayError: no account is left, the retry budget is spent, or the wait
                was too long.
        """
        context, registry = state.context, self._dependencies.registry
        while True:
            now = time.monotonic()
            choice = self.choose(state, now)
            state.fitting = choice.fitting
            context.mark("chosen", **_facts(choice))
            if not choice.tiers:
                raise last_error(self._accounts, state, choice)
            try:
                slot = await registry.account_slot(
                    choice.tiers,
                    context.holder,
                    context.deadline,
                    prefer=choice.prefer,
                    prefer_until=now + self._dependencies.limits.sticky_wait_s,
                )
            except AccountsChanged:
                continue
            try:
                key = None
                if await self._may_probe(state, slot.name):
                    key = self._start(state, choice, slot.name)
                if key:
                    state.try_at(slot.name)
                    return GrantedAccount(slot, key)
            except BaseException:
                slot.release()
                raise
            slot.release()

    def ahead(self, context: RequestContext) -> Tiers:
        """
        The accounts that the first attempt of a request will ask for, as far as is
        known before it runs; empty where more than its body decides.
        """
        document = context.ask.outline
        if document.get("previous_response_id") is not None:
            return ()
        now, chooser = time.monotonic(), self._accounts.chooser
        choice = chooser.choose(context.account_query, document, (), now)
        return ((choice.prefer,),) if choice.prefer else choice.tiers

    def choose(self, state: FailoverState, now: float) -> Choice:
        """The accounts that the request may go to at monotonic *now*."""
        context = state.context
        return self._accounts.chooser.choose(
            context.account_query,
            context.ask.outline,
            state.tried,
            now,
            native_only=state.native_only,
        )

    async def _may_probe(self, state: FailoverState, account: str) -> bool:
        """False where another process is trying the account at this moment."""
        claim = self._accounts.probe_claim
        if claim is None:
            return True
        context = state.context
        model, user = context.ask.model, context.user.name
        key = AttemptKey(account, model, user, time.monotonic())
        reports = self._accounts.attempts
        if not reports.needs_probe(key) or await claim(account):
            return True
        reports.probed_elsewhere(key)
        return False

    def _start(
        self, state: FailoverState, choice: Choice, account: str
    ) -> AttemptKey | None:
        """The key of an attempt at *account*; None if it cannot be asked any more."""
        if account not in self._accounts.by_name:
            return None  # a reload has removed it meanwhile
        context, reports = state.context, self._accounts.attempts
        record, now = context.record, time.monotonic()
        key = AttemptKey(account, context.ask.model, context.user.name, now)
        if state.verdict is not None or choice.last_resort:
            if not reports.may_retry(key, same=account == record.account):
                raise last_error(self._accounts, state, choice)
        if record.queue_ms is None:
            record.queue_ms = record.waited_s(now) * 1000
        context.mark("granted", account=account, **self._moved(state, account))
        first = not record.attempts
        started = reports.start(key, first=first, last_resort=choice.last_resort)
        return key if started else None

    def _moved(self, state: FailoverState, account: str) -> dict[str, str]:
        """The fact that the session comes to *account* from another one."""
        if len(state.fitting) < 2:
            return {}
        before = self._accounts.chooser.latest(state.context.account_query)
        return {"moved_from": before} if before and before != account else {}


def _facts(choice: Choice) -> dict[str, Any]:
    """*choice* for the timeline."""
    rejected: Sequence[tuple[Any, ...]] = choice.rejected
    if rejected:
        rejected = [tuple(one) for one in rejected]
    facts: dict[str, Any] = {"tiers": choice.tiers, "rejected": rejected}
    if choice.bound:
        facts["bound_to"] = list(choice.bound)
    if choice.last_resort:
        facts["last_resort"] = True
    return facts
