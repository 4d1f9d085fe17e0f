"""
Which headers cross the gateway.

Upwards everything passes but what belongs to one connection, to the client's own
account, or to the body's form on the wire. Downwards only the protocols' own families
pass: the rest describes the upstream's machines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config import Account

_HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te "
    "trailer transfer-encoding upgrade http2-settings".split()
)
_NEVER_UP = _HOP_BY_HOP | frozenset(
    "host content-length content-encoding content-type accept-encoding expect "
    "authorization x-api-key api-key cookie x-request-id chatgpt-account-id "
    "x-gateway-dropped "
    "forwarded via x-real-ip x-forwarded-for x-forwarded-host x-forwarded-port "
    "x-forwarded-proto x-forwarded-server cf-connecting-ip true-client-ip".split()
)
_DOWN_PREFIXES = (
    "x-codex-",
    "x-openai-",
    "openai-",
    "anthropic-",
    "x-ratelimit-",
    "x-models-",
    "x-reasoning-",
)
_DOWN = frozenset({"session-id", "thread-id", "x-should-retry"})
# They name the operator's accounts.
_NEVER_DOWN = frozenset(
    "openai-organization openai-project anthropic-organization-id "
    "anthropic-workspace-id".split()
)
_TEXT = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def upwards(
    client: Mapping[str, str] | CIMultiDictProxy[str],
    account: Account,
    request_id: str,
    *,
    same_protocol: bool,
) -> CIMultiDict[str]:
    """
    The headers of an upstream request.

    Args:
        client: the client's headers.
        same_protocol: without it the client's own family means nothing to the
            upstream; only neutral headers pass.
    """
    named = client.get("Connection", "").lower()
    dropped = {name.strip() for name in named.split(",")} if named else ()
    headers: CIMultiDict[str] = CIMultiDict(
        [
            (name, value)
            for name, value in client.items()
            if (low := _upward(name)) and (same_protocol or low == "user-agent")
            if low not in dropped and _is_text(value)
        ]
    )
    headers["Content-Type"] = "application/json"
    headers["x-request-id"] = request_id
    if account.protocol == "messages" and "anthropic-version" not in headers:
        headers["anthropic-version"] = "2023-06-01"
    if account.api_key:
        name, value = _credential(account)
        headers[name] = value
    if account.headers:
        headers.update(account.headers)
    return headers


@lru_cache(maxsize=512)
def _upward(name: str) -> str:
    """*name* in lower case if such a header may go up, else ""."""
    low = name.lower()
    return "" if low in _NEVER_UP else low


def _is_text(value: str) -> bool:
    if value.isascii() and value.isprintable():  # nearly all; costs no regex
        return True
    return _TEXT.fullmatch(value) is not None


def _credential(account: Account) -> tuple[str, str]:
    """The header that bears the key of *account*."""
    name = account.auth or ("x-api-key" if account.protocol == "messages" else "bearer")
    if name == "bearer":
        return "Authorization", f"Bearer {account.api_key}"
    return name, account.api_key


def downwards(
    upstream: Mapping[str, str] | CIMultiDictProxy[str],
    *,
    same_protocol: bool,
    renamed: bool,
) -> dict[str, str]:
    """
    The headers of an upstream's answer that the client gets.

    Args:
        renamed: the upstream was asked for another model name than the client's.
            Codex takes an ``openai-model`` that differs for a flagged account.
    """
    if not same_protocol:
        return {}
    return {
        name: value
        for name, value in upstream.items()
        if (low := _downward(name)) and not (renamed and low == "openai-model")
    }


@lru_cache(maxsize=512)
def _downward(name: str) -> str:
    """*name* in lower case if such a header may come down, else ""."""
    low = name.lower()
    own = low.startswith(_DOWN_PREFIXES) or low in _DOWN
    return low if own and low not in _NEVER_DOWN else ""


def upstream_request_id(upstream: Mapping[str, str] | CIMultiDictProxy[str]) -> str:
    """The upstream's own id of the request, "" if it gave none."""
    for name in ("x-request-id", "request-id", "x-oai-request-id"):
        if value := upstream.get(name):
            return value[:128]
    return ""
