"""
How an attempt at an account may fail, and the judgement of it.

    Refusal         an error status
    StatedFailure   a 200 that says it failed, or that is no whole answer
    UpstreamError   the connection, or the form of what came
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from gateway.accounts.verdict import Verdict, judge_event, judge_status, judge_transport
from gateway.errors import ClientError, UpstreamError
from gateway.protocols.wire import Ending


class Refusal(Exception):
    """The upstream answered with an error status."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class StatedFailure(Exception):
    """The upstream said in a 200 answer that it failed, or gave no whole one."""

    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.ending = ending


Failure = Refusal | StatedFailure | UpstreamError


def verdict_of(failure: Failure, model: str) -> Verdict:
    """
    Whose fault *failure* is.

    Args:
        model: the name that was sent upstream.
    """
    if isinstance(failure, Refusal):
        return judge_status(
            failure.status, failure.headers, failure.body, time.time(), model
        )
    if isinstance(failure, UpstreamError):
        return judge_transport(failure)
    ending = failure.ending
    if ending.failure is not None:
        return judge_event(ending.failure, time.time(), model)
    assert isinstance(ending.error, UpstreamError)
    return judge_transport(ending.error)


def has_left(error: BaseException) -> bool:
    """Whether *error* says that the client is gone."""
    if isinstance(error, asyncio.CancelledError):
        return True
    return isinstance(error, ClientError) and error.code == "client_gone"
