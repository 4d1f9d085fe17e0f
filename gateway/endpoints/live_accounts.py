"""
What the operator has done to accounts: pauses that hold, cooldowns that are forgotten.

It is kept in the ledger's database, so that it holds on every process and over a
restart; each process takes up what another one changed within a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from gateway.accounts.accounts import Accounts
from gateway.admission.interface import AdmissionLimits
from gateway.ledger import account_changes
from gateway.ledger.account_changes import AccountPause
from gateway.ledger.ledger import Ledger
from gateway.ledger.runtime_changes import RuntimeChanges


class LiveAccounts:
    """
    Args:
        admission: whose waiters choose anew after a change.

    Attributes:
        paused: by account.
    """

    def __init__(
        self,
        accounts: Accounts,
        admission: AdmissionLimits,
        ledger: Ledger,
        changes: RuntimeChanges,
    ) -> None:
        self.paused: Mapping[str, AccountPause] = {}
        self._accounts = accounts
        self._admission = admission
        self._ledger = ledger
        self._changes = changes
        self._reset_at: Mapping[str, datetime] | None = None  # None: not read yet
        changes.watch(account_changes.KIND, self.refresh)

    async def refresh(self) -> None:
        """Take up what the database says."""
        rows = await self._ledger.read(account_changes.load)
        before, self._reset_at = self._reset_at, rows.reset_at
        # What was reset before this process began has no cooldown here.
        known = rows.reset_at if before is None else before
        resets = [name for name, at in rows.reset_at.items() if at != known.get(name)]
        for name in resets:
            self._accounts.reset(name)
        is_changed = rows.paused.keys() != self.paused.keys()
        self.paused = rows.paused
        shift = time.monotonic() - time.time()
        since = {
            name: pause.paused_at.timestamp() + shift
            for name, pause in rows.paused.items()
        }
        self._accounts.status.set_paused(since)
        if is_changed or resets:
            self._admission.choose_anew()

    async def pause(self, account: str, who: str) -> None:
        """
        Send *account* nothing new; what runs there goes on, and what waits for it
        chooses anew.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        now = datetime.now(UTC)
        await self._change(
            partial(account_changes.pause, account=account, at=now, who=who)
        )

    async def resume(self, account: str) -> None:
        """Undo ``pause``."""
        await self._change(partial(account_changes.resume, account=account))

    async def reset(self, account: str) -> None:
        """Forget the cooldown of *account*, also what single users or models met."""
        now = datetime.now(UTC)
        await self._change(partial(account_changes.reset, account=account, at=now))

    async def _change(self, change: partial[None]) -> None:
        await self._changes.change(account_changes.KIND, change)
