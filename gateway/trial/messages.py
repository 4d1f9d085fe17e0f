"""
The trial account's side of the Messages protocol.

Source: ``anthropic`` types (``types``), version 2.13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.trial.model import (
    TrialAnswer,
    TrialMessage,
    TrialRefusal,
    TrialRequest,
    TrialTool,
    limit,
    schema_of,
    tables,
    texts,
)

name = "messages"

# --- reading ----------------------------------------------------------------------


def read(body: dict[str, Any], counting: bool = False) -> TrialRequest:
    """
    Read *body* as a request; with *counting* it may lack ``max_tokens``.

    Raises:
        TrialRefusal: as the real API would.
    """
    if body.get("messages") is None:
        raise TrialRefusal("messages: Field required", "messages", "invalid_request")
    messages = tables(body["messages"], "messages")
    if not messages:
        problem = "messages: at least one message is required"
        raise TrialRefusal(problem, "messages", "invalid_request")
    max_words = limit(body, ["max_tokens"])
    if max_words is None and not counting:
        raise TrialRefusal(
            "max_tokens: Field required", "max_tokens", "invalid_request"
        )
    output = body.get("output_config")
    form = output.get("format") if isinstance(output, dict) else None
    request = TrialRequest(
        model=str(body.get("model", "")),
        stream=body.get("stream") is True,
        messages=[TrialMessage("other", texts(body.get("system")))],
        tools=list(_tools(body.get("tools"))),
        schema=schema_of(form, "schema"),
        max_words=max_words,
    )
    for message in messages:
        request.messages += _read_message(message)
    _choose(request, body.get("tool_choice"))
    return request


def _read_message(message: dict[str, Any]) -> Iterator[TrialMessage]:
    """The texts of a message, and after them its tool results."""
    content = message.get("content")
    said = texts(content)
    if said:
        yield TrialMessage("user" if message.get("role") == "user" else "other", said)
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_result":
            yield TrialMessage("tool", texts(block.get("content")))


def _tools(given: object) -> Iterator[TrialTool]:
    """The tools with a schema; a real upstream runs the others, or defines them."""
    for tool in given if isinstance(given, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("input_schema"), dict):
            yield TrialTool("function", str(tool.get("name", "")), tool["input_schema"])


def _choose(request: TrialRequest, choice: object) -> None:
    if not isinstance(choice, dict):
        return
    if choice.get("type") == "none":
        request.choice = "none"
    elif choice.get("type") in ("any", "tool"):
        request.choice = "required"
        request.wanted = str(choice.get("name", ""))


# --- writing ----------------------------------------------------------------------


class MessagesTrialWriter:
    """
    One answer in the form of this protocol.

    Args:
        now_unix: not used: the protocol has no creation time.
        ident: letters and digits, the stem of its ids.
    """

    def __init__(
        self, body: dict[str, Any], request: TrialRequest, now_unix: int, ident: str
    ) -> None:
        self._request = request
        self._ident = ident

    def stream(self, answer: TrialAnswer) -> Iterator[bytes]:
        """Every event of the answer, in order, framed."""
        yield _event("message_start", message=self._message([], None, 0))
        yield _event("ping")
        index = 0
        if answer.pieces:
            yield from self._text(answer, index)
            index += 1
        if answer.call:
            yield from self._call(answer, index)
        usage = {
            "input_tokens": self._request.input_words,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": answer.words,
            "server_tool_use": None,
            "output_tokens_details": {"thinking_tokens": 0},
        }
        delta = {
            "stop_reason": _stop_reason(answer),
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
        }
        yield _event("message_delta", delta=delta, usage=usage)
        yield _event("message_stop")

    def body(self, answer: TrialAnswer) -> dict[str, Any]:
        """The whole answer as one object."""
        content: list[dict[str, Any]] = []
        if answer.pieces:
            content.append({"type": "text", "text": answer.text, "citations": None})
        if answer.call:
            arguments = orjson.loads(answer.call.arguments)
            content.append(self._block(answer, arguments))
        return self._message(content, _stop_reason(answer), answer.words)

    def _text(self, answer: TrialAnswer, index: int) -> Iterator[bytes]:
        block = {"type": "text", "text": "", "citations": None}
        yield _event("content_block_start", index=index, content_block=block)
        for piece in answer.pieces:
            delta = {"type": "text_delta", "text": piece}
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)

    def _call(self, answer: TrialAnswer, index: int) -> Iterator[bytes]:
        text = answer.call.arguments if answer.call else ""
        middle = (len(text) + 1) // 2
        block = self._block(answer, {})
        yield _event("content_block_start", index=index, content_block=block)
        for piece in ("", text[:middle], text[middle:]):
            delta = {"type": "input_json_delta", "partial_json": piece}
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)

    def _block(self, answer: TrialAnswer, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "tool_use",
            "id": f"toolu_{self._ident}",
            "name": answer.call.tool.name if answer.call else "",
            "input": arguments,
            "caller": {"type": "direct"},
        }

    def _message(
        self, content: list[dict[str, Any]], stop_reason: str | None, words: int
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{self._ident}",
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": {
                "input_tokens": self._request.input_words,
                "output_tokens": words,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 0,
                    "ephemeral_1h_input_tokens": 0,
                },
                "output_tokens_details": None,
                "server_tool_use": None,
                "service_tier": "standard",
                "inference_geo": None,
            },
        }


def _stop_reason(answer: TrialAnswer) -> str:
    if answer.call:
        return "tool_use"
    return "max_tokens" if answer.cut else "end_turn"


def _event(type_: str, **fields: object) -> bytes:
    data = orjson.dumps({"type": type_, **fields})
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), data)


def error_body(refused: TrialRefusal, request_id: str) -> dict[str, Any]:
    """The error of this protocol."""
    kind = "not_found_error" if refused.status == 404 else "invalid_request_error"
    return {
        "type": "error",
        "error": {"type": kind, "message": refused.message},
        "request_id": request_id,
    }


writer = MessagesTrialWriter
