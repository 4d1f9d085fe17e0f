"""
One call to one account beside the model endpoints: bounded in time and bytes.

It takes no slot. Its failure is judged as an attempt's is, but says less of the
account: only that it cannot be reached, or that it refuses the account's key. A limit
on counting or listing is none on answers.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.accounts.accounts import Accounts
from gateway.accounts.attempts import AttemptKey
from gateway.accounts.verdict import Verdict
from gateway.client.answer_headers import id_headers
from gateway.config.schema import Account
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import UpstreamError
from gateway.record import AttemptRecord
from gateway.relay.failures import Failure, read_refusal, redacted_verdict
from gateway.relay.headers import downwards, upstream_request_id
from gateway.relay.upstream import HttpRequest, Upstream
from gateway.telemetry import log
from gateway.transport.interface import UpstreamResponse

HEALTH_REASONS = frozenset({"network", "refused"})
"""The reasons of failures that count for the account's health."""


class AuxiliaryRequest(NamedTuple):
    """
    What an account is asked.

    Attributes:
        path: behind ``base_url``.
        limit_bytes: of the answer.
    """

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    query: str
    timeout_s: float
    limit_bytes: int


class AuxiliaryAnswer(NamedTuple):
    """A whole answer, and the headers of it that the client gets."""

    status: int
    body: bytes
    headers: dict[str, str]


class AuxiliaryCalls:
    """Calls accounts, enters each call as an attempt, and notes what it says."""

    def __init__(self, accounts: Accounts, upstream: Upstream) -> None:
        self._accounts = accounts
        self._upstream = upstream
        self._log = log.get()

    async def send(
        self, scope: RequestScope, account: Account, request: AuxiliaryRequest
    ) -> AuxiliaryAnswer:
        """
        The answer of *account*, a status below 300.

        Raises:
            UpstreamRefusal: another status.
            UpstreamError: it could not be had.
        """
        record = scope.record
        record.account = account.name
        record.upstream_request_id = ""
        number = len(record.attempts) + 1
        attempt = AttemptRecord(number, account.name, time.time())
        record.attempts.append(attempt)
        try:
            async with asyncio.timeout(request.timeout_s):
                response = await self._open(scope, account, request)
                attempt.status = response.status
                return await _read(scope, response, request.limit_bytes)
        except TimeoutError:
            detail = f"no answer after {request.timeout_s:g} s"
            raise UpstreamError("upstream_timeout", detail=detail) from None
        finally:
            attempt.ended_at = time.time()

    async def _open(
        self, scope: RequestScope, account: Account, request: AuxiliaryRequest
    ) -> UpstreamResponse:
        http_request = HttpRequest(
            scope.wire.name,
            request.path,
            request.headers,
            request.body,
            request.query,
            request.method,
        )
        return await self._upstream.open(account, http_request)

    def note_failure(
        self,
        scope: RequestScope,
        account: Account,
        failure: Failure,
        body: bytes,
        started_at: float,
        model: str = "",
    ) -> Verdict:
        """
        Whose fault *failure* is; noted in the log and in the account's health.

        Args:
            body: the client's, which an upstream may have quoted.
            started_at: when the call began, in monotonic seconds.
        """
        verdict = redacted_verdict(failure, account.upstream_model(model), body)
        error, attempt = verdict.error, scope.record.attempts[-1]
        attempt.error_code = "passed_on" if verdict.pass_on else error.code
        self._log.warning(
            "attempt.failed",
            account=account.name,
            attempt=attempt.n,
            error_code=attempt.error_code,
            detail=error.detail,
        )
        if verdict.reason in HEALTH_REASONS:
            key = AttemptKey(account.name, model, scope.record.user, started_at)
            self._accounts.attempts.failed(key, verdict)
        return verdict


async def _read(
    scope: RequestScope, response: UpstreamResponse, limit_bytes: int
) -> AuxiliaryAnswer:
    try:
        ident = upstream_request_id(response.headers)
        scope.record.upstream_request_id = log.clean_id(ident)
        if response.status >= 300:
            raise await read_refusal(response)
        body = await response.body(limit_bytes)
    finally:
        response.close()
    return AuxiliaryAnswer(response.status, body, _passed(response.headers))


def _passed(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    return downwards(headers, same_protocol=True, renamed=False)


def json_answer(
    scope: RequestScope, status: int, data: bytes, headers: dict[str, str] | None = None
) -> web.Response:
    """A whole JSON answer with the headers that every answer bears."""
    scope.record.status = status
    return web.Response(
        status=status,
        body=data,
        headers={**(headers or {}), **id_headers(scope.record)},
        content_type="application/json",
    )


def path_id(scope: RequestScope) -> str:
    """The value of ``{id}`` in the path."""
    assert isinstance(scope.request, web.Request)  # it came through the router
    return scope.request.match_info["id"]
