"""
The attempt loop: choose an account, hold its slot, try it; the next one or the end.

    WAITING     nothing, or keepalives, are out: another account may answer
    STREAMING   output is out: this account or none
    CLOSED      the client has its terminal: whatever comes is nobody's failure

A client's own mistake is passed on and tried nowhere else. What the gateway tells a
client of an upstream's failure is decided by the verdict, never by the upstream.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import NamedTuple

from gateway.accounting.settlement import Accounting
from gateway.accounts.accounts import Accounts
from gateway.accounts.attempts import AttemptKey
from gateway.accounts.choice import Choice
from gateway.accounts.kept_reasoning import KeptReasoning
from gateway.accounts.reasoning_access import Remedy
from gateway.accounts.verdict import SAME_PAUSE_S, Verdict
from gateway.admission.interface import AccountsChanged, Slot, SlotSource
from gateway.client.answer import ClientAnswer
from gateway.config.schema import Account, UpstreamLimits
from gateway.context import RequestContext
from gateway.errors import GatewayError, UpstreamError
from gateway.protocols import PROTOCOLS
from gateway.protocols.event_json import dump
from gateway.protocols.protocol import StreamFacts
from gateway.protocols.stream_state import StreamState
from gateway.record import AttemptRecord
from gateway.relay import upstream_request as outgoing
from gateway.relay.conclusion import Conclusion
from gateway.relay.conversation import Conversations, Question
from gateway.relay.drains import Drains, Reading
from gateway.relay.failover_state import FailoverState
from gateway.relay.failures import (
    StatedFailure,
    UpstreamRefusal,
    has_left,
    verdict_of,
    words_of,
)
from gateway.relay.readable_body import readable_body
from gateway.relay.stream_codec import StreamCodec, course_of, translation_of
from gateway.relay.upstream import Upstream
from gateway.relay.upstream_call import UpstreamCall
from gateway.relay.upstream_request import COMPACT_PATH, UpstreamRequest
from gateway.telemetry import log

TURN_STATE = "x-codex-turn-state"
MAX_STRIPS = 2  # times that one request is sent anew with less reasoning


class Answer(NamedTuple):
    """A whole answer for the client."""

    headers: dict[str, str]
    body: bytes


class Relay:
    """
    Args:
        pool: the accounts, their health and affinity.
        drains: reads on for clients that have left.
    """

    def __init__(
        self,
        pool: Accounts,
        registry: SlotSource,
        upstream: Upstream,
        books: Accounting,
        drains: Drains,
        conversations: Conversations,
        limits: UpstreamLimits,
    ) -> None:
        self._pool = pool
        self._kept = KeptReasoning()
        self._registry = registry
        self._upstream = upstream
        self._books = books
        self._drains = drains
        self._conversations = conversations
        self._conclusion = Conclusion(pool, books, conversations, self._kept)
        self._limits = limits
        self._log = log.get()

    def replace(self, limits: UpstreamLimits) -> None:
        """Take up changed limits, for the attempts that follow."""
        self._limits = limits

    async def run(
        self, context: RequestContext, down: ClientAnswer | None
    ) -> Answer | None:
        """
        Answer *context*: into *down*, or, without it, as a whole.

        Raises:
            GatewayError: no account could answer; ``down.state`` says how far it was.
        """
        way = FailoverState(context.ask)
        document, way.earlier = await self._conversations.document(context)
        way.change(document)
        del document  # a long stream need not keep it
        while True:
            slot = await self._slot(context, way)
            account = self._pool.by_name[slot.name]
            way.tried.add(account.name)
            try:
                return await self._attempt(context, way, account, slot, down)
            except (UpstreamRefusal, StatedFailure, UpstreamError) as failure:
                verdict = verdict_of(failure, context, quotes=self._limits.quote_errors)
                failure.__traceback__ = None  # its frames hold it, and the request
            except BaseException:
                self._pool.attempts.dropped(context.attempt_key)
                raise
            way.verdict = verdict
            streaming = down is not None and down.state is not StreamState.WAITING
            self._note(context, account, verdict, streaming)
            if down and streaming:
                self._conclusion.learn(context, down.facts)
                raise self._broken(context, way, verdict)
            # Only waiting counts against the queue's deadline.
            context.deadline += time.monotonic() - context.attempt_key.started_at
            if self._strip(context, way, account, verdict):
                way.tried.discard(account.name)
            elif not self._may_switch(context, way, account, verdict):
                raise self._last_word(context, way)
            else:
                await self._pause(context, way, account, verdict)

    # --- choosing ---------------------------------------------------------------------

    async def _slot(self, context: RequestContext, way: FailoverState) -> Slot:
        """A slot of the account that is to be tried next."""
        while True:
            now = time.monotonic()
            choice = self._choose(context, way, now)
            way.fitting = choice.fitting
            context.mark("chosen", tiers=choice.tiers, rejected=choice.rejected)
            if not choice.tiers:
                raise self._last_word(context, way, choice)
            try:
                slot = await self._registry.account_slot(
                    choice.tiers,
                    context.holder,
                    context.deadline,
                    prefer=choice.prefer,
                    prefer_until=now + self._limits.sticky_wait_s,
                )
            except AccountsChanged:
                continue
            try:
                if self._may_start(context, way, choice, slot.name):
                    return slot
            except BaseException:
                slot.release()
                raise
            slot.release()

    def _choose(
        self, context: RequestContext, way: FailoverState, now: float
    ) -> Choice:
        return self._pool.chooser.choose(
            context.account_query,
            context.ask.document,
            way.tried,
            now,
            native_only=context.kept_elsewhere,
        )

    def _may_start(
        self, context: RequestContext, way: FailoverState, choice: Choice, account: str
    ) -> bool:
        """Whether the account may still be asked, now that its slot is there."""
        if account not in self._pool.by_name:
            return False  # a reload has removed it meanwhile
        now, attempts = time.monotonic(), self._pool.attempts
        key = AttemptKey(account, context.ask.model, context.user.name, now)
        if way.verdict is not None or choice.last_resort:
            same = account == context.record.account
            if not attempts.may_retry(key, same=same):
                raise self._last_word(context, way, choice)
        if context.record.queue_ms is None:
            context.record.queue_ms = context.record.waited_s(now) * 1000
        context.mark("granted", account=account)
        context.attempt_key = key
        first = not context.record.attempts
        return attempts.start(key, first=first, last_resort=choice.last_resort)

    def _may_switch(
        self,
        context: RequestContext,
        way: FailoverState,
        account: Account,
        verdict: Verdict,
    ) -> bool:
        """Whether another account is worth asking."""
        if verdict.strip and len(way.tried) <= self._limits.max_switches:
            query, document = context.account_query, context.ask.document
            return self._pool.chooser.others_may_read(query, document, way.tried)
        if not verdict.switch or len(way.tried) > self._limits.max_switches:
            return False
        if verdict.reason != "no_model" or account.upstream_model(
            context.ask.model
        ) != (context.ask.model):
            return True
        # Else it is the client's own mistake, unless another is known to have it.
        chooser = self._pool.chooser
        return chooser.others_serve(context.ask.model, way.fitting, way.tried)

    async def _pause(
        self,
        context: RequestContext,
        way: FailoverState,
        account: Account,
        verdict: Verdict,
    ) -> None:
        """
        Most accounts serve again seconds after a 429 that gives no time: ask the same
        one again, once, when nobody else is free.
        """
        if way.paused or not verdict.retry_same:
            return
        if self._choose(context, way, time.monotonic()).tiers:
            return
        way.paused = True
        way.tried.discard(account.name)
        await asyncio.sleep(random.uniform(*SAME_PAUSE_S))

    # --- one attempt -----------------------------------------------------------------

    async def _attempt(
        self,
        context: RequestContext,
        way: FailoverState,
        account: Account,
        slot: Slot,
        down: ClientAnswer | None,
    ) -> Answer | None:
        """Try *account*; the slot is given back when its upstream is done with."""
        exchange: UpstreamCall | None = None
        course: StreamCodec | None = None
        facts = StreamFacts()
        answered = kept = False
        try:
            request = self._write(context, way, account)
            exchange = UpstreamCall(
                context, account, request, self._upstream, self._limits
            )
            if down is None:
                answer = await self._whole(context, way, exchange, request, facts)
                answered = True
                return answer
            down.facts = facts
            course = course_of(context, request, facts)
            question = self._question(context, way, request)
            served = partial(self._served, context, way, exchange, facts)
            batch = await exchange.stream(course, down, served)
            answered = await self._conclusion.streamed(context, batch, down, question)
            return None
        except BaseException as error:
            if has_left(error):
                context.record.client_left(has_status=down is not None and down.opened)
                if exchange and exchange.reply:
                    kept = self._drain(context, exchange, slot, course, facts)
            raise
        finally:
            if not kept:
                if exchange:
                    exchange.close(answered=answered)
                slot.release()
            if context.record.attempts:
                context.attempt.ended_at = time.time()

    def _write(
        self, context: RequestContext, way: FailoverState, account: Account
    ) -> UpstreamRequest:
        """The request for *account*, and the attempt in the record."""
        document = readable_body(context, self._pool, account.name, way.document)
        user, session = context.user.name, context.session.key
        recall = partial(self._kept.of, user, session, account.name)
        request = outgoing.write(context, account, document, recall)
        context.record.dropped = (*context.record.dropped, *context.left_out)
        state, query = context.headers.get(TURN_STATE), context.account_query
        if state is not None:
            if not self._pool.reasoning.can_read(query, account.name, state):
                request.headers.popall(TURN_STATE, None)
        self._begin(context, account, request.protocol)
        return request

    def _drain(
        self,
        context: RequestContext,
        exchange: UpstreamCall,
        slot: Slot,
        course: StreamCodec | None,
        facts: StreamFacts,
    ) -> bool:
        """The client has left: read on for the usage, where that is allowed."""
        # The client may keep what it got of the answer.
        made = self._pool.reasoning.made
        made(context.user.name, facts.proofs, context.record.account)
        if not self._drains.open:
            self._books.record_usage(context, facts.usage)
            return False
        context.record.drained = True
        context.mark("client_left", drain=True)
        read: Reading = partial(self._read_whole, context, exchange, facts)
        if course:
            read = partial(exchange.drain, course)

        def done(how: str) -> None:
            if how == "whole":
                self._pool.attempts.completed(context.attempt_key)
            context.mark_ending(how)
            self._books.record_usage(context, facts.usage)
            self._books.close(context.record)

        slots = [slot]
        if context.slot:
            slots.append(context.slot)
            context.slot = None
        self._drains.adopt(exchange, slots, read, done)
        return True

    def _begin(self, context: RequestContext, account: Account, protocol: str) -> None:
        record = context.record
        context.account = account
        record.account = account.name
        record.upstream_protocol = protocol
        record.upstream_model = log.clean_id(account.upstream_model(context.ask.model))
        record.upstream_request_id = ""
        number = len(record.attempts) + 1
        record.attempts.append(AttemptRecord(number, account.name, time.time()))
        context.received_bytes = 0
        context.holder.state = "running"
        context.share.release()
        if number == 1:
            self._books.begin(record)

    def _served(
        self,
        context: RequestContext,
        way: FailoverState,
        exchange: UpstreamCall,
        facts: StreamFacts,
    ) -> None:
        """
        The first real output is there: the account is well and knows the session, and
        nobody else will be asked.
        """
        way.forget_document()
        name = exchange.account.name
        served = self._pool.attempts.served
        served(context.attempt_key, context.session, facts.response_id)
        if exchange.reply and (state := exchange.reply.headers.get(TURN_STATE)):
            self._pool.reasoning.made(context.user.name, [state], name)

    def _question(
        self, context: RequestContext, way: FailoverState, request: UpstreamRequest
    ) -> Question | None:
        """What the gateway itself is to keep of *request*; None for nothing."""
        if request.converted is None:
            return None
        return self._conversations.question(context, way.earlier)

    async def _whole(
        self,
        context: RequestContext,
        way: FailoverState,
        exchange: UpstreamCall,
        request: UpstreamRequest,
        facts: StreamFacts,
    ) -> Answer:
        """A non-stream answer, durable before it is handed out."""
        data, document = await exchange.whole()
        if request.converted is None:
            ending = context.wire.read_body(document, facts)
        else:
            compact = context.path == COMPACT_PATH
            translation = translation_of(
                context, request, facts, body=context.ask.document if compact else None
            )
            document, ending = translation.body(document)
            data = dump(document)
            question = self._question(context, way, request)
            await self._conversations.keep(context, question, document)
        self._conclusion.enter(context, ending, passes=request.converted is None)
        self._served(context, way, exchange, facts)
        await self._conclusion.whole(context, ending, facts)
        return Answer(exchange.headers_down(), words_of(data, ending))

    async def _read_whole(
        self, context: RequestContext, exchange: UpstreamCall, facts: StreamFacts
    ) -> bool:
        """The same for a client that has left: only what it cost."""
        _, document = await exchange.drain_body()
        upstream = PROTOCOLS[context.record.upstream_protocol]
        return upstream.read_body(document, facts).outcome != "failed"

    # --- failures ---------------------------------------------------------------------

    def _note(
        self,
        context: RequestContext,
        account: Account,
        verdict: Verdict,
        streaming: bool,
    ) -> None:
        """Log the attempt and let the account's health know."""
        error = verdict.error
        code = "passed_on" if verdict.pass_on else error.code
        context.attempt.error_code = code
        context.mark(
            "attempt_failed", account=account.name, code=code, detail=error.detail
        )
        self._log.warning(
            "attempt.failed",
            account=account.name,
            attempt=context.attempt.n,
            error_code=code,
            detail=error.detail,
        )
        if streaming and verdict.reason:
            self._pool.attempts.broke(context.attempt_key)
        elif streaming:
            self._pool.attempts.dropped(context.attempt_key)
        else:
            self._pool.attempts.failed(context.attempt_key, verdict)

    def _strip(
        self,
        context: RequestContext,
        way: FailoverState,
        account: Account,
        verdict: Verdict,
    ) -> bool:
        """
        Whether *account* is to be asked again, without the reasoning that it could not
        read; MAX_STRIPS times for one request.
        """
        if not verdict.strip or way.stripped >= MAX_STRIPS:
            return False
        way.stripped += 1
        remedy = self._pool.reasoning.refused(
            context.account_query,
            account.name,
            way.document,
            thinking_off=context.thinking_off,
        )
        if remedy is Remedy.NO_THINKING:
            context.thinking_off = True
        return remedy is not Remedy.NONE

    def _broken(
        self, context: RequestContext, way: FailoverState, verdict: Verdict
    ) -> GatewayError:
        """What the client gets of a failure amid its stream."""
        error = verdict.error
        if error.status == 429 and error.retry_after_s is None:
            # Without a time it would be final for Codex.
            last = self._last_error(context, verdict, way)
            error.retry_after_s = last.retry_after_s or 1
        return error

    def _last_word(
        self, context: RequestContext, way: FailoverState, choice: Choice | None = None
    ) -> GatewayError:
        """What the client gets when nobody is left to ask."""
        if way.verdict is not None:
            return self._last_error(context, way.verdict, way)
        assert choice
        query, now = context.account_query, time.monotonic()
        return self._pool.chooser.refusal(query, choice, now)

    def _last_error(
        self, context: RequestContext, verdict: Verdict, way: FailoverState
    ) -> GatewayError:
        query, now = context.account_query, time.monotonic()
        return self._pool.chooser.last_error(query, verdict, way.fitting, now)
