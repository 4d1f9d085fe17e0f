"""
``POST /v1/messages/count_tokens``: asked of an account that can count, else estimated.

It takes no slot, but counts for ``requests_per_minute``. An account that fails is
followed by the next one, as for an answer; one that is left alone is not asked.
"""

from __future__ import annotations

import time

import orjson
from aiohttp import web

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounts.accounts import Accounts
from gateway.accounts.attempts import AttemptKey
from gateway.accounts.choice import Choice
from gateway.accounts.verdict import Verdict
from gateway.config.schema import Account
from gateway.context import RequestContext
from gateway.endpoints.auxiliary_call import (
    AuxiliaryAnswer,
    AuxiliaryCalls,
    AuxiliaryRequest,
    json_answer,
)
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.request_reader import RequestReader
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import UpstreamError
from gateway.protocols.token_estimate import estimate_tokens
from gateway.relay.failover_state import FailoverState
from gateway.relay.failures import UpstreamRefusal
from gateway.relay.readable_body import readable_body
from gateway.relay.upstream_request import RequestWriter

PATH = "/messages/count_tokens"
COUNT_TIMEOUT_S = 30.0  # at most; an answer's own limit may be shorter
MAX_COUNT_BYTES = 1024 * 1024  # of an answer
CANNOT_COUNT = frozenset({404, 405, 501})
"""What servers answer that speak Messages and do not know this path."""


class TokenCounts:
    """The handler of requests to count tokens."""

    def __init__(
        self,
        live: LiveConfig,
        reader: RequestReader,
        accounts: Accounts,
        calls: AuxiliaryCalls,
        budget_guard: BudgetGuard,
    ) -> None:
        self._live = live
        self._reader = reader
        self._accounts = accounts
        self._calls = calls
        self._budget_guard = budget_guard

    async def count(self, scope: RequestScope) -> web.Response:
        """The handler."""
        context = await self._reader.context(scope, PATH, slot=False)
        self._budget_guard.admit(context.user.name, context.client.name)
        self._accounts.chooser.check_model(context.ask.model)
        answer = await self._counted(scope, context)
        scope.record.set_outcome("ok")
        if answer:
            return json_answer(scope, answer.status, answer.body, answer.headers)
        scope.record.estimated = True
        tokens = max(1, estimate_tokens(context.ask.document))
        return json_answer(scope, 200, orjson.dumps({"input_tokens": tokens}))

    async def _counted(
        self, scope: RequestScope, context: RequestContext
    ) -> AuxiliaryAnswer | None:
        """
        The answer of an account; None if there is none that can count.

        Raises:
            GatewayError: those that can have failed, or are left alone.
        """
        tried: set[str] = set()
        verdict: Verdict | None = None
        while True:
            now = time.monotonic()
            query, document = context.account_query, context.ask.document
            choice = self._accounts.chooser.choose(query, document, tried, now)
            account = self._next(context, choice)
            if account is None:
                if self._is_estimated(context, choice, verdict):
                    return None
                raise self._last_word(context, choice, verdict, now)
            if verdict and not self._may_switch(context, account, len(tried), now):
                raise self._last_word(context, choice, verdict, now)
            tried.add(account.name)
            try:
                return await self._ask(scope, context, account)
            except (UpstreamRefusal, UpstreamError) as failure:
                found = self._calls.note_failure(
                    scope, account, failure, context.ask.data, now, context.ask.model
                )
                if _cannot_count(failure, found):
                    continue
                verdict = found
            if not verdict.switch:
                raise verdict.error

    def _next(self, context: RequestContext, choice: Choice) -> Account | None:
        """The account to ask; none that is left alone, not even as a last resort."""
        if choice.last_resort:
            return None
        for name in choice.ordered:
            account = self._accounts.by_name[name]
            if account.is_native(context.wire.name):
                return account
        return None

    def _is_estimated(
        self, context: RequestContext, choice: Choice, verdict: Verdict | None
    ) -> bool:
        """Whether accounts are left that would answer, but none that counts."""
        if choice.ordered and not choice.last_resort:
            return True
        accounts = self._accounts.by_name
        if not any(accounts[n].is_native(context.wire.name) for n in choice.fitting):
            return True
        reasons = {reason for _, reason, *_ in choice.rejected}
        return verdict is None and reasons == {"tried"}

    def _may_switch(
        self, context: RequestContext, account: Account, tried: int, now: float
    ) -> bool:
        if tried > self._live.config.upstream.max_switches:
            return False
        key = AttemptKey(account.name, context.ask.model, context.user.name, now)
        return self._accounts.attempts.may_retry(key, same=False)

    def _last_word(
        self,
        context: RequestContext,
        choice: Choice,
        verdict: Verdict | None,
        now: float,
    ) -> Exception:
        query, chooser = context.account_query, self._accounts.chooser
        if verdict:
            return chooser.last_error(query, verdict, choice.fitting, now)
        return chooser.refusal(query, choice, now)

    async def _ask(
        self, scope: RequestScope, context: RequestContext, account: Account
    ) -> AuxiliaryAnswer:
        kept = readable_body(self._accounts, FailoverState(context), account)
        request = RequestWriter(context, account).write(kept.body)
        limits = self._live.config.upstream
        call = AuxiliaryRequest(
            "POST",
            request.path,
            request.headers,
            request.body,
            context.query,
            min(COUNT_TIMEOUT_S, limits.first_event_timeout_s),
            MAX_COUNT_BYTES,
        )
        return await self._calls.send(scope, account, call)


def _cannot_count(failure: UpstreamRefusal | UpstreamError, verdict: Verdict) -> bool:
    """Whether the server does not know the path; a model that it lacks is no such."""
    if not isinstance(failure, UpstreamRefusal) or verdict.reason == "no_model":
        return False
    return failure.status in CANNOT_COUNT
