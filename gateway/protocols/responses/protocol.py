"""
The wire format of OpenAI Responses: events, endings and error bodies.

Source: the OpenAI API reference (Responses streaming events), and the observed
behaviour of Codex CLI 0.169.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import orjson

from gateway.errors import GatewayError, UpstreamError
from gateway.protocols.failure_forms import may_be_failure
from gateway.protocols.json_access import objects, read_object, sub
from gateway.protocols.openai_errors import (
    openai_error,
    openai_error_body,
    openai_error_status,
)
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
    response_id_of,
)
from gateway.protocols.reasoning_proofs import ReasoningProofs
from gateway.protocols.responses import proofs as request_proofs
from gateway.protocols.responses.items import COMPACTIONS
from gateway.protocols.sse import Needle, field, payload
from gateway.protocols.stop_reasons import broken_off, stop_of, unknown
from gateway.protocols.stray_failures import STRAYS, stray
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.usage_fields import read_usage

name = "responses"
path = "/responses"
model_paths: tuple[str, ...] = (path, "/responses/compact")
path_mark = path
vendor_dialect = "openai"
credential = "bearer"
required_headers: Mapping[str, str] = {}
id_header = ""
keeps_responses = True
has_websocket = True
known_servers: Mapping[str, str] = {"api.openai.com": "/v1", "openrouter.ai": "/api/v1"}
proofs: ReasoningProofs | None = request_proofs
needles: tuple[Needle, ...] = (
    re.compile(rb"response\.(?:completed|failed|incomplete|cancelled)"),
    re.compile(rb'"error"'),
    *STRAYS,
)
proof_needle: Needle | None = re.compile(rb"encrypted_content")
last_word = b""
error_body = openai_error_body
error_status = openai_error_status

_TERMINALS = {
    "response.completed": "ok",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "failed",
}
_TERMINAL_NAMES = frozenset(map(str.encode, _TERMINALS))
_FAILED = ("failed", "cancelled", "canceled")
_UNFINISHED = ("queued", "in_progress", *_FAILED)
_STATUSES = ("completed", "incomplete", *_UNFINISHED)
_LIFECYCLE = ("response.created", "response.in_progress", "response.queued")
# They open something without content: the answer loses nothing while they wait.
_OPENERS = ("response.content_part.added", "response.reasoning_summary_part.added")
_TEXT_ENDS = ("response.output_text.done", "response.content_part.done")
_EMPTY_ITEMS = ("message", "reasoning")
_PING_KEYS = {"type", "sequence_number"}  # an event without other keys is a ping
BOUND_ITEMS = ("reasoning", *COMPACTIONS)
"""The types of items that only their maker can read."""
_ITEM_ADDED = "response.output_item.added"
_METADATA = "response.metadata"  # headers, from a server that speaks websocket
# What comes between the type and the response object of a lifecycle event.
_BEFORE_RESPONSE = re.compile(
    rb', ?(?:"sequence_number": ?\d{1,9}, ?)?"response": ?(?=\{)'
)
MAX_HELD_BYTES = 65536  # of an error event that waits for its failure event
# The same, up to the type of an item without content.
_EMPTY_ITEM = re.compile(
    rb', ?(?:"sequence_number": ?\d+, ?)?"output_index": ?\d+, ?'
    rb'"item": ?\{"id": ?"[\w.-]*", ?"type": ?"(?:message|reasoning)"'
)


def _heads(*kinds: str) -> dict[bytes, tuple[str, int]]:
    """
    The bytes of events of these *kinds* up to the first comma, in all usual forms.

    Each maps to the kind and to the offset of the JSON, so that the reader knows the
    event without parsing it.
    """
    return {
        f'{line}data: {{"type":{blank}"{kind}"'.encode(): (kind, len(line) + 6)
        for kind in kinds
        for line in ("", f"event: {kind}\n")
        for blank in ("", " ")
    }


_UNKNOWN = "", 0
_HEADS = _heads(
    *_TERMINALS, *_LIFECYCLE, *_OPENERS, _ITEM_ADDED, "response.output_text.delta"
)

PLAIN_KINDS = (
    "response.output_text.delta",
    "response.function_call_arguments.delta",
    "response.reasoning_summary_text.delta",
    "response.custom_tool_call_input.delta",
    "response.reasoning_text.delta",
)
plain_heads: tuple[bytes, ...] = tuple(_heads(*PLAIN_KINDS))


class ResponsesFacts(StreamFacts):
    """
    Attributes:
        failure, failure_event: of the last ``error`` event, which a failure event
            should follow.
        lifecycle: the response object of the last lifecycle event, as bytes. The next
            one mostly repeats it, often by tens of kilobytes, and is not parsed then.
    """

    __slots__ = ("failure", "failure_event", "lifecycle")

    def __init__(self) -> None:
        super().__init__()
        self.failure: UpstreamError | None = None
        self.failure_event: dict[str, Any] | None = None
        self.lifecycle = b""


new_facts = ResponsesFacts


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


def read(event: bytes, facts: ResponsesFacts) -> Step:
    """See ``WireProtocol.read``."""
    comma = event.find(b",")
    known, start = _HEADS.get(event[:comma], _UNKNOWN)
    if known in _LIFECYCLE and _repeats(event, comma, facts):
        return NEUTRAL
    if known in _OPENERS or known == _ITEM_ADDED and _EMPTY_ITEM.match(event, comma):
        facts.lifecycle = b""
        facts.thinks = facts.thinks or b'"reasoning"' in event
        return NEUTRAL
    data = _document(event, start)
    kind = data.get("type")
    if kind != known:
        if not isinstance(kind, str) or kind != "error" and may_be_failure(kind):
            return _read_foreign(event, data, facts)
    if kind in _TERMINALS:
        return _read_terminal(data, kind, facts)
    if kind in _LIFECYCLE:
        _note(sub(data, "response"), facts)
        return NEUTRAL
    facts.lifecycle = b""
    if kind == "error":
        return _read_error(event, data, facts)
    if not kind.startswith("response.") or data.keys() <= _PING_KEYS:
        return IDLE  # "keepalive", or something like it
    if kind in _OPENERS or kind == _METADATA:
        return NEUTRAL
    item = sub(data, "item")
    if kind == _ITEM_ADDED:
        facts.thinks = facts.thinks or item.get("type") in BOUND_ITEMS
        if item.get("type") in _EMPTY_ITEMS:
            return NEUTRAL
    elif item:
        facts.note_proof(item.get("encrypted_content"))
    if kind == "response.output_text.delta":
        facts.say(str(data.get("delta") or ""))
    elif not (kind in _TEXT_ENDS or item.get("type") == "message"):
        facts.certain = True
    return OUTPUT


def _document(event: bytes, start: int) -> dict[str, Any]:
    """The object of an *event*, which begins at *start* if that is known."""
    if start:
        try:
            document: dict[str, Any] = orjson.loads(event[start:])
            return document
        except orjson.JSONDecodeError:
            pass  # more lines follow
    return read_object(payload(event))


def _repeats(event: bytes, comma: int, facts: ResponsesFacts) -> bool:
    """Whether a lifecycle *event* holds the response object of the one before."""
    before = _BEFORE_RESPONSE.match(event, comma)
    if before is None:
        return False
    response = event[before.end() :]
    if response == facts.lifecycle:
        return True
    facts.lifecycle = response
    return False


def _read_foreign(event: bytes, data: dict[str, Any], facts: ResponsesFacts) -> Step:
    """Take an event that is not in the protocol's form: a failure, or nothing."""
    if failure := stray(event, payload(event), data):
        return _read_error(event, failure, facts)
    # A terminal in name alone is left out: the answer has yet to end.
    return HIDDEN if field(event, b"event") in _TERMINAL_NAMES else IDLE


def _read_terminal(data: dict[str, Any], kind: str, facts: ResponsesFacts) -> Step:
    response = sub(data, "response")
    _note_whole(response, facts)
    facts.terminal = data
    return FAIL if outcome(response, kind) == "failed" else END


def _read_error(event: bytes, data: dict[str, Any], facts: ResponsesFacts) -> Step:
    """
    Hold an ``error`` event back.

    A ``response.failed`` should follow; only the two together are an ending. Of
    several the last counts.
    """
    facts.failure = UpstreamError("upstream_failed", detail=_failure_detail(data))
    facts.failure_event = data
    facts.held = event if len(event) <= MAX_HELD_BYTES else b""
    return HIDDEN


def ending(facts: StreamFacts) -> Ending:
    """See ``WireProtocol.ending``."""
    return _ending(facts.terminal, facts)


def ending_without_terminal(facts: ResponsesFacts) -> Ending | None:
    """See ``WireProtocol.ending_without_terminal``; an ``error`` event is a failure."""
    if facts.failure is None:
        return None
    return Ending("failed", facts.failure, facts.failure_event)


def is_own_failure(event: bytes) -> bool:
    """See ``WireProtocol.is_own_failure``; only lifecycle events end a stream."""
    return True


def is_answer(body: object) -> TypeGuard[dict[str, Any]]:
    """See ``WireProtocol.is_answer``; a failed response is one, and says so."""
    if not isinstance(body, dict):
        return False
    if body.get("object") == "response" and body.get("status") in _UNFINISHED:
        return True
    return isinstance(body.get("output"), list) and not body.get("error")


def read_body(body: dict[str, Any], facts: StreamFacts) -> Ending:
    """See ``WireProtocol.read_body``."""
    _note_whole(body, facts)
    failed = body.get("status") in _FAILED
    return _ending(
        {"type": "response.failed" if failed else "", "response": body}, facts
    )


def _ending(data: dict[str, Any], facts: StreamFacts) -> Ending:
    response, kind = sub(data, "response"), str(data.get("type"))
    facts.unknown_stop = unknown_stop(response)
    result = outcome(response, kind)
    if result != "failed":
        return Ending(result)
    why = stop_reason(response)
    if stop_of(why) == "broken" and not response.get("error"):
        return Ending("failed", broken_off(why))
    return Ending(
        "failed", UpstreamError("upstream_failed", detail=_failure_detail(data)), data
    )


def outcome(response: dict[str, Any], kind: str = "") -> str:
    """
    The outcome of a *response*: "ok", "incomplete" or "failed".

    Args:
        kind: the type of its terminal event, if it has one; the worse of the two
            counts.
    """
    by_kind, status = _TERMINALS.get(kind, "ok"), response.get("status")
    if by_kind == "ok" and _is_complete(response):
        return "ok"
    if by_kind == "failed" or status in _FAILED:
        return "failed"
    if stop_of(stop_reason(response)) == "broken":
        return "failed"
    return "incomplete" if "incomplete" in (by_kind, status) else "ok"


def _is_complete(response: dict[str, Any]) -> bool:
    """Whether *response* says that it is, and nothing else."""
    return response.get("status") == "completed" and not response.get(
        "incomplete_details"
    )


def stop_reason(response: dict[str, Any]) -> str:
    """The upstream's own reason why a *response* is incomplete; "" without one."""
    reason = sub(response, "incomplete_details").get("reason")
    return reason if isinstance(reason, str) else ""


def unknown_stop(response: dict[str, Any]) -> str:
    """The unknown status or stop reason of a *response*, for the log; "" if known."""
    if _is_complete(response):
        return ""
    status = response.get("status")
    strange = unknown(status) if status not in _STATUSES else ""
    return unknown(stop_reason(response)) or strange


def failure_frame(
    error: GatewayError, request_id: str, facts: StreamFacts, model: str
) -> bytes:
    """See ``WireProtocol.failure_frame``; it has no sequence number."""
    fields = openai_error(error, request_id)
    response: dict[str, Any] = {
        "id": facts.response_id or response_id_of(request_id),
        "object": "response",
    }
    if facts.created_at is not None:
        response["created_at"] = facts.created_at
    if facts.model or model:
        response["model"] = facts.model or model
    reason: dict[str, Any] = {"code": fields["code"], "message": fields["message"]}
    if error.retry_after_s is not None:
        reason["headers"] = {"retry-after": str(error.retry_after_s)}
    response |= {"status": "failed", "output": [], "error": reason}
    data = {"type": "response.failed", "response": response, "error": fields}
    return b"event: response.failed\ndata: " + orjson.dumps(data) + b"\n\n"


def _note(response: dict[str, Any], facts: StreamFacts) -> None:
    """Store the id, model, time and usage of a ``response`` object."""
    if isinstance(ident := response.get("id"), str) and not facts.response_id:
        facts.response_id = ident
    if isinstance(model := response.get("model"), str) and model:
        facts.model = model
    if isinstance(created := response.get("created_at"), (int, float)):
        facts.created_at = int(created)
    if isinstance(usage := response.get("usage"), dict):
        read_usage(usage, facts.usage)


def _note_whole(response: dict[str, Any], facts: StreamFacts) -> None:
    """Store what a finished ``response`` object says, and its proofs."""
    _note(response, facts)
    if not facts.proofs:  # else each came in an event of its own
        for item in objects(response.get("output")):
            facts.note_proof(item.get("encrypted_content"))


def _failure_detail(data: dict[str, Any]) -> str:
    """The code and message of the upstream's failure, for the log."""
    error = sub(sub(data, "response"), "error") or sub(data, "error") or data
    return f"{error.get('code') or error.get('type')}: {error.get('message')}"[:500]
