"""
One attempt: a request that is sent to one account, and what comes of it.

    prepare ──▶ call ──▶ answer ──▶ ending ──▶ close
       └──────────┴────────┴─────────▲

It owns the account's slot, the upstream call, the facts of the answer and its ending.
``StreamedAttempt`` and ``WholeAttempt`` read the answer; the failover loop decides what
follows from a failure.

Rule 1: its slot and its user's are held until the upstream has nothing left to do for
        the request: to the end of a whole answer, while its row and its client are
        still to come, else to the end of ``run``; or of the drain that takes the
        attempt over.
Rule 2: an answer has its outcome only once its last byte has left for the socket. A
        client that leaves before is ``client_gone``, which replaces the row.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import NamedTuple

from gateway.accounts.verdict import Verdict
from gateway.admission.interface import Slot
from gateway.errors import GatewayError
from gateway.protocols.protocol import Ending
from gateway.record import AttemptRecord
from gateway.relay.account_slots import GrantedAccount
from gateway.relay.conversation import Question
from gateway.relay.dependencies import Dependencies
from gateway.relay.failover_state import FailoverState
from gateway.relay.failures import (
    FAILURES,
    Failure,
    StatedFailure,
    has_left,
    verdict_of,
)
from gateway.relay.readable_body import readable_body
from gateway.relay.upstream_call import UpstreamCall
from gateway.relay.upstream_request import RequestWriter, UpstreamRequest
from gateway.telemetry import log

TURN_STATE = "x-codex-turn-state"


class Answer(NamedTuple):
    """A whole answer for the client."""

    headers: dict[str, str]
    body: bytes


class Attempt(ABC):
    """
    Attributes:
        account: as the config described it when the attempt began.
        slots: the account's; of a drain also the user's.
    """

    def __init__(
        self, dependencies: Dependencies, state: FailoverState, granted: GrantedAccount
    ) -> None:
        self.account = dependencies.accounts.by_name[granted.slot.name]
        self.slots: list[Slot] = [granted.slot]
        self._key = granted.key
        self._dependencies = dependencies
        self._limits = dependencies.limits
        self._accounts = dependencies.accounts
        self._state = state
        self._context = state.context
        self._facts = state.context.wire.new_facts()
        self._call: UpstreamCall | None = None
        self._record: AttemptRecord | None = None
        self._answered = False  # the upstream has nothing left to say
        self._is_awaited = False  # a request waits for one of its slots

    async def run(self) -> Answer | None:
        """
        Send the request and hand the answer to the client; a stream hands out None.

        Raises:
            UpstreamRefusal, StatedFailure, UpstreamError: the account failed.
            ClientError: "client_gone"; the request asks for what the account's
                protocol cannot say.
        """
        record = self._context.record
        try:
            return await self._answer(self._prepare())
        except BaseException as error:
            if has_left(error):
                self._client_left()
            if not isinstance(error, FAILURES):
                self._accounts.attempts.dropped(self._key)
                self._enter_stop(error)
            raise
        finally:
            if not record.drained:
                self.close(answered=self._answered)
            if self._record:
                self._record.ended_at = time.time()

    @abstractmethod
    async def _answer(self, call: UpstreamCall) -> Answer | None:
        """Make *call*, and hand its answer to the client."""

    @abstractmethod
    async def read_on(self) -> bool:
        """
        Read on after the client has left; what is learnt is in the facts. Whether the
        answer was whole.
        """

    @property
    def has_output(self) -> bool:
        """Whether the client has a part of the answer: no other account may answer."""
        return False

    @property
    def elapsed_s(self) -> float:
        """Seconds since the slot was granted."""
        return time.monotonic() - self._key.started_at

    # --- the request ------------------------------------------------------------------

    def _prepare(self) -> UpstreamCall:
        """Write the request as the account gets it, and enter the attempt."""
        context, account = self._context, self.account
        kept = readable_body(self._accounts, self._state, account)
        recall = partial(
            self._dependencies.kept_reasoning.of,
            context.user.name,
            context.session.key,
            account.name,
        )
        request = RequestWriter(context, account).write(kept.body, recall)
        if kept.thinking_off:
            context.record.dropped = (*context.record.dropped, "thinking")
        state, query = context.headers.get(TURN_STATE), context.account_query
        if state is not None:
            if not self._accounts.reasoning.can_read(query, account.name, state):
                request.headers.popall(TURN_STATE, None)
        self._enter_attempt(request)
        self._call = UpstreamCall(
            context, account, request, self._dependencies.upstream
        )
        return self._call

    def _enter_attempt(self, request: UpstreamRequest) -> None:
        context, account = self._context, self.account
        record, model = context.record, account.upstream_model(context.ask.model)
        record.account = account.name
        record.upstream_protocol = request.protocol
        record.upstream_model = log.clean_id(model)
        record.upstream_request_id = ""
        number = len(record.attempts) + 1
        self._record = AttemptRecord(number, account.name, time.time())
        record.attempts.append(self._record)
        context.holder.state = "running"
        context.share.release()
        if number == 1:
            self._dependencies.accounting.begin(record)

    # --- the answer -------------------------------------------------------------------

    def _served(self, call: UpstreamCall) -> None:
        """
        The first real output is there: the account is well and knows the session, and
        no other account will be asked.
        """
        context, accounts = self._context, self._accounts
        is_kept = context.ask.outline.get("store") is not False
        self._state.forget_document()
        self._learn_response_id()
        response_id = self._facts.response_id if is_kept else ""
        accounts.attempts.served(self._key, context.session, response_id)
        if state := call.header(TURN_STATE):
            accounts.reasoning.made(context.user.name, [state], self.account.name)

    def _question(self, request: UpstreamRequest) -> Question | None:
        """What the gateway itself stores of a request that no upstream remembers."""
        if request.converted is None:
            return None
        return self._dependencies.conversations.question(self._state)

    def _enter_ending(self, ending: Ending, *, passes: bool) -> None:
        """
        Enter the outcome of the answer.

        Args:
            passes: the upstream's own words may reach the client.

        Raises:
            StatedFailure: it is a failure, and not the client's own.
        """
        record, reports = self._context.record, self._accounts.attempts
        if ending.outcome != "failed":
            record.set_outcome(ending.outcome)
            reports.completed(self._key)
            return
        verdict = verdict_of(StatedFailure(ending), self._context, quotes=False)
        if verdict.scope != "client" or verdict.drop_reasoning or not passes:
            raise StatedFailure(ending)
        reports.dropped(self._key)
        record.set_outcome("failed", "client", verdict.error.code)
        record.detail = verdict.error.detail

    def learn(self) -> None:
        """Enter what is known of an answer at its end: its id, its proofs, its cost."""
        context, facts, account = self._context, self._facts, self.account
        record, user = context.record, context.user.name
        context.attempt.ended_at = time.time()
        record.unknown_stop = facts.unknown_stop
        kept_reasoning = self._dependencies.kept_reasoning
        kept_reasoning.keep(user, context.session.key, account.name, facts.kept)
        self._accounts.reasoning.made(user, facts.proofs, account.name)
        self._learn_response_id()
        self._dependencies.accounting.record_usage(context, account, facts.usage)

    def _learn_response_id(self) -> None:
        """Enter the id that the client was given, by which an operator may name it."""
        if ident := self._facts.response_id:
            self._context.record.response_id = ident

    async def _upstream_is_done(self) -> None:
        """
        The answer is whole, while its row and its client are still to come: a request
        that waits for a slot need not wait for them. Where the framing has not ended,
        the server may still count the request as one that it serves.
        """
        if self._call:
            self._call.finish(self._hand_on)
        if self._is_awaited:
            # It goes out before the row is made, and the ledger's thread is woken.
            await asyncio.sleep(0)

    def _hand_on(self) -> None:
        """The next request may run; a budget of its user counts this one."""
        context = self._context
        self._dependencies.accounting.charge(context.record)
        self._is_awaited = self.slots[0].release()
        if context.slot:
            self._is_awaited |= context.slot.hand_on()

    # --- failures ---------------------------------------------------------------------

    def fail(self, failure: Failure) -> Verdict:
        """Judge *failure*, log it, and report it to the account's health."""
        context = self._context
        verdict = verdict_of(failure, context, quotes=self._limits.quote_errors)
        error, name = verdict.error, self.account.name
        code = "passed_on" if verdict.pass_on else error.code
        context.attempt.error_code = code
        context.mark("attempt_failed", account=name, code=code, detail=error.detail)
        log.get().warning(
            "attempt.failed",
            account=name,
            attempt=context.attempt.n,
            error_code=code,
            detail=error.detail,
        )
        reports = self._accounts.attempts
        if not self.has_output:
            reports.failed(self._key, verdict)
        elif verdict.reason:
            reports.broke(self._key)
        else:
            reports.dropped(self._key)
        return verdict

    def _enter_stop(self, error: BaseException) -> None:
        """Enter what stopped the attempt before its end; the account did nothing."""
        if self._record is None or self._answered:
            return
        if has_left(error):
            code = self._context.stopped or "client_gone"
        else:
            code = error.code if isinstance(error, GatewayError) else "internal_error"
        self._record.error_code = code

    # --- the client has left ----------------------------------------------------------

    def _client_left(self) -> None:
        """Have the answer read on for its usage, where that is allowed."""
        context, client = self._context, self._state.client
        drains = self._dependencies.drains
        has_status = client is not None and client.opened
        context.record.client_left(has_status=has_status)
        if self._call is None or self._call.response is None:
            return
        # The client may keep what it got of the answer.
        made = self._accounts.reasoning.made
        made(context.user.name, self._facts.proofs, self.account.name)
        if context.stopped or not drains.open:
            self._record_usage()
            return
        context.record.drained = True
        context.mark("client_left", drain=True)
        if context.slot:
            self.slots.append(context.slot)
            context.slot = None
        drains.adopt(self)

    def drained(self, how: str) -> None:
        """See ``Drainable.drained``."""
        context = self._context
        context.attempt.ended_at = time.time()
        if how == "whole":
            context.attempt.error_code = ""
            self._accounts.attempts.completed(self._key)
        context.mark_ending(how)
        self._record_usage()
        self._dependencies.accounting.close(context.record)

    def _record_usage(self) -> None:
        accounting = self._dependencies.accounting
        accounting.record_usage(self._context, self.account, self._facts.usage)

    def close(self, *, answered: bool = False) -> None:
        """
        Be done with the upstream, and release the slots.

        Args:
            answered: the answer was whole; the connection may be used again.
        """
        if self._call:
            self._call.close(answered=answered)
        for slot in self.slots:
            slot.release()
