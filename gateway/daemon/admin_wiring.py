"""
The admin API of a running gateway: its parts, made of the parts that have the state.

Imported only where the config has an admin side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.endpoints.admin.access import AdminAccess
from gateway.endpoints.admin.account_test import TestOperations
from gateway.endpoints.admin.accounts import AccountOperations, AccountView
from gateway.endpoints.admin.application import AdminApplication
from gateway.endpoints.admin.event_feed import EventFeed
from gateway.endpoints.admin.events import EventOperations
from gateway.endpoints.admin.live_requests import LiveRequests
from gateway.endpoints.admin.page.routes import PageRoutes
from gateway.endpoints.admin.recent_warnings import RecentWarnings
from gateway.endpoints.admin.reports import ReportOperations
from gateway.endpoints.admin.requests import RequestOperations
from gateway.endpoints.admin.settings import ConfigOperations
from gateway.endpoints.admin.status import EngineState, StatusOperations
from gateway.endpoints.admin.users import UserOperations

if TYPE_CHECKING:
    from gateway.daemon.wiring import Components


def admin_app(components: Components) -> web.Application:
    """The application of the admin listeners of *components*."""
    return admin_application(components).make()


def admin_application(components: Components) -> AdminApplication:
    """The same before it is made: further pages and ways to log in can be added."""
    live = components.live

    def token() -> str:
        admin = live.config.admin
        return admin.token if admin else ""

    admin = live.config.admin
    access = AdminAccess(token, admin.listen if admin else ())
    admission, open_requests = components.registry, components.open_requests
    requests, accounts, feed = _views(components)
    application = AdminApplication(
        access,
        [
            EventOperations(feed),
            AccountOperations(accounts, components.live_accounts),
            TestOperations(
                accounts, admission, components.relay, components.accounting
            ),
            StatusOperations(
                admission,
                open_requests,
                components.ledger.node,
                components.control,
                nodes=lambda: _nodes(components),
                engine=lambda: _engine_state(components),
            ),
            RequestOperations(requests, admission, open_requests, components.ledger),
            ReportOperations(components.ledger),
            ConfigOperations(live, components.control),
            _user_operations(components),
        ],
    )
    PageRoutes(application, access, token, lambda: live.config.server.listen).install()
    return application


def _views(components: Components) -> tuple[LiveRequests, AccountView, EventFeed]:
    """What is read of requests and accounts, here and in other processes."""
    admission, sharing = components.registry, components.sharing
    node = components.ledger.node if sharing else ""
    warnings = RecentWarnings()
    requests = LiveRequests(
        components.open_requests, admission, components.ended_records, node
    )
    accounts = AccountView(
        components.accounts, admission, components.live_accounts, components.ledger
    )
    if sharing is not None:
        from gateway.endpoints.admin.neighbours import Neighbours

        requests.neighbours = accounts.neighbours = Neighbours(
            sharing.bus, requests, admission, warnings
        )
    feed = EventFeed(requests, accounts, admission, warnings, requests.neighbours)
    return requests, accounts, feed


def _user_operations(components: Components) -> UserOperations:
    return UserOperations(
        components.live,
        components.registry,
        components.budget_guard,
        components.ledger,
        components.changes,
    )


def _nodes(components: Components) -> int:
    """Processes that share the engine, as far as this one knows."""
    return max(1, components.sharing.engine.nodes) if components.sharing else 1


def _engine_state(components: Components) -> EngineState:
    if components.sharing is None:
        return "none"
    return "up" if components.sharing.state == "shared" else "lost"
