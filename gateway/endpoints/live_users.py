"""
Users as they are at this moment, given to all who act on them.

Rule 1: the config's users and those made at run time are one set: the same limits, the
        same budgets. Where both have one of a name, the config's counts.
Rule 2: a change drops no request but those of a removed user that wait.
Rule 3: when a key was used is noted in memory, and written now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.accounting.budget_guard import BudgetGuard
from gateway.admission.interface import AdmissionLimits
from gateway.config.schema import Config, Limits
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.request_reader import RequestReader
from gateway.ledger import runtime_users
from gateway.ledger.ledger import Ledger
from gateway.ledger.statement import moment
from gateway.ledger.tables import key_use
from gateway.ledger.writer import RowWrite
from gateway.telemetry import log


class LiveUsers:
    """
    Args:
        reader: has the rooms for the bodies of each user.
        ledger: where the users of the run time are.
        on_changed: called after a change, for what identified its user long ago.
    """

    def __init__(
        self,
        live: LiveConfig,
        admission: AdmissionLimits,
        budgets: BudgetGuard,
        reader: RequestReader,
        ledger: Ledger,
        on_changed: Callable[[], object],
    ) -> None:
        self._live = live
        self._admission = admission
        self._budgets = budgets
        self._reader = reader
        self._ledger = ledger
        self._on_changed = on_changed
        self._upsert_use = ledger.database.upsert(key_use)
        self._limits: dict[str, Limits] = {}
        self._hidden: set[str] = set()
        self._apply()

    def replace(self, config: Config) -> None:
        """Take up a changed config."""
        self._live.replace(config)
        self._apply()

    async def refresh(self) -> None:
        """Take up the users that the database has now."""
        runtime = await self._ledger.read(runtime_users.load)
        self._live.replace_runtime(runtime)
        self._apply()

    def save_uses(self) -> None:
        """Write down which keys were used since the last time; nothing waits for it."""
        used, keys = self._live.used_keys, self._live.keys
        now = moment(time.time())
        writes = [
            RowWrite(self._upsert_use, digest, (digest, now))
            for digest in used
            if digest in keys
        ]
        used.clear()
        if writes:
            self._ledger.write_soon(writes)

    def _apply(self) -> None:
        live, admission = self._live, self._admission
        default = live.config.limits
        wanted = {name: user.limits(default) for name, user in live.users.items()}
        for name, limits in wanted.items():
            if self._limits.get(name) != limits:
                admission.set_user(name, limits.max_concurrent, limits.max_queued)
                self._reader.resize_room(name, limits.max_waiting_bytes)
        self._budgets.replace(live.users.values())
        for name in self._limits.keys() - wanted.keys():
            admission.remove_user(name)
        self._limits = wanted
        self._on_changed()
        self._note_hidden()

    def _note_hidden(self) -> None:
        """Say which users of the run time are not in force, once for each."""
        made = {user.name for user in self._live.runtime.users}
        hidden = made & {user.name for user in self._live.config.user}
        for name in sorted(hidden - self._hidden):
            log.get().warning("user.shadowed", user=name)
        self._hidden = hidden
