"""
The plan of the house: every object made once, in order; routes; start and stop.

Nothing is looked up later: who needs something is given it here.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import getproxies_environment

from aiohttp import hdrs, web

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounting.settlement import Accounting
from gateway.accounts.accounts import Accounts
from gateway.accounts.choice import Load
from gateway.admission.registry import Registry
from gateway.client.intake import Intake
from gateway.config.schema import Account, Config, User
from gateway.config.secrets import secrets_of
from gateway.content_coding import Turns
from gateway.daemon.http_server import Runner
from gateway.endpoints.auth import Keys
from gateway.endpoints.count_tokens import TokenCounts
from gateway.endpoints.model_lists import ModelLists
from gateway.endpoints.model_requests import Handler, Handlers, RequestScope
from gateway.endpoints.paths import protocol_of
from gateway.endpoints.plain_answers import PlainAnswers
from gateway.endpoints.side_call import SideCalls
from gateway.endpoints.status import StatusHandlers
from gateway.endpoints.stored_responses import StoredResponses
from gateway.errors import ClientError
from gateway.ledger.ledger import Ledger
from gateway.ledger.response_store import ResponseStore
from gateway.ledger.saved_state import SavedState
from gateway.protocols import PROTOCOLS
from gateway.relay.conversation import Conversations
from gateway.relay.drains import Drains
from gateway.relay.failover import Relay
from gateway.relay.upstream import Upstream
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics
from gateway.transport.proxy_routing import RoutedTransport

if TYPE_CHECKING:
    from gateway.accounting.prices import Prices

MODEL_PATHS = tuple(
    (wire.name, path) for wire in PROTOCOLS.values() for path in wire.model_paths
)
STATE_KEPT_EVERY_S = 30.0
END_WAIT_S = 2.0  # for the endings of what was still open at the stop


class Components:
    """
    Everything that serves, made from one config.

    Args:
        base: the folder that relative paths of the config start from.
    """

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config = config
        self.direct: dict[str, Handler] = {}  # what POST to a path reaches
        self.ledger = ledger
        self.saved_state = SavedState(ledger)
        self.registry = Registry()
        self._set_limits(config)
        self.pool = Accounts(config.account, self._load)
        self.metrics = Metrics(
            self.registry.counts,
            self.pool.status.states,
            lambda: ledger.waiting,
            self.pool.names,
            log.lines_lost,
        )
        ledger.observe = self.metrics.commit_waited
        turns = Turns()
        self.transport = RoutedTransport(turns)
        self.upstream = Upstream(self.transport, config.upstream)
        self.allowance = BudgetGuard(config.user)
        sinks = [self.metrics.add, self.allowance.add]
        self.books = Accounting(ledger, self.maybe_prices, sinks)
        self.drains = Drains(config.upstream.client_gone_drain_s)
        self.response_store = ResponseStore(ledger)
        conversations = Conversations(self.response_store, self.pool)
        self.relay = Relay(
            self.pool,
            self.registry,
            self.upstream,
            self.books,
            self.drains,
            conversations,
            config.upstream,
        )
        self.handlers = Handlers(
            config,
            Keys(config.user, config.limits),
            self.registry,
            self.relay,
            self.books,
            ledger,
            self.pool,
            self.allowance,
            Intake(turns),
        )
        self.plain = PlainAnswers(config, self.books)
        self._make_side_doors(conversations)
        self.status = StatusHandlers(
            self.handlers, self.pool, ledger, self.metrics, config.server.metrics_token
        )

    def _make_side_doors(self, conversations: Conversations) -> None:
        """What serves beside the model endpoints."""
        calls = SideCalls(self.pool, self.upstream)
        self.model_lists = ModelLists(self.handlers, self.pool, self.upstream)
        self.token_counts = TokenCounts(self.handlers, self.pool, calls, self.allowance)
        self.stored_responses = StoredResponses(
            self.handlers, self.pool, calls, self.allowance, conversations
        )

    @cached_property
    def prices(self) -> Prices:
        """The price list. To import it takes a fifth of a start."""
        from gateway.accounting.prices import Prices

        return Prices(_no_price)

    async def warm_up(self) -> None:
        """Have at hand what the first answer would have to wait for."""
        try:
            await asyncio.to_thread(import_module, "gateway.accounting.prices")
        except OSError as error:  # no descriptor is left
            self.transport.shortage.note(error)

    def maybe_prices(self) -> Prices | None:
        """The price list, None while it cannot be read."""
        try:
            return self.prices
        except OSError as error:
            self.transport.shortage.note(error)
            return None

    def _load(self) -> Mapping[str, Load]:
        return {
            name: Load(in_use, limit)
            for name, in_use, limit in self.registry.account_loads()
        }

    # --- live changes -----------------------------------------------------------------

    def reload(self, config: Config) -> None:
        """
        Take up *config*; nobody is dropped. What runs goes on as it began, and those
        who wait for an account choose anew.
        """
        know_secrets(config)
        old, self._config = self._config, config
        self._set_limits(config)
        self.pool.replace(config.account)
        self.allowance.replace(config.user)
        self.handlers.replace(config, Keys(config.user, config.limits))
        self.plain.replace(config)
        self.relay.replace(config.upstream)
        self.upstream.replace(config.upstream)
        self.drains.limit_s = config.upstream.client_gone_drain_s
        self.ledger.replace(config.ledger)
        self.response_store.replace(config.ledger)
        self.status.replace(config.server.metrics_token)
        for name in _names(old.user) - _names(config.user):
            self.registry.remove_user(name)
        for name in _names(old.account) - _names(config.account):
            self.registry.remove_account(name)
        if _unlimited(old.account) != _unlimited(config.account):
            self.registry.choose_anew()

    def _set_limits(self, config: Config) -> None:
        for user in config.user:
            limits = user.limits(config.limits)
            self.registry.set_user(user.name, limits.max_concurrent, limits.max_queued)
        for account in config.account:
            self.registry.set_account(account.name, account.max_concurrent)

    # --- the stop ---------------------------------------------------------------------

    @property
    def serving(self) -> int:
        """Requests that are being served."""
        return self.handlers.serving

    def drain(self, when_done: Callable[[], None] = lambda: None) -> None:
        """
        Take nothing new; who waits for a slot is told so.

        Args:
            when_done: called when the last request has been served.
        """
        self.handlers.drain(when_done)

    async def end_open(self) -> None:
        """Give what is still open its protocol's ending."""
        self.drains.close()
        self.handlers.end_open()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT_S):
                await self.handlers.finished()
        self.handlers.abort_open()
        await self.drains.stop()

    def tick(self, lag_s: float) -> None:
        """Note how late the event loop was, and whether it can accept connections."""
        self.metrics.lagged(lag_s)
        self.transport.shortage.probe()

    async def keep_state(self) -> None:
        """Write the accounts' windows down now and then, for the next start."""
        kept: list[dict[str, object]] = []
        while True:
            await asyncio.sleep(STATE_KEPT_EVERY_S)
            windows = self.pool.status.dump()
            if windows or kept:
                self.saved_state.save_accounts(windows)
            kept = windows


def know_secrets(config: Config) -> None:
    """From now on nothing that *config* or the environment's proxies hide is logged."""
    log.keep_secret(secrets_of(config, getproxies_environment().values()))


def _names(some: Iterable[User | Account]) -> set[str]:
    return {one.name for one in some}


def _unlimited(accounts: Iterable[Account]) -> list[Account]:
    """*accounts* without what does not matter to the choice of one."""
    return [dataclasses.replace(one, max_concurrent=0) for one in accounts]


def _no_price(account: str, model: str) -> None:
    log.get().warning("price.unknown", account=account, model=model)


HOUSE = web.AppKey("house", Components)


def house_of(app: web.Application) -> Components:
    """The house behind *app*; there from its start on."""
    return app[HOUSE]


async def build_app(config: Config, base: Path) -> web.Application:
    """
    The application; the ledger is open when this returns.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    know_secrets(config)
    ledger = await Ledger.open(config.ledger.url, base, config.ledger)
    house = Components(config, ledger)
    house.pool.status.load(await house.saved_state.accounts())
    house.allowance.load(await house.saved_state.day_sums())
    app = web.Application()
    app[HOUSE] = house
    _add_routes(app.router, house)

    async def background(_: web.Application) -> AsyncIterator[None]:
        keeper = asyncio.create_task(house.keep_state(), name="state-keeper")
        yield
        keeper.cancel()
        house.drain()
        await house.end_open()
        await house.model_lists.stop()
        house.saved_state.save_accounts(house.pool.status.dump())
        await house.transport.stop()
        await ledger.stop()

    app.cleanup_ctx.append(background)
    return app


async def build_runner(app: web.Application, shutdown_timeout_s: float) -> Runner:
    """
    What serves *app*, set up; it listens nowhere yet.

    The model endpoints are found by their path alone: aiohttp's router, made for
    patterns and nested applications, costs a request as much as its key and its body.
    """
    house = house_of(app)
    refuse = house.plain.refuse_head
    runner = Runner(app, refuse, access_log=None, shutdown_timeout=shutdown_timeout_s)
    await runner.setup()
    server, direct, plain = runner.server, house.direct, house.plain
    assert server
    routed = server.request_handler

    def find(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        if request.method == hdrs.METH_POST:
            if handler := direct.get(request.raw_path.partition("?")[0]):
                return handler(request)
        elif request.method == hdrs.METH_OPTIONS:
            if answer := plain.maybe_preflight(request):
                return _at_hand(answer)
        return routed(request)

    server.request_handler = find
    return runner


def _add_routes(router: web.UrlDispatcher, house: Components) -> None:
    handlers, status, lists = house.handlers, house.status, house.model_lists
    stored, count = house.stored_responses.serve, house.token_counts.count
    for prefix in ("/v1", ""):
        for protocol, path in MODEL_PATHS:
            handler = handlers.model_endpoint(protocol, path)
            house.direct[prefix + path] = handler
            router.add_post(prefix + path, handler, expect_handler=_ask_later)
        upgrade = handlers.recorded(protocol_of("/responses"), _upgrade, kept=False)
        router.add_get(prefix + "/responses", upgrade)
        for method, path, inner in (
            ("POST", "/messages/count_tokens", count),
            ("GET", "/models", lists.models),
            ("GET", "/models/{id}", lists.model),
            ("GET", "/responses/{id}", stored),
            ("DELETE", "/responses/{id}", stored),
            ("POST", "/responses/{id}/cancel", stored),
            ("GET", "/responses/{id}/input_items", stored),
        ):
            router.add_route(
                method,
                prefix + path,
                handlers.recorded(protocol_of(path), inner, kept=False),
                expect_handler=_ask_later,
            )
    unrecorded = house.plain.unrecorded
    router.add_get("/healthz", unrecorded(status.health))
    router.add_get("/readyz", unrecorded(status.ready))
    router.add_get("/metrics", unrecorded(status.metrics))
    router.add_head("/", unrecorded(status.hello))
    router.add_head("/api/hello", unrecorded(status.hello))
    # Behind all others. A middleware would cost every request what only these need.
    router.add_route(hdrs.METH_ANY, "/{path:.*}", _unrouted, expect_handler=_ask_later)


async def _at_hand(answer: web.Response) -> web.StreamResponse:
    return answer


async def _ask_later(request: web.Request) -> None:
    """A client that waits to be asked for its body is asked when that is read."""


async def _upgrade(visit: RequestScope) -> web.StreamResponse:
    """``GET /v1/responses``: Codex asks for a WebSocket, and goes on with HTTP."""
    raise ClientError("websocket_unsupported")


async def _unrouted(request: web.Request) -> web.StreamResponse:
    """An unknown path or method gets an answer in the protocol's form, too."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        allowed |= (await resource.resolve(request))[1] - {hdrs.METH_ANY}
    code = "method_not_allowed" if allowed else "not_found"
    protocol = protocol_of(request.path)

    async def refuse(visit: RequestScope) -> web.StreamResponse:
        raise ClientError(code)

    house = house_of(request.app)
    answer = await house.handlers.recorded(protocol, refuse, kept=False)(request)
    if allowed:
        answer.headers[hdrs.ALLOW] = ", ".join(sorted(allowed))
    return answer
