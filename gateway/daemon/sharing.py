"""
This process as one of many: its admission and its membership in the engine.

Imported only where ``shared.url`` is set, or several workers serve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounts.accounts import Accounts
from gateway.admission.shared_registry import SharedRegistry
from gateway.config.schema import Config
from gateway.daemon.engine_use import EngineChoice
from gateway.daemon.shared_state import SharedState
from gateway.errors import GatewayError
from gateway.shared import steps
from gateway.shared.address import parse_address
from gateway.shared.bus import Bus
from gateway.shared.errors import EngineLost
from gateway.shared.membership import Membership
from gateway.telemetry.engine_metrics import EngineMetrics


class Sharing:
    """
    Args:
        node: the name of this process, the same as in the ledger; never used before.
        end_running: as for ``Registry``.
        refuse: whether it refuses new requests while the engine is away.
        alive: the nodes of all processes that live, as the ledger knows them.
        engine: the parent's, used where ``shared.url`` names none.
    """

    def __init__(
        self,
        config: Config,
        node: str,
        end_running: Callable[[str, GatewayError], bool],
        refuse: Callable[[], bool],
        alive: Callable[[], Awaitable[Sequence[str]]],
        engine: EngineChoice | None = None,
    ) -> None:
        self.registry = SharedRegistry(end_running=end_running, refuse=refuse)
        self.engine = Membership(
            parse_address(config.shared.url or (engine.url if engine else "")),
            config.shared.prefix,
            node,
            self.registry.side,
            config=limits_hash(config),
            learn=engine is None or not engine.new,
        )
        self.engine.alive = alive
        self.bus = Bus(self.engine)
        self.registry.attach(self.engine, self.bus)
        self.metrics = EngineMetrics(lambda: self.engine.up, self.registry.side.over)

    def share(self, accounts: Accounts, budgets: BudgetGuard) -> SharedState:
        """Share what is known of accounts, sessions and budgets, too."""
        self.registry.per_minute = budgets.per_minute
        self.registry.too_often = budgets.too_often
        self.common = SharedState(self.engine, self.bus, accounts, budgets)
        return self.common

    @property
    def state(self) -> str:
        """``shared``; ``alone`` or ``refusing`` without the engine."""
        if self.engine.up:
            return "shared"
        return "refusing" if self.registry.side.refusing else "alone"

    def on_reaped(self, close: Callable[[], object]) -> None:
        """Call *close* whenever the engine has declared processes dead."""
        self.engine.reaped = lambda nodes: close()

    async def start(self) -> None:
        """Join, or begin alone."""
        await self.engine.start()

    async def all_ready(self) -> None:
        """Every process that starts with this one can be counted now."""
        await self.engine.count()

    async def stop(self) -> None:
        """Leave."""
        await self.engine.stop()

    def reload(self, config: Config) -> None:
        """The limits that are set next come from *config*."""
        self.engine.config = limits_hash(config)

    def reloaded(self) -> None:
        """All limits of the new config are set."""
        self.engine.set_config(self.engine.config, ())

    async def reap(self, node: str) -> None:
        """*node*, a process that was seen to end, holds nothing any more."""
        with suppress(EngineLost):  # then the beats of the others do it
            await self.engine.asked(steps.reap(node))


def limits_hash(config: Config) -> str:
    """What must be the same on every node, as a short text."""
    users = sorted((u.name, u.limits(config.limits), u.budget) for u in config.user)
    accounts = sorted((a.name, a.max_concurrent, a.priority) for a in config.account)
    facts = repr((users, accounts)).encode()
    return hashlib.blake2b(facts, digest_size=8).hexdigest()
