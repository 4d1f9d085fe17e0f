"""
The bytes of Anthropic Messages: what an event means, endings, error bodies.

Source: the Anthropic API reference (streaming messages), and what its SDKs and
Claude Code 2.1 were seen to read: an error without ``event: error`` is lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import orjson

from gateway.errors import GatewayError, UpstreamError
from gateway.protocols.json_access import objects, read_object, sub
from gateway.protocols.messages import proofs as request_proofs
from gateway.protocols.messages.proofs import THINKING
from gateway.protocols.options import OptionsOf
from gateway.protocols.protocol import (
    END,
    FAIL,
    HIDDEN,
    IDLE,
    NEUTRAL,
    OUTPUT,
    Ending,
    Step,
)
from gateway.protocols.reasoning_proofs import ReasoningProofs
from gateway.protocols.sse import Needle, field, payload
from gateway.protocols.stop_reasons import CUT, broken_off, stop_of, unknown
from gateway.protocols.stray_failures import STRAYS, stray
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.usage_fields import cached_in
from gateway.usage import Usage, count

name = "messages"
path = "/messages"
model_paths: tuple[str, ...] = (path,)
path_mark = path
vendor_dialect = "anthropic"
credential = "x-api-key"
required_headers: Mapping[str, str] = {"anthropic-version": "2023-06-01"}
id_header = "request-id"
keeps_responses = False
has_websocket = False
known_servers: Mapping[str, str] = {
    "api.anthropic.com": "/v1",
    "openrouter.ai": "/api/v1",
}
proofs: ReasoningProofs | None = request_proofs
needles: tuple[Needle, ...] = (
    re.compile(rb"message_(?:delta|stop)"),
    re.compile(rb'"error"'),
    *STRAYS,
)
# A delta may also be a proof.
plain_heads: tuple[bytes, ...] = tuple(
    b'event: content_block_delta\ndata: {"type":"content_block_delta",'
    b'"index":%d,"delta":{"type":"%b"' % (index, kind)
    for index in range(4)  # of most answers
    for kind in (b"text_delta", b"input_json_delta", b"thinking_delta")
)
proof_needle: Needle | None = re.compile(rb"signature_delta")
new_facts = StreamFacts
last_word = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

OVERLOADED = 529
# What Anthropic calls a client's mistake; another vendor's is known by its status.
_CLIENTS_TYPES = frozenset(
    "invalid_request_error authentication_error permission_error not_found_error "
    "request_too_large conflict_error billing_error rate_limit_error".split()
)
_NOT_THEIRS = ("", "upstream_error", "server_error")
# The end of a process, or of a request by its operator, is the same word everywhere.
_ENDED_ON_PURPOSE = ("draining", "gateway_shutdown", "ended_by_operator")
_TYPE_OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
}
_EMPTY_BLOCKS = ("text", "thinking")


def path_of(model: str, stream: bool) -> str:
    """See ``WireProtocol.path_of``."""
    return path


def is_misshapen(document: dict[str, Any]) -> bool:
    """See ``WireProtocol.is_misshapen``."""
    return False


def fitted(
    document: dict[str, Any], model: str, options_of: OptionsOf
) -> dict[str, Any]:
    """See ``WireProtocol.fitted``."""
    return document


def asking_for_usage(body: bytes, document: dict[str, Any]) -> bytes:
    """See ``WireProtocol.asking_for_usage``; streams end with it anyway."""
    return body


def read(event: bytes, facts: StreamFacts) -> Step:
    """See ``WireProtocol.read``."""
    raw = payload(event)
    data = read_object(raw)
    kind = data.get("type")
    if kind == "error":
        facts.terminal = data
        return FAIL
    if kind == "message_start":
        _note(sub(data, "message"), facts)
        return NEUTRAL
    if kind == "message_delta":
        return _read_delta(data, facts)
    if kind == "message_stop":
        facts.terminal = data
        return END
    if kind == "content_block_start":
        block = sub(data, "content_block")
        _note_proof(block, facts)
        if block.get("type") in _EMPTY_BLOCKS:
            return NEUTRAL
        facts.certain = True
        return OUTPUT
    if kind == "content_block_delta":
        delta = sub(data, "delta")
        if delta.get("type") == "text_delta":
            facts.say(str(delta.get("text") or ""))
        else:
            facts.note_proof(delta.get("signature"))
            facts.certain = True
        return OUTPUT
    if kind == "content_block_stop":
        return OUTPUT
    if failure := stray(event, raw, data):
        facts.terminal = failure
        return FAIL
    if kind is None and field(event, b"event") == b"message_stop":
        return HIDDEN  # a terminal in name alone: an ending is yet to come
    return IDLE


def ending(facts: StreamFacts) -> Ending:
    """See ``WireProtocol.ending``."""
    data = facts.terminal
    if data.get("type") == "message_stop":
        return Ending(facts.finished or "ok")
    if reason := sub(data, "delta").get("stop_reason"):
        return Ending("failed", broken_off(str(reason)))
    return Ending(
        "failed", UpstreamError("upstream_failed", detail=_failure_detail(data)), data
    )


def ending_without_terminal(facts: StreamFacts) -> Ending | None:
    """See ``WireProtocol.ending_without_terminal``."""
    return Ending(facts.finished) if facts.finished else None


def is_own_failure(event: bytes) -> bool:
    """See ``WireProtocol.is_own_failure``; a nameless failure is passed over."""
    data = read_object(payload(event))
    error = sub(data, "error")
    named = field(event, b"event") == b"error" and data.get("type") == "error"
    return named and all(isinstance(error.get(key), str) for key in ("type", "message"))


def is_answer(body: object) -> TypeGuard[dict[str, Any]]:
    """See ``WireProtocol.is_answer``."""
    if not isinstance(body, dict) or body.get("type") == "error":
        return False
    return isinstance(body.get("content"), list) and not body.get("error")


def read_body(body: dict[str, Any], facts: StreamFacts) -> Ending:
    """See ``WireProtocol.read_body``."""
    _note(body, facts)
    for block in objects(body.get("content")):
        _note_proof(block, facts)
    if stop_of(reason := body.get("stop_reason")) == "broken":
        return Ending("failed", broken_off(str(reason)))
    facts.unknown_stop = unknown(reason)
    return Ending(_outcome(reason))


def _outcome(reason: object) -> str:
    """What a stop reason makes of the answer; a refusal is one."""
    return "incomplete" if stop_of(reason) in CUT and reason != "refusal" else "ok"


def failure_frame(
    error: GatewayError, request_id: str, facts: StreamFacts, model: str
) -> bytes:
    """
    See ``WireProtocol.failure_frame``.

    The data line comes first; without the event's name every SDK drops the frame.
    """
    return b"data: " + error_body(error, request_id) + b"\nevent: error\n\n"


def error_body(error: GatewayError, request_id: str) -> bytes:
    """See ``WireProtocol.error_body``."""
    failure = {"type": _error_type(error), "message": error.sentence(request_id)}
    return orjson.dumps(
        {"type": "error", "error": {**failure, **error.facts}, "request_id": request_id}
    )


def error_status(error: GatewayError) -> int:
    """See ``WireProtocol.error_status``; 529 means overload to Messages clients."""
    return OVERLOADED if error.code == "upstream_overloaded" else error.status


def _error_type(error: GatewayError) -> str:
    """
    ``error.type`` in the words of this protocol: its clients act on them. Claude Code
    turns to its fall-back model at an ``overloaded_error``.
    """
    if error.code == "model_not_found":
        return "not_found_error"
    if error.code == "upstream_overloaded":
        return "overloaded_error"
    if error.origin == "client" and error.type not in _CLIENTS_TYPES:
        return _TYPE_OF_STATUS.get(error.status, "invalid_request_error")
    if error.code in _ENDED_ON_PURPOSE:
        return error.type
    return "api_error" if error.type in _NOT_THEIRS else error.type


def read_usage(reported: dict[str, Any], usage: Usage) -> None:
    """
    Note *reported*, the ``usage`` of a message, in *usage*.

    The counts of ``message_delta`` are cumulative and overwrite those of
    ``message_start``; what it leaves out stays. A server that reports the cached tokens
    by a name of OpenAI's protocols counts them in the input, too.
    """
    read = count(reported.get("cache_read_input_tokens"))
    written = count(reported.get("cache_creation_input_tokens"))
    fresh = count(reported.get("input_tokens"))
    if read is None and (shared := cached_in(reported)) is not None:
        read = shared
        fresh = None if fresh is None else max(0, fresh - shared)
    if read is None:
        read = usage.cached_tokens
    if written is None:
        written = usage.cache_write_tokens
    if fresh is None and usage.input_tokens is not None:
        before = (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0)
        fresh = usage.input_tokens - before
    usage.cached_tokens, usage.cache_write_tokens = read, written
    if fresh is not None:
        usage.input_tokens = fresh + (read or 0) + (written or 0)
    hour = count(sub(reported, "cache_creation").get("ephemeral_1h_input_tokens"))
    if hour is not None:
        usage.cache_write_1h_tokens = hour
    output = count(reported.get("output_tokens"))
    if output is not None:
        usage.output_tokens = output
    thinking = count(sub(reported, "output_tokens_details").get("thinking_tokens"))
    if thinking is not None:
        usage.reasoning_tokens = thinking


def _note(message: dict[str, Any], facts: StreamFacts) -> None:
    if isinstance(ident := message.get("id"), str) and not facts.response_id:
        facts.response_id = ident
    if isinstance(model := message.get("model"), str) and model:
        facts.model = model
    read_usage(sub(message, "usage"), facts.usage)
    if not message.get("stop_reason"):
        facts.usage.output_tokens = None  # of a stream's start: nothing is said yet


def _note_proof(block: dict[str, Any], facts: StreamFacts) -> None:
    """Note what binds a content *block* to its maker, if it is reasoning."""
    if block.get("type") in THINKING:
        facts.thinks = True
        facts.note_proof(block.get("signature") or block.get("data"))


def _read_delta(data: dict[str, Any], facts: StreamFacts) -> Step:
    """Read a ``message_delta``: usage, and why the answer stops."""
    read_usage(sub(data, "usage"), facts.usage)
    reason = sub(data, "delta").get("stop_reason")
    if stop_of(reason) == "broken":
        facts.terminal = data
        return FAIL
    if reason:
        facts.finished = _outcome(reason)
        facts.unknown_stop = unknown(reason)
    return OUTPUT


def _failure_detail(data: dict[str, Any]) -> str:
    error = sub(data, "error")
    return f"{error.get('type')}: {error.get('message')}"[:500]
