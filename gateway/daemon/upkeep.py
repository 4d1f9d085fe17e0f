"""What a running gateway does now and then, and what it takes up at its start."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.ledger.saved_state import SavedState

if TYPE_CHECKING:
    from gateway.daemon.wiring import Components

SAVE_STATE_EVERY_S = 30.0
BURY_AFTER_S = (0.0, 60.0)  # a database notices a lost host later than the engine


class Upkeep:
    """
    Attributes:
        followed: by another worker, which has this one's state.
        reaped: set when the engine has declared processes dead.
    """

    def __init__(self, components: Components) -> None:
        self.followed = False
        self.reaped = asyncio.Event()
        self._components = components
        self._saved_state = SavedState(components.ledger)

    async def restore(self) -> None:
        """Take up the users, cooldowns and sums of days that the ledger holds."""
        components = self._components
        components.accounts.status.load(await self._saved_state.accounts())
        components.budget_guard.load(await self._saved_state.day_sums())
        await components.changes.look()

    async def save_state(self) -> None:
        """Save now and then what the next start needs, and which keys were used."""
        components = self._components
        saved: list[dict[str, object]] = []
        while True:
            await asyncio.sleep(SAVE_STATE_EVERY_S)
            if components.sharing:
                components.budget_guard.raise_to(await self._saved_state.day_sums())
            cooldowns = components.accounts.status.dump()
            if cooldowns or saved:
                self._save(cooldowns)
            saved = cooldowns
            components.users.save_uses()

    def save_last(self) -> None:
        """Save it before the stop."""
        self._save(self._components.accounts.status.dump())
        self._components.users.save_uses()

    def _save(self, cooldowns: list[dict[str, object]]) -> None:
        if not self.followed:
            self._saved_state.save_accounts(cooldowns)

    async def bury(self) -> None:
        """
        Close the rows of other processes that the engine has declared dead; one that
        lives still has its lock, so again a while later.
        """
        while True:
            await self.reaped.wait()
            self.reaped.clear()
            for wait_s in BURY_AFTER_S:
                await asyncio.sleep(wait_s)
                with suppress(GatewayError):
                    await self._components.ledger.bury_all()
