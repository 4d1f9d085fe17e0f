"""The body of a request without the reasoning that its account cannot read."""

from __future__ import annotations

from typing import Any

from gateway.accounts.accounts import Accounts
from gateway.context import RequestContext


def readable_body(
    context: RequestContext, accounts: Accounts, account: str, document: dict[str, Any]
) -> dict[str, Any]:
    """
    *document* without what *account* cannot read; noted in the timeline. One that is
    written again has its whole numbers as the client sent them.
    """
    query, read = context.account_query, accounts.reasoning.readable
    own, off = document is context.ask.document, context.thinking_off
    converted = (
        accounts.by_name[account].upstream_protocol(query.protocol) != query.protocol
    )
    if own and converted and context.ask.keep_digits():
        document = context.ask.document
    kept = read(query, account, document, thinking_off=off)
    if own and kept.body is not document and context.ask.keep_digits():
        kept = read(query, account, context.ask.document, thinking_off=off)
    context.left_out = ("thinking",) if kept.thinking_off else ()
    if kept.removed or kept.thinking_off:
        context.mark(
            "stripped",
            before=accounts.chooser.latest(query),
            pieces=kept.removed,
            thinking_off=kept.thinking_off,
        )
    return kept.body
