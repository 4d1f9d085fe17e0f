"""
Which headers cross the gateway.

Upwards everything passes but what belongs to one connection, to the body's form on the
wire, to the client's place in the network, or to the client's own account: what names a
key, or whose bill it is, is a credential, and the operator's come from the account's
``headers``. A name is judged by its words, so that a vendor's next header of the same
kind is kept back too. Downwards only the protocols' own families pass: the rest
describes the upstream's machines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config.schema import Account
from gateway.protocols.protocol import WireProtocol

_HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te "
    "trailer transfer-encoding upgrade http2-settings".split()
)
_NEVER_UP = _HOP_BY_HOP | frozenset(
    "host content-length content-encoding content-type accept-encoding expect "
    "x-request-id x-gateway-dropped".split()
)
# Whose bill it is.
_BILLING_WORDS = frozenset(
    "organization organisation organizations org orgs project projects workspace "
    "workspaces account accounts tenant customer billing subscription".split()
)
# What lets somebody in.
_CREDENTIAL_WORDS = frozenset(
    "authorization auth authentication key keys apikey token secret password passwd "
    "credential credentials cookie cookie2 jwt assertion signature".split()
)
# Where the client sits, and what it is called there. Some vendors answer a browser's
# ``origin`` with 401.
_NETWORK_WORDS = frozenset(
    "forwarded via ip ipv4 ipv6 clientip socketip addr address country origin referer "
    "from".split()
)
_KEPT_BACK_WORDS = _BILLING_WORDS | _CREDENTIAL_WORDS | _NETWORK_WORDS
# Families of clouds, and of gateways between the client and this one: signatures,
# projects, keys and routes of the client's own account there.
_NEVER_UP_PREFIXES = (
    "x-goog-",
    "x-amz-",
    "x-amzn-",
    "x-ms-",
    "x-azure-",
    "ocp-apim-",
    "helicone-",
    "x-portkey-",
    "x-litellm-",
    "cf-",
    "fastly-",
    "x-envoy-",
    "x-vercel-",
    "x-forwarded-",
    "x-gateway-",
    "proxy-",
    "sec-",
    "access-control-",
)
# Named like a credential, but it names the request alone; the SDKs send it.
_UP_NEVERTHELESS = frozenset({"idempotency-key"})
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
# Their words name the operator's accounts; a rate limit "of a project" does not.
_NEVER_DOWN_PREFIXES = ("openai-", "anthropic-", "x-openai-")
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
    if (wire := account.wire) is not None:
        for name, value in wire.required_headers.items():
            headers.setdefault(name, value)
    if account.api_key:
        name, value = _credential(account, wire)
        headers[name] = value
    if account.headers:
        headers.update(account.headers)
    return headers


@lru_cache(maxsize=512)
def _upward(name: str) -> str:
    """*name* in lower case if such a header may go up, else ""."""
    low = name.lower()
    if low in _UP_NEVERTHELESS:
        return low
    if low in _NEVER_UP or low.startswith(_NEVER_UP_PREFIXES):
        return ""
    return "" if _words(low) & _KEPT_BACK_WORDS else low


def _words(low: str) -> frozenset[str]:
    """The words of a header's name in lower case."""
    return frozenset(low.replace("_", "-").split("-"))


def _is_text(value: str) -> bool:
    if value.isascii() and value.isprintable():  # nearly all; costs no regex
        return True
    return _TEXT.fullmatch(value) is not None


def _credential(account: Account, wire: WireProtocol | None) -> tuple[str, str]:
    """The header that bears the key of *account*, which speaks *wire*."""
    name = account.auth or (wire.credential if wire else "bearer")
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
    if not (low.startswith(_DOWN_PREFIXES) or low in _DOWN):
        return ""
    names_ours = low.startswith(_NEVER_DOWN_PREFIXES) and _words(low) & _BILLING_WORDS
    return "" if names_ours else low


def upstream_request_id(upstream: Mapping[str, str] | CIMultiDictProxy[str]) -> str:
    """The upstream's own id of the request, "" if it gave none."""
    for name in ("x-request-id", "request-id", "x-oai-request-id"):
        if value := upstream.get(name):
            return value[:128]
    return ""
