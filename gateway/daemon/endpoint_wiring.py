"""What the paths of the public listeners lead to, made of the parts behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.content_coding import DecodeScheduler
from gateway.endpoints.auxiliary_call import AuxiliaryCalls
from gateway.endpoints.count_tokens import TokenCounts
from gateway.endpoints.model_lists import ModelLists
from gateway.endpoints.model_requests import ModelRequests
from gateway.endpoints.own_usage import OwnUsage
from gateway.endpoints.plain_answers import PlainAnswers
from gateway.endpoints.status import StatusHandlers
from gateway.endpoints.stored_responses import StoredResponses
from gateway.endpoints.websocket.websockets import WebSockets
from gateway.relay.conversation import Conversations

if TYPE_CHECKING:
    from gateway.daemon.wiring import Components


class Endpoints:
    """The handlers; ``routes`` says at which paths they are."""

    def __init__(
        self,
        components: Components,
        scheduler: DecodeScheduler,
        conversations: Conversations,
    ) -> None:
        live, reader = components.live, components.reader
        admission, accounts = components.registry, components.accounts
        budgets, ledger = components.budget_guard, components.ledger
        self.model_requests = ModelRequests(
            components.recorder,
            reader,
            admission,
            components.relay,
            accounts,
            budgets,
        )
        self.websockets = WebSockets(
            live, components.recorder, reader, self.model_requests, scheduler
        )
        calls = AuxiliaryCalls(accounts, components.upstream)
        self.model_lists = ModelLists(reader, accounts, components.upstream)
        self.token_counts = TokenCounts(live, reader, accounts, calls, budgets)
        self.stored_responses = StoredResponses(
            live, reader, accounts, calls, budgets, conversations
        )
        self.own_usage = OwnUsage(live, reader, admission, budgets, ledger)
        self.plain_answers = PlainAnswers(live, components.accounting)
        self.status = StatusHandlers(
            live,
            components.open_requests,
            accounts,
            ledger,
            components.metrics,
            lambda: components.sharing.state if components.sharing else "",
        )
