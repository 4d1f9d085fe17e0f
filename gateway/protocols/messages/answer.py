"""
The ``message`` object: its blocks, its stop, its usage, and the whole of it.

Source: the Anthropic API reference and its OpenAPI document (required keys).
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.call_arguments import object_text
from gateway.protocols.codec import AnswerSettings
from gateway.protocols.event_json import joined
from gateway.protocols.events import (
    ArgsDelta,
    CallOpen,
    Event,
    Finish,
    ItemOpen,
    ReasoningDelta,
    RefusalDelta,
    SearchFound,
    Signature,
    TextDelta,
)
from gateway.protocols.messages.conversation import openai_signature
from gateway.protocols.tool_carrier import as_object
from gateway.usage import Usage

_REASONS = {
    "length": "max_tokens",
    "context": "model_context_window_exceeded",
    "filter": "refusal",
    "sequence": "stop_sequence",
}
_TIERS = {"priority": "priority", "flex": "batch"}
CHARACTERS_PER_TOKEN = 4
"""Of the estimate that is used where the upstream reports no usage."""


class MessageStop:
    """
    Why the answer ended, in Messages' words.

    Attributes:
        text: the words of a refusal that are an answer, to be written as a text.
    """

    def __init__(self, finish: Finish, *, called: bool, refused: str) -> None:
        reason = _REASONS.get(finish.reason, "")
        filtered = reason == "refusal"
        self.text = "" if filtered else refused
        if not reason:
            reason = "refusal" if refused else "end_turn"
            if called:
                reason = "tool_use"
        self._reason = reason
        self._sequence = finish.sequence if reason == "stop_sequence" else None
        self._explanation = (refused or None) if filtered else None

    def members(self) -> dict[str, Any]:
        """``stop_reason``, ``stop_sequence`` and ``stop_details``."""
        details = None
        if self._reason == "refusal":
            details = {
                "type": "refusal",
                "category": None,
                "explanation": self._explanation,
            }
        return {
            "stop_reason": self._reason,
            "stop_sequence": self._sequence,
            "stop_details": details,
        }


def message(
    id: str, model: str, content: list[dict[str, Any]], usage: dict[str, Any]
) -> dict[str, Any]:
    """A ``message`` that has not stopped yet."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": usage,
    }


def call_block(call: CallOpen, given: dict[str, Any]) -> dict[str, Any]:
    """A ``tool_use`` block."""
    return {
        "type": "tool_use",
        "id": call.call_id,
        "name": call.name,
        "input": given,
        "caller": {"type": "direct"},
    }


def search_blocks(
    event: SearchFound, seed: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A web search that the upstream ran: the call, and what it found."""
    id = f"srvtoolu_{seed}{event.key:02x}"
    content: Any = [
        {
            "type": "web_search_result",
            "url": url,
            "title": title or url,
            "encrypted_content": "",
            "page_age": None,
        }
        for url, title in event.pages
    ]
    if event.status == "failed":
        content = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    called = {
        "type": "server_tool_use",
        "id": id,
        "name": "web_search",
        "input": {"query": event.query},
        "caller": {"type": "direct"},
    }
    result = {
        "type": "web_search_tool_result",
        "tool_use_id": id,
        "content": content,
        "caller": {"type": "direct"},
    }
    return called, result


def signature_of(proof: Signature) -> str:
    """The signature that brings the proof back on the next turn."""
    if proof.form == "blob":
        return openai_signature(proof.id, proof.value)
    return proof.value


# ---------------------------------------------------------------- usage


def start_usage(input_tokens: int) -> dict[str, Any]:
    """The usage of ``message_start``: an estimate, corrected at the end."""
    return {
        "input_tokens": max(1, input_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 0,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens_details": None,
        "server_tool_use": None,
        "inference_geo": None,
        "service_tier": "standard",
    }


def delta_usage(
    usage: Usage, input_tokens: int, characters: int, searches: int
) -> dict[str, Any]:
    """
    The usage of ``message_delta``.

    Args:
        input_tokens: estimate of the prompt, where the upstream reports none.
        characters: of the answer, for the estimate of its tokens.
    """
    read, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    fresh = usage.input_tokens
    output = usage.output_tokens
    if output is None:
        output = max(1, characters // CHARACTERS_PER_TOKEN)
    return {
        "input_tokens": (
            max(1, input_tokens) if fresh is None else max(0, fresh - read - written)
        ),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": output,
        "server_tool_use": (
            {"web_search_requests": searches, "web_fetch_requests": 0}
            if searches
            else None
        ),
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens or 0},
    }


def _body_usage(finish: Finish, counts: dict[str, Any]) -> dict[str, Any]:
    hour = finish.usage.cache_write_1h_tokens or 0
    written = counts["cache_creation_input_tokens"]
    return {
        **counts,
        "cache_creation": {
            "ephemeral_5m_input_tokens": max(0, written - hour),
            "ephemeral_1h_input_tokens": hour,
        },
        "inference_geo": None,
        "service_tier": _TIERS.get(finish.tier, "standard"),
    }


# ---------------------------------------------------------------- non-stream


def fold(events: list[Event], id: str, settings: AnswerSettings) -> dict[str, Any]:
    """The non-stream answer that *events* make up, the last one a ``Finish``."""
    folded = _MessageFold(settings)
    for event in events:
        folded.take(event)
    content = folded.content()
    refused = joined(folded.refused)
    stop = MessageStop(folded.finish, called=folded.called, refused=refused)
    if stop.text:
        content.append({"type": "text", "text": stop.text, "citations": None})
    counts = delta_usage(
        folded.finish.usage,
        settings.asked.input_tokens,
        folded.characters + len(stop.text),
        folded.searches,
    )
    usage = _body_usage(folded.finish, counts)
    return {**message(id, settings.model, content, usage), **stop.members()}


class _MessageFold:
    """The blocks that events make up, in the order in which they began."""

    def __init__(self, settings: AnswerSettings) -> None:
        self._asked = settings.asked
        self._seed = settings.seed
        self._blocks: dict[int, list[dict[str, Any]]] = {}
        self._pieces: dict[int, list[str]] = {}
        self.refused: list[str] = []
        self.called = False
        self.searches = 0
        self.finish = Finish("end", Usage())

    @property
    def characters(self) -> int:
        """How long the answer is."""
        return sum(len(piece) for pieces in self._pieces.values() for piece in pieces)

    def take(self, event: Event) -> None:
        """Add one event."""
        if isinstance(event, TextDelta | ReasoningDelta | ArgsDelta):
            self._pieces.setdefault(event.key, []).append(event.text)
        elif isinstance(event, RefusalDelta):
            self.refused.append(event.text)
        elif isinstance(event, ItemOpen):
            self._open(event)
        elif isinstance(event, CallOpen):
            self.called = True
            self._blocks[event.key] = [call_block(event, {})]
        elif isinstance(event, Signature) and event.key in self._blocks:
            self._blocks[event.key][0]["signature"] = signature_of(event)
        elif isinstance(event, SearchFound) and self._asked.web_search:
            self.searches += 1
            self._blocks[event.key] = [*search_blocks(event, self._seed)]
        elif isinstance(event, Finish):
            self.finish = event

    def _open(self, event: ItemOpen) -> None:
        if event.kind == "text":
            block = {"type": "text", "text": "", "citations": None}
            self._blocks[event.key] = [block]
        elif event.kind == "reasoning" and self._asked.thinking:
            thinking = {"type": "thinking", "thinking": "", "signature": ""}
            self._blocks[event.key] = [thinking]

    def content(self) -> list[dict[str, Any]]:
        """The blocks, filled; thinking that shows and proves nothing is left out."""
        content: list[dict[str, Any]] = []
        for key, blocks in self._blocks.items():
            text, first = joined(self._pieces.get(key, [])), blocks[0]
            if first["type"] == "text":
                first["text"] = text
            elif first["type"] == "tool_use":
                first["input"] = as_object(object_text(text))
            elif first["type"] == "thinking":
                if not text and not first["signature"]:
                    continue
                first["thinking"] = "" if self._asked.thinking_hidden else text
            content += blocks
        return content
