"""The body of a request without the reasoning that its account cannot read."""

from __future__ import annotations

from gateway.accounts.accounts import Accounts
from gateway.config.schema import Account
from gateway.protocols.reasoning_proofs import FilteredBody
from gateway.relay.failover_state import FailoverState


def readable_body(
    accounts: Accounts, state: FailoverState, account: Account
) -> FilteredBody:
    """
    The body without what *account* cannot read; noted in the timeline. One that is
    written again has its whole numbers as the client sent them. It is the outline where
    nothing is left out of that, and the bytes go up as they came.
    """
    context, off = state.context, state.thinking_off
    query, read = context.account_query, accounts.reasoning.readable
    converted = not account.is_native(query.protocol)
    if not converted and state.is_untouched:
        kept = read(query, account.name, context.ask.outline)
        if kept.body is context.ask.outline:
            return kept
    document = state.document
    own = document is context.ask.document
    if own and converted and context.ask.keep_digits():
        document = context.ask.document
    kept = read(query, account.name, document, thinking_off=off)
    if own and kept.body is not document and context.ask.keep_digits():
        kept = read(query, account.name, context.ask.document, thinking_off=off)
    if kept.removed or kept.thinking_off:
        context.mark(
            "stripped",
            before=accounts.chooser.latest(query),
            pieces=kept.removed,
            thinking_off=kept.thinking_off,
        )
    return kept
