"""
The failover loop: choose an account, hold a slot, try it; the next one or the end.

What happens when something fails depends on what the client has:

    WAITING     nothing, or keepalives: another account may answer
        next account        ``AccountSlots.next`` ─▶ ``Attempt.run``
        upstream fails      ``Attempt.run`` raises ─▶ ``Attempt.fail`` judges ─▶
                            ``Relay._recover``: the next round, or raises ``last_error``
                            ─▶ ``Recorder._failed`` answers with an HTTP status, or
                            ends the stream if a keepalive has opened it
        client leaves       ``Attempt._client_left`` ─▶ ``Attempt.close``, or, once the
                            upstream has answered, ``Drains.adopt``

    STREAMING   a part of the answer: this account or none
        events pass         ``StreamedAttempt._pump`` ─▶ ``ClientAnswer.push``
        upstream dies       ``_pump`` raises ─▶ ``Attempt.fail`` ─▶ ``Relay.run`` raises
                            ``stream_error`` ─▶ ``Recorder._failed`` ─▶
                            ``ClientAnswer.fail`` writes the protocol's failure ending
        client leaves       ``Attempt._client_left`` ─▶ ``Drains.adopt`` ─▶
                            ``Attempt.read_on`` ─▶ ``Attempt.drained``

    CLOSED      its terminal: nothing is a failure any more
        the ending          ``StreamedAttempt._conclude`` ─▶ ``Accounting.persist`` ─▶
                            ``ClientAnswer.finish`` writes the terminal

The daemon's stop cancels the request's task in ``OpenRequests.end_all``; the attempt
ends as if the client had left, then ``Recorder._failed`` writes the ending.

A client's own mistake is passed on and tried nowhere else. The verdict decides what a
client reads of an upstream's failure, never the upstream.
"""

from __future__ import annotations

import asyncio
import random
import time

from gateway.accounts.reasoning_access import Remedy
from gateway.accounts.verdict import SAME_PAUSE_S, Verdict
from gateway.admission.interface import Tiers
from gateway.client.answer import ClientAnswer
from gateway.config.schema import Account, UpstreamLimits
from gateway.context import RequestContext
from gateway.relay.account_slots import AccountSlots, GrantedAccount
from gateway.relay.attempt import Answer, Attempt
from gateway.relay.dependencies import Dependencies
from gateway.relay.failover_state import Continuation, FailoverState
from gateway.relay.failures import FAILURES
from gateway.relay.last_error import last_error, stream_error
from gateway.relay.streamed_attempt import StreamedAttempt
from gateway.relay.whole_attempt import WholeAttempt

MAX_REASONING_DROPS = 2  # times that one request is sent again with less reasoning


class Relay:
    """The way of every model request from its user's slot to its answer."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._accounts = dependencies.accounts
        self._slots = AccountSlots(dependencies)

    @property
    def limits(self) -> UpstreamLimits:
        """Those of the attempts that follow."""
        return self._dependencies.limits

    def replace(self, limits: UpstreamLimits) -> None:
        """Take up changed limits, for the attempts that follow."""
        self._dependencies.limits = limits

    def ahead(self, context: RequestContext) -> Tiers:
        """See ``AccountSlots.ahead``."""
        return self._slots.ahead(context)

    async def run(
        self,
        context: RequestContext,
        client: ClientAnswer | None,
        continuation: Continuation | None = None,
    ) -> Answer | None:
        """
        Answer the request: into *client*, or, without it, as a whole.

        Args:
            continuation: what it goes on from, where the body does not say so.

        Raises:
            GatewayError: no account could answer; ``client.state`` says what the
                client has.
        """
        state = FailoverState(context, client, continuation)
        await self._dependencies.conversations.resume(state)
        kind = StreamedAttempt if client else WholeAttempt
        while True:
            attempt = kind(self._dependencies, state, await self._slots.next(state))
            try:
                return await attempt.run()
            except FAILURES as failure:
                state.verdict = attempt.fail(failure)
                failure.__traceback__ = None  # its frames hold it, and the request
            if attempt.has_output:
                attempt.learn()
                raise stream_error(self._accounts, state, state.verdict)
            await self._recover(state, attempt)

    async def attempt_at(
        self, context: RequestContext, client: ClientAnswer, granted: GrantedAccount
    ) -> Verdict | None:
        """
        One attempt at one account, whatever is known of it: its verdict if it fails.

        Raises:
            GatewayError: it failed, and that says nothing of the account.
        """
        state = FailoverState(context, client)
        await self._dependencies.conversations.resume(state)
        attempt = StreamedAttempt(self._dependencies, state, granted)
        try:
            await attempt.run()
        except FAILURES as failure:
            verdict = attempt.fail(failure)
            if attempt.has_output:
                attempt.learn()
            return verdict
        return None

    async def _recover(self, state: FailoverState, attempt: Attempt) -> None:
        """
        Return when a further attempt may be made.

        Raises:
            GatewayError: none is worth making; the client's last error.
        """
        # Only waiting counts against the queue's deadline.
        state.context.deadline += attempt.elapsed_s
        if self._drop_reasoning(state, attempt.account):
            state.forget_try(attempt.account.name)
        elif not self._may_switch(state, attempt.account):
            raise last_error(self._accounts, state)
        else:
            await self._pause(state, attempt.account)

    def _drop_reasoning(self, state: FailoverState, account: Account) -> bool:
        """
        Whether *account* is asked again, without the reasoning that it could not read;
        MAX_REASONING_DROPS times for one request.
        """
        verdict, context = state.verdict, state.context
        assert verdict
        if not verdict.drop_reasoning or state.reasoning_drops >= MAX_REASONING_DROPS:
            return False
        state.reasoning_drops += 1
        remedy = self._accounts.reasoning.refused(
            context.account_query,
            account.name,
            state.document,
            thinking_off=state.thinking_off,
        )
        if remedy is Remedy.NO_THINKING:
            state.thinking_off = True
        return remedy is not Remedy.NONE

    def _may_switch(self, state: FailoverState, account: Account) -> bool:
        """Whether another account is worth asking after *account* has failed."""
        verdict, context, tried = state.verdict, state.context, state.tried
        assert verdict
        chooser, model = self._accounts.chooser, context.ask.model
        if len(tried) > self.limits.max_switches:
            return False
        if verdict.drop_reasoning:
            query, document = context.account_query, context.ask.outline
            return chooser.others_may_read(query, document, tried)
        if not verdict.switch:
            return False
        if verdict.reason != "no_model" or account.upstream_model(model) != model:
            return True
        # Else it is the client's own mistake, unless another is known to have it.
        return chooser.others_serve(model, state.fitting, tried)

    async def _pause(self, state: FailoverState, account: Account) -> None:
        """
        Most accounts serve again seconds after a 429 that gives no time: ask the same
        one again, once, when no other is free.
        """
        assert state.verdict
        if state.paused or not state.verdict.retry_same:
            return
        if self._slots.choose(state, time.monotonic()).tiers:
            return
        state.paused = True
        state.forget_try(account.name)
        pause_s = random.uniform(*SAME_PAUSE_S)
        state.context.mark("paused", account=account.name, s=round(pause_s, 3))
        await asyncio.sleep(pause_s)
