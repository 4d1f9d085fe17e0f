"""
The headers of a request whose answer comes over a websocket.

The upgrade has the headers of the request that opened the socket. A later request uses
the socket only if its upgrade would have looked the same, but for what belongs to one
request alone. Of that, what means something to the model's server goes into the body,
where Codex has it when it speaks websocket itself.

Source: Codex CLI 0.171
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from yarl import URL

BETA = "responses_websockets=2026-02-06"

# Of the body that POST sends, of its answer's form, or of the turn.
_NOT_SENT = frozenset(("content-type", "accept", "x-codex-turn-state"))
# Sent as they are when the socket is opened.
_OF_THE_REQUEST = frozenset(
    "x-request-id x-client-request-id x-codex-turn-metadata idempotency-key "
    "traceparent tracestate baggage x-stainless-retry-count x-stainless-timeout "
    "x-stainless-read-timeout".split()
)
_TURN_STATE = "x-codex-turn-state"
_AS_METADATA_PREFIX = "x-openai-internal-"
# They say how the account stood when the socket was opened.
_OLD_PREFIXES = ("x-ratelimit-", "x-codex-", "retry-after")


class SocketHeaders(NamedTuple):
    """
    Attributes:
        upgrade: the headers of the upgrade, beside the transport's own.
        digest: the same for all requests that may share a socket.
        metadata: what goes into ``client_metadata`` instead.
    """

    upgrade: list[tuple[str, str]]
    digest: bytes
    metadata: dict[str, str]


def socket_headers(url: URL, headers: Iterable[tuple[str, str]]) -> SocketHeaders:
    """Divide the *headers* of a request to *url*."""
    upgrade, metadata, beta = [], {}, [BETA]
    compared = [str(url)]
    for name, value in headers:
        low = name.lower()
        if low == "openai-beta":
            beta.insert(0, value)
            continue
        if low == _TURN_STATE:
            metadata[low] = value
        if low.startswith(_AS_METADATA_PREFIX):
            metadata["ws_request_header_" + low.replace("-", "_")] = value
        elif low not in _NOT_SENT:
            upgrade.append((name, value))
            if low not in _OF_THE_REQUEST:
                compared.append(f"{low}:{value}")
    named = ", ".join(beta[:-1] if BETA in ", ".join(beta[:-1]) else beta)
    upgrade.append(("openai-beta", named))
    text = "\n".join([*sorted(compared), named]).encode("utf-8", "surrogateescape")
    return SocketHeaders(upgrade, blake2b(text, digest_size=16).digest(), metadata)


def is_lasting(name: str) -> bool:
    """Whether the header *name* of a 101 also holds for later answers."""
    return not name.lower().startswith(_OLD_PREFIXES)
