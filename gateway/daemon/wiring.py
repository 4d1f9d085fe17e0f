"""
The wiring: every object of a running gateway, made once, in order; reload and stop.

Nothing is looked up later: an object is given here what it needs.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.request import getproxies_environment

from aiohttp import web

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounting.settlement import Accounting
from gateway.accounts.accounts import Accounts
from gateway.accounts.choice import Load
from gateway.admission.interface import Admission
from gateway.admission.overlap import OverlapRegistry
from gateway.client.intake import Intake
from gateway.config.schema import Account, Config
from gateway.config.secrets import secrets_of
from gateway.content_coding import DecodeScheduler
from gateway.daemon.endpoint_wiring import Endpoints
from gateway.daemon.engine_use import EngineChoice
from gateway.daemon.price_list import PriceList
from gateway.daemon.upkeep import Upkeep
from gateway.daemon.upstream_wiring import make_upstream, replace_upstream
from gateway.endpoints.admin.ended_records import EndedRecords
from gateway.endpoints.live_accounts import LiveAccounts
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.live_users import LiveUsers
from gateway.endpoints.open_requests import OpenRequests
from gateway.endpoints.recording import Recorder
from gateway.endpoints.request_reader import RequestReader
from gateway.errors import GatewayError
from gateway.ledger import runtime_users
from gateway.ledger.ledger import Ledger
from gateway.ledger.response_store import ResponseStore
from gateway.ledger.runtime_changes import RuntimeChanges
from gateway.record import Record
from gateway.relay.conversation import Conversations
from gateway.relay.dependencies import Dependencies
from gateway.relay.drains import Drains
from gateway.relay.failover import Relay
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics
from gateway.transport.shortage import Shortage

if TYPE_CHECKING:
    from gateway.daemon.sharing import Sharing
    from gateway.endpoints.admin.settings import ProcessControl

END_WAIT_S = 2.0  # for the endings of what was still open at the stop


class Components:
    """
    Everything that serves, made from one config.

    Its many attributes are the parts themselves; they are public for the routes, the
    daemon and the tests. The methods act on all parts together.
    """

    on_used: Callable[[Record], object] | None = None

    def __init__(
        self, config: Config, ledger: Ledger, engine: EngineChoice | None = None
    ) -> None:
        self._config = config
        self.control: ProcessControl | None = None  # the daemon's
        self.ledger = ledger
        is_shared = bool(config.shared.url or engine)
        self.sharing = self._sharing(config, engine) if is_shared else None
        self.registry: Admission = self._make_admission()
        self._set_limits(config)
        self.accounts = Accounts(config.account, self._load)
        self.metrics = Metrics(
            self.registry.counts,
            self.accounts.status.states,
            lambda: ledger.waiting,
            self.accounts.names,
            log.lines_lost,
            lambda: len(self.websockets),
        )
        ledger.observe = self.metrics.commit_waited
        self.budget_guard = BudgetGuard(config.user)
        self.ended_records = EndedRecords()
        self.shortage = Shortage()
        self.price_list = PriceList(self.shortage)
        self.accounting = Accounting(
            ledger, self.price_list.maybe, self._sinks(config), self._budgets()
        )
        self.drains = Drains(config.upstream.client_gone_drain_s)
        self.response_store = ResponseStore(ledger)
        scheduler = DecodeScheduler()
        self.upstream = make_upstream(config, scheduler, self.shortage)
        conversations = Conversations(self.response_store, self.accounts, is_shared)
        self._make_endpoints(scheduler, conversations)
        self._make_live()

    def _make_live(self) -> None:
        """What is changed at run time."""
        live, admission, ledger = self.live, self.registry, self.ledger
        budgets, check_keys = self.budget_guard, self.websockets.check_keys
        self.changes = RuntimeChanges(ledger)
        self.live_accounts = LiveAccounts(
            self.accounts, admission, ledger, self.changes
        )
        self.users = LiveUsers(
            live, admission, budgets, self.reader, ledger, check_keys
        )
        self.changes.watch(runtime_users.KIND, self.users.refresh)
        self.upkeep = Upkeep(self)

    def _sinks(self, config: Config) -> list[Callable[[Record], None]]:
        """What takes every record that has ended."""
        sinks: list[Callable[[Record], None]] = [self.metrics.add]
        if config.admin:
            sinks.append(self.ended_records.add)
        return sinks

    def _budgets(self) -> list[Callable[[Record], None]]:
        """What counts the cost of every record, here and in other processes."""
        counts: list[Callable[[Record], None]] = [self.budget_guard.add, self._use]
        if self.sharing:
            counts.append(self.sharing.share(self.accounts, self.budget_guard).add)
        return counts

    def _sharing(self, config: Config, engine: EngineChoice | None) -> Sharing:
        """This process as one of many; imported only where it is."""
        from gateway.daemon.sharing import Sharing

        def refuses() -> bool:
            return self._config.shared.alone == "refuse"

        node, alive = self.ledger.node, self.ledger.alive
        return Sharing(config, node, self._end_request, refuses, alive, engine)

    def _make_admission(self) -> Admission:
        if self.sharing:
            return self.sharing.registry
        return OverlapRegistry(end_running=self._end_request)

    async def join(self) -> None:
        """Become one of many processes, where that is configured."""
        if self.sharing:
            self.metrics.watch(self.sharing.metrics)
            self.sharing.on_reaped(self.upkeep.reaped.set)
            await self.sharing.start()

    def _make_relay(self, conversations: Conversations) -> Relay:
        return Relay(
            Dependencies(
                self.accounts,
                self.registry,
                self.upstream,
                self.accounting,
                self.drains,
                conversations,
                self._config.upstream,
            )
        )

    def _make_endpoints(
        self, scheduler: DecodeScheduler, conversations: Conversations
    ) -> None:
        self.relay = self._make_relay(conversations)
        live = self.live = LiveConfig(self._config)
        self.open_requests = OpenRequests(live)
        self.recorder = Recorder(live, self.open_requests, self.accounting)
        self.reader = RequestReader(
            live, self.open_requests, self.registry, self.ledger, Intake(scheduler)
        )
        self.endpoints = Endpoints(self, scheduler, conversations)
        self.websockets = self.endpoints.websockets

    def _use(self, record: Record) -> None:
        if self.on_used is not None:
            self.on_used(record)

    def _load(self) -> Mapping[str, Load]:
        return {
            name: Load(in_use, limit)
            for name, in_use, limit in self.registry.account_loads()
        }

    def _end_request(self, request_id: str, error: GatewayError) -> bool:
        return self.open_requests.end(request_id, error)

    # --- live changes -----------------------------------------------------------------

    def reload(self, config: Config) -> None:
        """
        Take up *config*; no request is dropped. What runs goes on as it began, and
        waiters for an account choose anew.
        """
        know_secrets(config)
        old, self._config = self._config, config
        if self.sharing:
            self.sharing.reload(config)
        self._set_limits(config)
        self.accounts.replace(config.account)
        self.users.replace(config)
        self.relay.replace(config.upstream)
        replace_upstream(self.upstream, config)
        self.drains.limit_s = config.upstream.client_gone_drain_s
        self.ledger.replace(config.ledger)
        self.response_store.replace(config.ledger)
        for name in _names(old.account) - _names(config.account):
            self.registry.remove_account(name)
        if _unlimited(old.account) != _unlimited(config.account):
            self.registry.choose_anew()
        if self.sharing:
            self.sharing.reloaded()

    def _set_limits(self, config: Config) -> None:
        for account in config.account:
            self.registry.set_account(account.name, account.max_concurrent)

    def admin_app(self) -> web.Application | None:
        """What the admin listeners answer; None without an admin side."""
        if self._config.admin is None:
            return None
        from gateway.daemon.admin_wiring import admin_app

        return admin_app(self)

    # --- the stop ---------------------------------------------------------------------

    @property
    def unfinished(self) -> int:
        """Requests that are being served, and answers that are read to their end."""
        return self.serving + len(self.drains)

    @property
    def serving(self) -> int:
        """Requests that are being served."""
        return len(self.open_requests)

    def drain(self, when_done: Callable[[], None] = lambda: None) -> None:
        """
        Refuse new requests, and those that wait for a slot.

        Args:
            when_done: called when the last request has been served.
        """
        self.open_requests.drain(when_done)
        self.websockets.drain()

    async def end_open(self) -> None:
        """Give what is still open its protocol's ending."""
        self.drains.close()
        self.open_requests.end_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT_S):
                await self.open_requests.served()
        self.open_requests.abort_all()
        await self.drains.stop()

    def tick(self, lag_s: float) -> None:
        """Note how late the event loop was, and whether it can accept connections."""
        self.metrics.lagged(lag_s)
        self.shortage.probe()

    async def stop(self) -> None:
        """End everything, write the state down, and close what is open."""
        self.drain()
        await self.end_open()
        await self.endpoints.model_lists.stop()
        await self.changes.stop()
        self.upkeep.save_last()
        await self.upstream.stop()
        self.shortage.stop()
        if self.sharing:
            await self.sharing.stop()
        await self.ledger.stop()


def know_secrets(config: Config) -> None:
    """Keep the secrets of *config* and of the environment's proxies out of the log."""
    log.keep_secret(secrets_of(config, getproxies_environment().values()))


def _names(some: Iterable[Account]) -> set[str]:
    return {one.name for one in some}


def _unlimited(accounts: Iterable[Account]) -> list[Account]:
    """*accounts* without what does not matter to the choice of one."""
    return [dataclasses.replace(one, max_concurrent=0) for one in accounts]
