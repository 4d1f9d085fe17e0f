"""
Whose fault an upstream's failure is, and what may be done about it.

Rule 1: first the scope of blame, then everything else. What a client did wrong, or
        can make an upstream say, never counts against an account.
Rule 2: every HTTP status is in ``STATUSES`` or falls under its hundred.
Rule 3: the status decides what the client would get, a strong word of the body
        (``gateway.protocols.failure_table``) decides why, and so for how long. A body
        that could not be read changes nothing.
Rule 4: what an upstream says of its account (no credit, a key that is not valid) is
        the account's failure, whatever the status.
Rule 5: a credential may be refused because of what one user's request holds. Such a
        verdict is ``doubtful``: it concerns that user alone until another agrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import orjson

from gateway.accounts.reset import upstream_return_s
from gateway.errors import GatewayError, PassedOn, UpstreamError
from gateway.protocols.failure_forms import (
    MAX_MESSAGE_CHARS,
    FailureWords,
    stated_error,
    stated_headers,
)
from gateway.protocols.failure_table import FailureKind, FailureMeaning, meaning

Scope = Literal["client", "none", "model", "account", "network"]
Reason = Literal[
    "",
    "network",
    "failed",
    "overloaded",
    "rate_limited",
    "quota",
    "refused",
    "no_model",
]

PASSING = frozenset(("network", "failed", "overloaded"))
"""The reasons that pass by themselves, and that one request may bring about."""

SAME_PAUSE_S = (1.0, 3.0)
"""Pause before the same account again (``retry_same``): 92 of 100 accounts that gave
a 429 without a word of when to return were seen to serve again within 3 s."""


class Verdict(NamedTuple):
    """
    What a failure before the first output means.

    Attributes:
        scope: whose fault it is; "none" and "client" make no outage of an account.
        error: what the client gets when this failure is the last word.
        reason: its backoff policy; "" where it makes no outage.
        switch: another account may serve the request.
        retry_same: if no other account is free, the same one after ``SAME_PAUSE_S``.
        until_s: seconds until the account returns, by the upstream's own time.
        doubtful: the request of this one user may have brought it about.
        pass_on: with no account left, the client gets the upstream's own answer.
        drop_reasoning: repeat once on the same account, without foreign reasoning.
    """

    scope: Scope
    error: GatewayError
    reason: Reason = ""
    switch: bool = False
    retry_same: bool = False
    until_s: float | None = None
    doubtful: bool = False
    pass_on: bool = False
    drop_reasoning: bool = False

    @property
    def may_be_request(self) -> bool:
        """Whether this one request may have brought it about, and others are served."""
        return self.reason in PASSING and self.error.code != "upstream_connect"


class Row(NamedTuple):
    """What a status says by itself: whose fault, the code, the reason."""

    scope: Scope
    code: str = ""
    reason: Reason = ""


_PASS = Row("client")
_BROKEN = Row("account", "upstream_status", "failed")

STATUSES: dict[int, Row] = {
    # 400, 404, 413, 415, 422, 424 and every other 4xx: the same request fails the
    # same way elsewhere.
    401: Row("account", "upstream_refused", "refused"),  # our key
    402: Row("account", "upstream_quota", "quota"),  # our money
    403: Row("account", "upstream_refused", "refused"),  # our permission
    # The gateway chose method, path and transport; not the client's doing.
    405: _BROKEN,
    407: _BROKEN,
    421: Row("network", "upstream_status", "network"),
    425: Row("network", "upstream_status", "network"),
    426: _BROKEN,
    # It gave up reading what we wrote: the way there was slow.
    408: Row("network", "upstream_timeout", "network"),
    # A lock inside that account; another account has none. SDKs retry it themselves,
    # so with no account left it goes to the client as it is.
    409: Row("none"),
    429: Row("account", "upstream_rate_limited", "rate_limited"),
    451: Row("account", "upstream_refused", "failed"),  # its region
    # A proxy on the way says that we hung up, and we did not.
    499: Row("network", "upstream_reset", "network"),
    529: Row("account", "upstream_overloaded", "overloaded"),
}

_KINDS: dict[FailureKind, Row] = {
    FailureKind.OVERLOADED: Row("account", "upstream_overloaded", "overloaded"),
    FailureKind.RATE_LIMITED: Row("account", "upstream_rate_limited", "rate_limited"),
    FailureKind.QUOTA: Row("account", "upstream_quota", "quota"),
    FailureKind.REFUSED: Row("account", "upstream_refused", "refused"),
    FailureKind.FAILED: Row("account", "upstream_failed", "failed"),
    FailureKind.NO_MODEL: Row("model", "model_not_found", "no_model"),
    FailureKind.FOREIGN: Row("none"),
    FailureKind.CLIENT: _PASS,
}

_TRANSPORT: dict[str, Row] = {
    "upstream_connect": Row("network", "", "network"),
    "upstream_reset": Row("network", "", "network"),
    "upstream_timeout": Row("network", "", "network"),
    "upstream_idle": Row("network", "", "network"),
    "upstream_cut": Row("account", "", "failed"),
    "upstream_empty": Row("account", "", "failed"),
    "upstream_malformed": Row("account", "", "failed"),
    # The answer to this one request; the account is well.
    "upstream_too_large": Row("none"),
}


def row_of(status: int) -> Row:
    """The row of *status*; a 3xx would carry our key elsewhere, so it is a failure."""
    return STATUSES.get(status) or (_PASS if 400 <= status < 500 else _BROKEN)


def judge_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now_unix: float,
    model: str = "",
    *,
    same_protocol: bool = True,
) -> Verdict:
    """
    Judge an answer whose HTTP status is not 200.

    Args:
        headers: the answer's, in any case.
        body: the answer's; empty if it could not be read.
        now_unix: Unix seconds, for reset times.
        model: the name that was sent upstream.
        same_protocol: the client speaks it too, and can be given *body* as it is.
    """
    data = _json(body)
    stated = stated_error(data) or FailureWords()
    row = row_of(status)
    if row.scope == "client" and body.lstrip()[:1] == b"<":
        row = _BROKEN  # a web page: no API is at the account's address
    elif row.reason == "refused" and body.lstrip()[:1] == b"<":
        row = row._replace(reason="failed")  # a guard before the API, not our key
    elif row.scope == "client" and stated.status:
        row = row_of(stated.status)
    # Words that are no JSON are weighed too, and not passed on.
    row = _bettered(
        row, meaning(stated if data else FailureWords(message=_plain(body)))
    )
    raw = body if data and same_protocol else b""
    return _Case(stated, status, now_unix, model, raw).verdict(row, headers)


def judge_event(data: object, now_unix: float, model: str = "") -> Verdict:
    """
    Judge a failure inside a 200 answer: an event's or a body's JSON.

    JSON that states no failure, where a stream should be, is ``upstream_malformed``.
    """
    stated = stated_error(data)
    if stated is None:
        return judge_transport(UpstreamError("upstream_malformed"))
    said = meaning(stated)
    row = _KINDS[said.kind]
    if not said.sure and stated.status:
        row = _bettered(row_of(stated.status), said)
    headers = stated_headers(data)
    return _Case(stated, stated.status, now_unix, model, b"").verdict(row, headers)


def judge_transport(error: UpstreamError) -> Verdict:
    """Judge a failure of the connection or of the stream's form."""
    row = _TRANSPORT.get(error.code, _BROKEN)
    switch = row.scope != "none"
    return Verdict(row.scope, error, row.reason, switch=switch)


def _bettered(row: Row, said: FailureMeaning) -> Row:
    """*row* of a status, with what the body's strong words add."""
    if not said.sure:
        return row
    better = _KINDS[said.kind]
    if said.kind in (FailureKind.CLIENT, FailureKind.FOREIGN):
        # Also inside a 403 or 5xx: else a client could talk an account out of work.
        # Not for our key, our money or a limit.
        keep = row.reason in ("quota", "rate_limited") or row is STATUSES[401]
        return row if keep else better
    if said.kind is FailureKind.NO_MODEL:
        return row if row.reason in ("quota", "rate_limited") else better
    if row.scope in ("client", "none"):
        return better
    if row.reason == "refused" and said.kind is not FailureKind.QUOTA:
        return row
    if row is STATUSES[429] and said.kind not in (
        FailureKind.QUOTA,
        FailureKind.OVERLOADED,
    ):
        return row
    if said.kind is FailureKind.OVERLOADED and row.code == "upstream_status":
        return better
    return row._replace(reason=better.reason)


class _Case(NamedTuple):
    """One failure, read."""

    stated: FailureWords
    status: int  # 0 inside a stream
    now_unix: float
    model: str
    raw: bytes

    def verdict(self, row: Row, headers: Mapping[str, str]) -> Verdict:
        stated = self.stated
        if row.scope in ("client", "none") or row.reason == "no_model":
            return self._passed_on(row)
        limited = row.reason in ("rate_limited", "quota", "overloaded")
        until_s = upstream_return_s(
            headers, stated.fields, stated.message, self.now_unix, limited=limited
        )
        error = UpstreamError(
            row.code,
            detail=self._detail(),
            retry_after_s=until_s,
            upstream_status=self.status,
        )
        if not self._is_the_operators(row):
            error.words = stated.message
        return Verdict(
            self._scope(row),
            error,
            row.reason,
            switch=True,
            retry_same=row.reason == "rate_limited" and until_s is None,
            until_s=until_s,
            doubtful=self._doubtful(row),
        )

    def _passed_on(self, row: Row) -> Verdict:
        stated, status = self.stated, self.status
        if status in (0, 401, 403) or status >= 500:  # never the client's
            status = 404 if row.reason == "no_model" else 400
        error = PassedOn(
            stated.message,
            status=status,
            kind=stated.type,
            client_code=stated.code,
            param=stated.param,
            raw=self.raw,
        )
        error.detail = f"{self.status} {stated.code or stated.type}"
        return Verdict(
            row.scope,
            error,
            row.reason,
            switch=row.reason == "no_model" or self.status == 409,
            pass_on=True,
            drop_reasoning=meaning(stated).kind is FailureKind.FOREIGN,
        )

    def _doubtful(self, row: Row) -> bool:
        """Also a guard before the API, which refuses what a prompt quotes."""
        guarded = self.status in (401, 403) and row.reason == "failed"
        return row.reason == "refused" or guarded

    def _scope(self, row: Row) -> Scope:
        """A limit or an overload of one model leaves the account's others alone."""
        said = self.stated.message
        if row.scope != "account":
            return row.scope
        if row.reason in ("rate_limited", "overloaded") and self.model:
            if self.model.lower() in said.lower():
                return "model"
        one_model = {"server_is_overloaded", "model_overloaded"} & {
            self.stated.code,
            self.stated.type,
        }
        if row.reason == "overloaded" and (one_model or "model" in said.lower()):
            return "model"
        return "account"

    def _is_the_operators(self, row: Row) -> bool:
        """Whether it is about the account itself: its key, its money, its rights."""
        return (
            row.reason in ("refused", "quota")
            or row.code in ("upstream_refused", "upstream_quota")
            or self.status in (401, 402, 403, 407)
        )

    def _detail(self) -> str:
        stated = self.stated
        said = stated.code or stated.type or "no code"
        return f"{self.status or 'in stream'} {said}: {stated.message}"


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _plain(body: bytes) -> str:
    """The words of a *body* that is no JSON."""
    return body[:MAX_MESSAGE_CHARS].decode("utf-8", "replace").strip()
