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
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import orjson

from gateway import log, outgoing
from gateway.accounts.choice import Choice
from gateway.accounts.kept_reasoning import KeptReasoning
from gateway.accounts.pool import STATE, Pool
from gateway.accounts.verdict import SAME_PAUSE_S, Verdict
from gateway.admission.registry import Registry, Slot
from gateway.body import Ask
from gateway.books import Books
from gateway.config import Account, UpstreamLimits
from gateway.conversation import Conversations, Question, response_in
from gateway.downstream import Downstream
from gateway.drains import Drains, Reading
from gateway.errors import GatewayError, UpstreamError
from gateway.exchange import Course, Exchange
from gateway.failures import Refusal, StatedFailure, has_left, verdict_of
from gateway.ledger.turns import Link
from gateway.outgoing import Outgoing
from gateway.protocols import PROTOCOLS
from gateway.protocols.convert import Converted
from gateway.protocols.grammar import Batch, State, Watch
from gateway.protocols.translate import Translation
from gateway.protocols.wire import Ending, Facts
from gateway.record import Attempt
from gateway.turn import Turn
from gateway.upstream import Upstream

MAX_STRIPS = 2  # times that one request is sent anew with less reasoning


class Answer(NamedTuple):
    """A whole answer for the client."""

    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Way:
    """How far the attempts of one request have come."""

    ask: Ask
    changed: dict[str, Any] | None = None  # the body, where it is not the client's own
    earlier: Link = Link()  # the kept turn that it goes on from
    tried: set[str] = field(default_factory=set)
    paused: bool = False  # the one pause on the same account is spent
    stripped: int = 0  # how often unreadable reasoning has been left out
    fitting: list[str] = field(default_factory=list)
    verdict: Verdict | None = None  # of the last attempt

    @property
    def document(self) -> dict[str, Any]:
        """The body that an account is to be sent."""
        return self.ask.document if self.changed is None else self.changed

    def change(self, document: dict[str, Any]) -> None:
        """From now on the body is *document*."""
        self.changed = None if document is self.ask.document else document


class Relay:
    """
    Args:
        pool: the accounts, their health and affinity.
        drains: reads on for clients that have left.
    """

    def __init__(
        self,
        pool: Pool,
        registry: Registry,
        upstream: Upstream,
        books: Books,
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
        self._limits = limits
        self._log = log.get()

    async def run(self, turn: Turn, down: Downstream | None) -> Answer | None:
        """
        Answer *turn*: into *down*, or, without it, as a whole.

        Raises:
            GatewayError: no account could answer; ``down.state`` says how far it was.
        """
        way = Way(turn.ask)
        document, way.earlier = await self._conversations.document(turn)
        way.change(document)
        while True:
            slot = await self._slot(turn, way)
            account = self._pool.accounts[slot.name]
            way.tried.add(account.name)
            try:
                return await self._attempt(turn, way, account, slot, down)
            except (Refusal, StatedFailure, UpstreamError) as failure:
                verdict = verdict_of(
                    failure,
                    turn.record.upstream_model,
                    same_protocol=turn.record.upstream_protocol == turn.wire.name,
                )
                failure.__traceback__ = None  # its frames hold it, and the request
            except BaseException:
                self._pool.dropped(turn, account.name)  # it says nothing of the account
                raise
            way.verdict = verdict
            streaming = down is not None and down.state is not State.WAITING
            self._note(turn, account, verdict, streaming)
            if down and streaming:
                self._learn(turn, down.facts)
                raise self._broken(turn, way, verdict)
            # Only waiting counts against the queue's deadline.
            turn.deadline += time.monotonic() - turn.attempt_at
            if self._strip(turn, way, account, verdict):
                way.tried.discard(account.name)
            elif not self._may_switch(turn, way, account, verdict):
                raise self._last_word(turn, way)
            else:
                await self._pause(turn, way, account, verdict)

    # --- choosing ---------------------------------------------------------------------

    async def _slot(self, turn: Turn, way: Way) -> Slot:
        """A slot of the account that is to be tried next."""
        while True:
            now = time.monotonic()
            choice = self._pool.choose(turn, way.tried, now)
            way.fitting = choice.fitting
            turn.mark("chosen", tiers=choice.tiers, rejected=choice.rejected)
            if not choice.tiers:
                raise self._last_word(turn, way, choice)
            slot = await self._registry.account_slot(
                choice.tiers,
                turn.holder,
                turn.deadline,
                prefer=choice.prefer,
                prefer_until=now + self._limits.sticky_wait_s,
            )
            try:
                if self._may_start(turn, way, choice, slot.name):
                    return slot
            except BaseException:
                slot.release()
                raise
            slot.release()

    def _may_start(self, turn: Turn, way: Way, choice: Choice, account: str) -> bool:
        """Whether the account may still be asked, now that its slot is there."""
        if account not in self._pool.accounts:
            return False  # a reload has removed it meanwhile
        now = time.monotonic()
        if way.verdict is not None or choice.last_resort:
            same = account == turn.record.account
            if not self._pool.may_retry(turn, account, now, same=same):
                raise self._last_word(turn, way, choice)
        if turn.record.queue_ms is None:
            turn.record.queue_ms = turn.record.waited_s(now) * 1000
        turn.mark("granted", account=account)
        return self._pool.start(turn, choice, account, now)

    def _may_switch(
        self, turn: Turn, way: Way, account: Account, verdict: Verdict
    ) -> bool:
        """Whether another account is worth asking."""
        if verdict.strip and len(way.tried) <= self._limits.max_switches:
            return self._pool.other_may_read(turn, way.tried)
        if not verdict.switch or len(way.tried) > self._limits.max_switches:
            return False
        if verdict.reason != "no_model" or account.upstream_model(turn.ask.model) != (
            turn.ask.model
        ):
            return True
        # Else it is the client's own mistake, unless another is known to have it.
        return self._pool.elsewhere(turn, way.fitting, way.tried)

    async def _pause(
        self, turn: Turn, way: Way, account: Account, verdict: Verdict
    ) -> None:
        """
        Most accounts serve again seconds after a 429 that gives no time: ask the same
        one again, once, when nobody else is free.
        """
        if way.paused or not verdict.retry_same:
            return
        if self._pool.choose(turn, way.tried, time.monotonic()).tiers:
            return
        way.paused = True
        way.tried.discard(account.name)
        await asyncio.sleep(random.uniform(*SAME_PAUSE_S))

    # --- one attempt -----------------------------------------------------------------

    async def _attempt(
        self,
        turn: Turn,
        way: Way,
        account: Account,
        slot: Slot,
        down: Downstream | None,
    ) -> Answer | None:
        """Try *account*; the slot is given back when its upstream is done with."""
        exchange: Exchange | None = None
        course: Course | None = None
        facts = Facts()
        answered = kept = False
        try:
            request = self._write(turn, way, account)
            exchange = Exchange(turn, account, request, self._upstream, self._limits)
            if down is None:
                answer = await self._whole(turn, way, exchange, request, facts)
                answered = True
                return answer
            down.facts = facts
            course = self._course(turn, request, facts)
            question = self._question(turn, way, request)
            served = partial(self._served, turn, exchange, facts)
            batch = await exchange.stream(course, down, served)
            answered = await self._conclude(turn, batch, down, question)
            return None
        except BaseException as error:
            if exchange and exchange.reply and has_left(error):
                kept = self._drain(turn, exchange, slot, course, facts)
            raise
        finally:
            if not kept:
                if exchange:
                    exchange.close(answered=answered)
                slot.release()
            if turn.record.attempts:
                turn.attempt.ended_at = time.time()

    def _write(self, turn: Turn, way: Way, account: Account) -> Outgoing:
        """The request for *account*, and the attempt in the record."""
        document = self._pool.document(turn, account.name, way.document)
        user, session = turn.user.name, turn.session.key
        recall = partial(self._kept.of, user, session, account.name)
        request = outgoing.write(turn, account, document, recall)
        turn.record.dropped = (*turn.record.dropped, *turn.left_out)
        if not self._pool.knows_state(turn, account.name):
            request.headers.popall(STATE, None)
        self._begin(turn, account, request.protocol)
        return request

    def _drain(
        self,
        turn: Turn,
        exchange: Exchange,
        slot: Slot,
        course: Course | None,
        facts: Facts,
    ) -> bool:
        """The client has left: read on for the usage, where that is allowed."""
        self._pool.made(turn, facts.proofs)  # it may keep what it got of the answer
        if not self._drains.open:
            self._books.settle(turn, facts.usage)
            return False
        turn.record.drained = True
        turn.mark("client_left", drain=True)
        read: Reading = partial(self._read_whole, turn, exchange, facts)
        if course:
            read = partial(exchange.drain, course)

        def done(how: str) -> None:
            if how == "whole":
                self._pool.completed(turn, exchange.account.name)
            turn.mark_ending(how)
            self._books.settle(turn, facts.usage)
            self._books.close(turn.record)

        self._drains.adopt(exchange, slot, read, done)
        return True

    def _begin(self, turn: Turn, account: Account, protocol: str) -> None:
        record = turn.record
        record.account = account.name
        record.upstream_protocol = protocol
        record.upstream_model = account.upstream_model(turn.ask.model)
        record.upstream_request_id = ""
        number = len(record.attempts) + 1
        record.attempts.append(Attempt(number, account.name, time.time()))
        turn.received_bytes = 0
        turn.holder.state = "running"
        turn.share.release()
        if number == 1:
            self._books.begin(record)

    def _served(self, turn: Turn, exchange: Exchange, facts: Facts) -> None:
        """
        The first real output is there: the account is well and knows the session, and
        nobody else will be asked.
        """
        turn.ask.forget_document()
        name = exchange.account.name
        self._pool.served(turn, name, facts.response_id)
        if exchange.reply and (state := exchange.reply.headers.get(STATE)):
            self._pool.keep_state(turn, name, state)

    def _question(self, turn: Turn, way: Way, request: Outgoing) -> Question | None:
        """What the gateway itself is to keep of *request*; None for nothing."""
        if request.converted is None:
            return None
        return self._conversations.question(turn, way.earlier)

    def _course(self, turn: Turn, request: Outgoing, facts: Facts) -> Course:
        if request.converted is None:
            facts.hide_usage = request.hide_usage
            return Watch(turn.wire, facts)
        return self._translation(turn, request, request.converted, facts)

    def _translation(
        self, turn: Turn, request: Outgoing, converted: Converted, facts: Facts
    ) -> Translation:
        return Translation(
            request.protocol,
            turn.wire.name,
            facts,
            converted,
            turn.record.request_id,
            turn.ask.model,
            int(turn.record.started_at),
            now=time.time,
            client_body=turn.ask.document,
        )

    async def _conclude(
        self,
        turn: Turn,
        batch: Batch,
        down: Downstream,
        question: Question | None,
    ) -> bool:
        """
        Write the ending that *batch* brought, durable first; whether it was good.

        A failure that is not the client's own is raised instead.

        Args:
            question: what is to be kept of a request that no upstream will remember.
        """
        ending = batch.ending
        assert ending
        self._enter(turn, ending, passes=bool(batch.terminal))
        # An answer that is whole already when it begins leaves in one write.
        last = batch.data if down.state is State.WAITING else b""
        if batch.data and not last:
            await down.send(batch.data)
        self._learn(turn, down.facts)
        turn.mark_ending(ending.outcome, keepalives=down.keepalives)
        if question:
            response = response_in(batch.terminal)
            await self._conversations.keep(turn, question, response)
        await self._books.durable(turn.record)
        await down.finish(last + batch.terminal)
        return ending.outcome != "failed"

    def _enter(self, turn: Turn, ending: Ending, *, passes: bool) -> None:
        """
        Enter the outcome into the record.

        Args:
            passes: the upstream's own words may reach the client.
        """
        if ending.outcome != "failed":
            turn.record.ended(ending.outcome)
            self._pool.completed(turn, turn.record.account)
            return
        verdict = verdict_of(StatedFailure(ending), turn.record.upstream_model)
        if verdict.scope != "client" or verdict.strip or not passes:
            raise StatedFailure(ending)
        self._pool.dropped(turn, turn.record.account)
        turn.record.ended("failed", "client", verdict.error.code)
        turn.record.detail = verdict.error.detail

    async def _whole(
        self,
        turn: Turn,
        way: Way,
        exchange: Exchange,
        request: Outgoing,
        facts: Facts,
    ) -> Answer:
        """A non-stream answer, durable before it is handed out."""
        data, document = await exchange.whole()
        if request.converted is None:
            ending = turn.wire.read_body(document, facts)
        else:
            translation = self._translation(turn, request, request.converted, facts)
            document, ending = translation.body(document)
            data = orjson.dumps(document)
            question = self._question(turn, way, request)
            await self._conversations.keep(turn, question, document)
        self._enter(turn, ending, passes=request.converted is None)
        self._served(turn, exchange, facts)
        self._learn(turn, facts)
        turn.mark_ending(ending.outcome)
        turn.record.status = 200
        await self._books.durable(turn.record)
        return Answer(exchange.headers_down(), data)

    async def _read_whole(self, turn: Turn, exchange: Exchange, facts: Facts) -> bool:
        """The same for a client that has left: only what it cost."""
        _, document = await exchange.body()
        upstream = PROTOCOLS[turn.record.upstream_protocol]
        return upstream.read_body(document, facts).outcome != "failed"

    def _learn(self, turn: Turn, facts: Facts) -> None:
        """What is known of an answer at its end: its id, its proofs, what it cost."""
        turn.attempt.ended_at = time.time()
        turn.record.unknown_stop = facts.unknown_stop
        user, session = turn.user.name, turn.session.key
        self._kept.keep(user, session, turn.record.account, facts.kept)
        self._pool.made(turn, facts.proofs)
        if facts.response_id:
            turn.record.response_id = facts.response_id
        self._books.settle(turn, facts.usage)

    # --- failures ---------------------------------------------------------------------

    def _note(
        self, turn: Turn, account: Account, verdict: Verdict, streaming: bool
    ) -> None:
        """Log the attempt and let the account's health know."""
        error = verdict.error
        code = "passed_on" if verdict.pass_on else error.code
        turn.attempt.error_code = code
        turn.mark(
            "attempt_failed", account=account.name, code=code, detail=error.detail
        )
        self._log.warning(
            "attempt.failed",
            account=account.name,
            attempt=turn.attempt.n,
            error_code=code,
            detail=error.detail,
        )
        if streaming and verdict.reason:
            self._pool.broke(turn, account.name)
        elif streaming:
            self._pool.dropped(turn, account.name)
        else:
            self._pool.failed(turn, account.name, verdict)

    def _strip(self, turn: Turn, way: Way, account: Account, verdict: Verdict) -> bool:
        """
        Whether *account* is to be asked again, without the reasoning that it could not
        read; MAX_STRIPS times for one request.
        """
        if not verdict.strip or way.stripped >= MAX_STRIPS:
            return False
        way.stripped += 1
        return self._pool.refused_reasoning(turn, account.name, way.document)

    def _broken(self, turn: Turn, way: Way, verdict: Verdict) -> GatewayError:
        """What the client gets of a failure amid its stream."""
        error = verdict.error
        if error.status == 429 and error.retry_after_s is None:
            # Without a time it would be final for Codex.
            told = self._pool.last_word(turn, verdict, way.fitting)
            error.retry_after_s = told.retry_after_s or 1
        return error

    def _last_word(
        self, turn: Turn, way: Way, choice: Choice | None = None
    ) -> GatewayError:
        """What the client gets when nobody is left to ask."""
        if way.verdict is not None:
            return self._pool.last_word(turn, way.verdict, way.fitting)
        assert choice
        return self._pool.refusal(turn, choice, time.monotonic())
