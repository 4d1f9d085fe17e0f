"""The client's error when no account is left to ask."""

from __future__ import annotations

import time

from gateway.accounts.accounts import Accounts
from gateway.accounts.choice import Choice
from gateway.accounts.verdict import Verdict
from gateway.errors import GatewayError
from gateway.relay.failover_state import FailoverState


def last_error(
    accounts: Accounts, state: FailoverState, choice: Choice | None = None
) -> GatewayError:
    """
    The error while the client has nothing of an answer.

    Args:
        choice: the empty choice, where no attempt was made.
    """
    if state.verdict is not None:
        return _after(accounts, state, state.verdict)
    assert choice
    query = state.context.account_query
    return accounts.chooser.refusal(query, choice, time.monotonic())


def stream_error(
    accounts: Accounts, state: FailoverState, verdict: Verdict
) -> GatewayError:
    """The error of a stream that broke behind its first output."""
    error = verdict.error
    if error.status == 429 and error.retry_after_s is None:
        # Without a time it would be final for Codex.
        error.retry_after_s = _after(accounts, state, verdict).retry_after_s or 1
    return error


def _after(accounts: Accounts, state: FailoverState, verdict: Verdict) -> GatewayError:
    query, now = state.context.account_query, time.monotonic()
    return accounts.chooser.last_error(query, verdict, state.fitting, now)
