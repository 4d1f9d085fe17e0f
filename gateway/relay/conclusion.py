"""
The end of an answer: judged, kept, durable, and handed to its client.

Rule 1: the row is durable before the client gets the terminal.
Rule 2: an answer has its outcome only once its last byte has left for the socket. A
        client that leaves before is ``client_gone``, which overtakes the row.
"""

from __future__ import annotations

import time

from gateway.accounting.settlement import Accounting
from gateway.accounts.accounts import Accounts
from gateway.accounts.kept_reasoning import KeptReasoning
from gateway.client.answer import ClientAnswer
from gateway.context import RequestContext
from gateway.protocols.protocol import Ending, StreamFacts
from gateway.protocols.stream_state import Batch, StreamState
from gateway.relay.conversation import Conversations, Question, response_in
from gateway.relay.failures import StatedFailure, verdict_of, words_of


class Conclusion:
    """How answers end, streamed and whole."""

    def __init__(
        self,
        pool: Accounts,
        books: Accounting,
        conversations: Conversations,
        kept: KeptReasoning,
    ) -> None:
        self._pool = pool
        self._kept = kept
        self._books = books
        self._conversations = conversations

    async def streamed(
        self,
        context: RequestContext,
        batch: Batch,
        down: ClientAnswer,
        question: Question | None,
    ) -> bool:
        """
        Write the ending that *batch* brought, durable first; whether it was good.

        Args:
            question: what is to be kept of a request that no upstream will remember.

        Raises:
            StatedFailure: it is a failure, and not the client's own.
        """
        ending = batch.ending
        assert ending
        failed = ending.outcome == "failed"
        passes = failed and context.wire.is_own_failure(batch.terminal)
        self.enter(context, ending, passes=passes)
        # An answer that is whole already when it begins leaves in one write.
        last = batch.data if down.state is StreamState.WAITING else b""
        if batch.data and not last:
            await down.send(batch.data)
        self.learn(context, down.facts)
        context.mark_ending(ending.outcome, keepalives=down.keepalives)
        if question:
            response = response_in(batch.terminal)
            await self._conversations.keep(context, question, response)
        context.record.status = 200
        await self._books.persist(context.record)
        await down.finish(last + words_of(batch.terminal, ending))
        return ending.outcome != "failed"

    async def whole(
        self, context: RequestContext, ending: Ending, facts: StreamFacts
    ) -> None:
        """Make a whole answer, whose outcome is entered, durable."""
        self.learn(context, facts)
        context.mark_ending(ending.outcome)
        context.record.status = 200
        await self._books.persist(context.record)

    def enter(self, context: RequestContext, ending: Ending, *, passes: bool) -> None:
        """
        Enter the outcome into the record.

        Args:
            passes: the upstream's own words may reach the client.

        Raises:
            StatedFailure: it is a failure, and not the client's own.
        """
        if ending.outcome != "failed":
            context.record.set_outcome(ending.outcome)
            self._pool.attempts.completed(context.attempt_key)
            return
        verdict = verdict_of(StatedFailure(ending), context, quotes=False)
        if verdict.scope != "client" or verdict.strip or not passes:
            raise StatedFailure(ending)
        self._pool.attempts.dropped(context.attempt_key)
        context.record.set_outcome("failed", "client", verdict.error.code)
        context.record.detail = verdict.error.detail

    def learn(self, context: RequestContext, facts: StreamFacts) -> None:
        """What is known of an answer at its end: its id, its proofs, what it cost."""
        context.attempt.ended_at = time.time()
        context.record.unknown_stop = facts.unknown_stop
        user, session = context.user.name, context.session.key
        self._kept.keep(user, session, context.record.account, facts.kept)
        self._pool.reasoning.made(user, facts.proofs, context.record.account)
        if facts.response_id:
            context.record.response_id = facts.response_id
        self._books.record_usage(context, facts.usage)
