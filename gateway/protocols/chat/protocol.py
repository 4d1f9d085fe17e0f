"""
The bytes of OpenAI Chat Completions: what a chunk means, endings, error bodies.

Source: the OpenAI API reference (chat completion chunks), and what compatible
servers were seen to send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import orjson

from gateway.errors import GatewayError, UpstreamError
from gateway.protocols.chat import fitting
from gateway.protocols.chat.responses_shape import is_responses
from gateway.protocols.failure_forms import failure_in
from gateway.protocols.json_access import read_object, sub
from gateway.protocols.openai_errors import (
    openai_error,
    openai_error_body,
    openai_error_status,
)
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
from gateway.protocols.sse import Needle, payload
from gateway.protocols.stop_reasons import CUT, broken_off, stop_of, unknown
from gateway.protocols.stray_failures import STRAYS, stray
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.usage_fields import read_usage, usage_objects

name = "chat"
path = "/chat/completions"
model_paths: tuple[str, ...] = (path,)
path_mark = "/chat/"
vendor_dialect = "other"
credential = "bearer"
required_headers: Mapping[str, str] = {}
id_header = ""
keeps_responses = False
has_websocket = False
known_servers: Mapping[str, str] = {
    "api.openai.com": "/v1",
    "api.anthropic.com": "/v1",
    "openrouter.ai": "/api/v1",
}
proofs: ReasoningProofs | None = None
# Servers differ in the space behind the colon.
needles: tuple[Needle, ...] = (
    re.compile(rb'"(?:finish_reason": ?"|usage": ?\{|error"|index": ?1)'),
    STRAYS[0],
    # What does not begin like a chunk, [DONE] among it: behind a failure that is passed
    # over, [DONE] would make a whole answer of it.
    re.compile(
        rb'data:(?:(?! ?+\{ ?+"(?:id|object|created|model|choices)": ?+[^n])'
        rb'| ?\{ ?"object": ?"error)'
    ),
)
plain_heads: tuple[bytes, ...] = ()
proof_needle: Needle | None = None
last_word = b"data: [DONE]\n\n"
error_body = openai_error_body
error_status = openai_error_status
is_misshapen = is_responses
fitted = fitting.fitted
asking_for_usage = fitting.asking_for_usage

MAX_CHOICES = 1024  # of one answer that are followed; OpenAI gives 128 at most

_MORE = ("refusal", "reasoning_content", "reasoning", "function_call")


class ChatFacts(StreamFacts):
    """
    Attributes:
        unfinished: the choices that have begun and have no finish reason yet.
        has_output: something of an answer has come.
    """

    __slots__ = ("unfinished", "has_output")

    def __init__(self) -> None:
        super().__init__()
        self.unfinished: set[int] = set()
        self.has_output = False


new_facts = ChatFacts


def path_of(model: str, stream: bool) -> str:
    """See ``WireProtocol.path_of``."""
    return path


def read(event: bytes, facts: ChatFacts) -> Step:
    """See ``WireProtocol.read``."""
    raw = payload(event)
    if raw.strip() == b"[DONE]":
        facts.terminal = {}
        # Without any output it is no answer, only its end.
        return END if facts.finished or facts.has_output else FAIL
    chunk = read_object(raw)
    if chunk.get("error"):
        facts.terminal = chunk
        return FAIL
    if not chunk.get("choices") and (failure := stray(event, raw, chunk)):
        facts.terminal = failure
        return FAIL
    _note(chunk, facts)
    choices = chunk.get("choices")
    # Some keep a stream alive by chunks that say nothing, not even an id.
    step = NEUTRAL if choices or chunk.get("id") else IDLE
    if facts.hide_usage and choices == [] and chunk.get("usage"):
        return HIDDEN
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            if stop_of(choice.get("finish_reason")) == "broken":
                facts.terminal = chunk
                return FAIL
            if _read_choice(choice, facts):
                facts.has_output = True
                step = OUTPUT
    return step


def _read_choice(choice: dict[str, Any], facts: ChatFacts) -> bool:
    """Note how far *choice* is; whether it holds output."""
    index = choice.get("index")
    index = index if isinstance(index, int) else 0
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason:
        facts.unknown_stop = facts.unknown_stop or unknown(reason)
        facts.unfinished.discard(index)
        if not facts.unfinished:
            cut = facts.finished == "incomplete" or stop_of(reason) in CUT
            facts.finished = "incomplete" if cut else "ok"
    elif facts.finished != "incomplete":
        if len(facts.unfinished) < MAX_CHOICES:
            facts.unfinished.add(index)
        facts.finished = ""
    delta = sub(choice, "delta")
    text = delta.get("content")
    if isinstance(text, str):
        facts.say(text)
    more = delta.get("tool_calls") or any(delta.get(name) for name in _MORE)
    facts.certain = facts.certain or bool(more)
    return bool(reason or text or more)


def ending(facts: ChatFacts) -> Ending:
    """See ``WireProtocol.ending``."""
    if chunk := facts.terminal:
        return _failed(chunk)
    if not (facts.finished or facts.has_output):
        return Ending("failed", UpstreamError("upstream_empty"))
    return Ending(facts.finished or "ok")


def ending_without_terminal(facts: ChatFacts) -> Ending | None:
    """See ``WireProtocol.ending_without_terminal``."""
    return Ending(facts.finished) if facts.finished else None


def is_own_failure(event: bytes) -> bool:
    """See ``WireProtocol.is_own_failure``; beside choices, an error is passed over."""
    chunk = read_object(payload(event))
    return isinstance(chunk.get("error"), dict) and not chunk.get("choices")


def is_answer(body: object) -> TypeGuard[dict[str, Any]]:
    """See ``WireProtocol.is_answer``."""
    if not isinstance(body, dict) or body.get("error"):
        return False
    choices = body.get("choices")
    return isinstance(choices, list) and bool(choices) and failure_in(body) is None


def read_body(body: dict[str, Any], facts: StreamFacts) -> Ending:
    """See ``WireProtocol.read_body``."""
    _note(body, facts)
    reasons = _reasons(body)
    if body.get("error") or any(stop_of(reason) == "broken" for reason in reasons):
        return _failed(body)
    for reason in reasons:
        facts.unknown_stop = facts.unknown_stop or unknown(reason)
    cut = any(stop_of(reason) in CUT for reason in reasons)
    return Ending("incomplete" if cut else "ok")


def _reasons(chunk: dict[str, Any]) -> list[object]:
    """The finish reasons of a chunk or body."""
    choices = chunk.get("choices")
    return [
        choice.get("finish_reason")
        for choice in (choices if isinstance(choices, list) else ())
        if isinstance(choice, dict)
    ]


def _failed(chunk: dict[str, Any]) -> Ending:
    """The failure that a chunk or body reports, by an error or a finish reason."""
    words = [str(word) for word in _reasons(chunk) if stop_of(word) == "broken"]
    if words and not chunk.get("error"):
        return Ending("failed", broken_off(words[0]))
    error = UpstreamError("upstream_failed", detail=_failure_detail(chunk))
    return Ending("failed", error, chunk)


def failure_frame(
    error: GatewayError, request_id: str, facts: StreamFacts, model: str
) -> bytes:
    """See ``WireProtocol.failure_frame``."""
    failure = openai_error(error, request_id)
    ordered = {
        member: failure[member] for member in ("type", "message", "param", "code")
    }
    return b"event: error\ndata: " + orjson.dumps({"error": ordered}) + b"\n\n"


def _note(chunk: dict[str, Any], facts: StreamFacts) -> None:
    if isinstance(ident := chunk.get("id"), str) and not facts.response_id:
        facts.response_id = ident
    if isinstance(model := chunk.get("model"), str) and model:
        facts.model = model
    for usage in usage_objects(chunk):
        read_usage(usage, facts.usage)


def _failure_detail(chunk: dict[str, Any]) -> str:
    error = chunk.get("error")
    if not isinstance(error, dict):
        return str(error)[:500]
    return f"{error.get('code') or error.get('type')}: {error.get('message')}"[:500]
