"""
How an attempt at an account may fail, and the judgement of it.

    UpstreamRefusal an error status
    StatedFailure   a 200 that says it failed, or that is no whole answer
    UpstreamError   the connection, or the form of what came

The head of a refusal decides. Its body says more, so it is read, for a bounded time
and up to a bounded size; what cannot be read so is ignored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from gateway.accounts.verdict import Verdict, judge_event, judge_status, judge_transport
from gateway.context import RequestContext
from gateway.errors import ClientError, PassedOn, UpstreamError
from gateway.protocols.failure_forms import failure_in
from gateway.protocols.failure_table import WORDS
from gateway.protocols.protocol import Ending
from gateway.relay.first_event_timeout import FirstEventTimeout
from gateway.telemetry import log
from gateway.transport.interface import UpstreamResponse

REFUSAL_BODY_S = 3.0  # how long the body of a refusal may take
MAX_REFUSAL_BYTES = 1024 * 1024  # of it; also the most that is passed on to a client


class UpstreamRefusal(Exception):
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


Failure = UpstreamRefusal | StatedFailure | UpstreamError
FAILURES = (UpstreamRefusal, StatedFailure, UpstreamError)


async def read_bounded(response: UpstreamResponse) -> bytes:
    """The body of *response*; empty if it cannot be read whole within the bounds."""
    try:
        with FirstEventTimeout(REFUSAL_BODY_S):
            return await response.body(MAX_REFUSAL_BYTES)
    except UpstreamError:
        return b""


async def read_refusal(response: UpstreamResponse) -> UpstreamRefusal:
    """The refusal that the status of *response* says."""
    body = await read_bounded(response)
    return UpstreamRefusal(response.status, response.headers, body)


def no_answer(value: object) -> StatedFailure | UpstreamError:
    """The failure of a 200 whose JSON *value* is not the answer that was asked for."""
    failure = failure_in(value)
    if failure is None:
        return UpstreamError("upstream_malformed", detail="JSON that is no answer")
    return StatedFailure(Ending("failed", UpstreamError("upstream_failed"), failure))


def verdict_of(failure: Failure, context: RequestContext, *, quotes: bool) -> Verdict:
    """Whose fault *failure* of an attempt is; see ``redacted_verdict``."""
    record = context.record
    return redacted_verdict(
        failure,
        record.upstream_model,
        context.ask.data,
        same_protocol=record.upstream_protocol == context.wire.name,
        quotes=quotes,
    )


def redacted_verdict(
    failure: Failure,
    model: str,
    own: bytes,
    *,
    same_protocol: bool = True,
    quotes: bool = False,
) -> Verdict:
    """
    Whose fault *failure* is. Here an upstream's words enter the gateway: what the
    verdict's error says is redacted.

    Args:
        model: the name that was sent upstream.
        own: the client's body, which an upstream may have quoted.
        same_protocol: the client can be given the upstream's own body.
        quotes: the client may read a part of the upstream's words.
    """
    verdict = _judged(failure, model, same_protocol)
    redaction, error = log.redaction(), verdict.error
    error.detail = redaction.detail(error.detail, own, {model, *WORDS})
    if isinstance(error, PassedOn):
        error.message = redaction.clean(error.message)
        error.type, error.client_code = map(
            redaction.clean_id, (error.type, error.client_code)
        )
        error.raw = redaction.clean_bytes(error.raw)
    if isinstance(error, UpstreamError) and quotes:
        error.quote = redaction.quote(error.words)
    return verdict


def _judged(failure: Failure, model: str, same_protocol: bool) -> Verdict:
    if isinstance(failure, UpstreamRefusal):
        return judge_status(
            failure.status,
            failure.headers,
            failure.body,
            time.time(),
            model,
            same_protocol=same_protocol,
        )
    if isinstance(failure, UpstreamError):
        return judge_transport(failure)
    ending = failure.ending
    if ending.failure is not None:
        return judge_event(ending.failure, time.time(), model)
    assert isinstance(ending.error, UpstreamError)
    return judge_transport(ending.error)


def words_of(data: bytes, ending: Ending) -> bytes:
    """*data* of an upstream as its client gets it: a failure may quote secrets."""
    if ending.outcome != "failed":
        return data
    return log.redaction().clean_bytes(data)


def has_left(error: BaseException) -> bool:
    """Whether *error* says that the client is gone."""
    if isinstance(error, asyncio.CancelledError):
        return True
    return isinstance(error, ClientError) and error.code == "client_gone"
