"""
The trial account's side of the Messages protocol.

Source: ``anthropic`` types (``types``), version 2.13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.trial.question import (
    Question,
    Refused,
    Reply,
    Tool,
    Turn,
    limit,
    schema_of,
    tables,
    texts,
)

# --- reading ----------------------------------------------------------------------


def read(body: dict[str, Any], counting: bool = False) -> Question:
    """
    *body* as a question; *counting*: it comes to count_tokens, without max_tokens.

    Raises:
        Refused: as the real API would.
    """
    if body.get("messages") is None:
        raise Refused("messages: Field required", "messages", "invalid_request")
    messages = tables(body["messages"], "messages")
    if not messages:
        told = "messages: at least one message is required"
        raise Refused(told, "messages", "invalid_request")
    most = limit(body, ["max_tokens"])
    if most is None and not counting:
        raise Refused("max_tokens: Field required", "max_tokens", "invalid_request")
    output = body.get("output_config")
    form = output.get("format") if isinstance(output, dict) else None
    question = Question(
        model=str(body.get("model", "")),
        stream=body.get("stream") is True,
        turns=[Turn("other", texts(body.get("system")))],
        tools=list(_tools(body.get("tools"))),
        schema=schema_of(form, "schema"),
        max_words=most,
    )
    for message in messages:
        question.turns += _turns(message)
    _choose(question, body.get("tool_choice"))
    return question


def _turns(message: dict[str, Any]) -> Iterator[Turn]:
    """What a message says, and after it the tool results that it bears."""
    content = message.get("content")
    said = texts(content)
    if said:
        yield Turn("user" if message.get("role") == "user" else "other", said)
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_result":
            yield Turn("tool", texts(block.get("content")))


def _tools(given: object) -> Iterator[Tool]:
    """The tools with a schema: the others are run by a real upstream, or fixed."""
    for tool in given if isinstance(given, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("input_schema"), dict):
            yield Tool("function", str(tool.get("name", "")), tool["input_schema"])


def _choose(question: Question, choice: object) -> None:
    if not isinstance(choice, dict):
        return
    if choice.get("type") == "none":
        question.choice = "none"
    elif choice.get("type") in ("any", "tool"):
        question.choice = "required"
        question.wanted = str(choice.get("name", ""))


# --- writing ----------------------------------------------------------------------


class Writer:
    """
    One answer in the form of this protocol.

    Args:
        now_unix: not used: this protocol tells no time.
        ident: letters and digits that make its ids.
    """

    def __init__(
        self, body: dict[str, Any], question: Question, now_unix: int, ident: str
    ) -> None:
        self._question = question
        self._ident = ident

    def stream(self, reply: Reply) -> Iterator[bytes]:
        """Every event of the answer, in order, framed."""
        yield _event("message_start", message=self._message([], None, 0))
        yield _event("ping")
        index = 0
        if reply.pieces:
            yield from self._text(reply, index)
            index += 1
        if reply.call:
            yield from self._call(reply, index)
        usage = {
            "input_tokens": self._question.input_words,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": reply.words,
            "server_tool_use": None,
            "output_tokens_details": {"thinking_tokens": 0},
        }
        delta = {
            "stop_reason": _stop_reason(reply),
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
        }
        yield _event("message_delta", delta=delta, usage=usage)
        yield _event("message_stop")

    def body(self, reply: Reply) -> dict[str, Any]:
        """The whole answer as one object."""
        content: list[dict[str, Any]] = []
        if reply.pieces:
            content.append({"type": "text", "text": reply.text, "citations": None})
        if reply.call:
            arguments = orjson.loads(reply.call.arguments)
            content.append(self._block(reply, arguments))
        return self._message(content, _stop_reason(reply), reply.words)

    def _text(self, reply: Reply, index: int) -> Iterator[bytes]:
        block = {"type": "text", "text": "", "citations": None}
        yield _event("content_block_start", index=index, content_block=block)
        for piece in reply.pieces:
            delta = {"type": "text_delta", "text": piece}
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)

    def _call(self, reply: Reply, index: int) -> Iterator[bytes]:
        text = reply.call.arguments if reply.call else ""
        middle = (len(text) + 1) // 2
        block = self._block(reply, {})
        yield _event("content_block_start", index=index, content_block=block)
        for piece in ("", text[:middle], text[middle:]):
            delta = {"type": "input_json_delta", "partial_json": piece}
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)

    def _block(self, reply: Reply, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "tool_use",
            "id": f"toolu_{self._ident}",
            "name": reply.call.tool.name if reply.call else "",
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
            "model": self._question.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": {
                "input_tokens": self._question.input_words,
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


def _stop_reason(reply: Reply) -> str:
    if reply.call:
        return "tool_use"
    return "max_tokens" if reply.cut else "end_turn"


def _event(type_: str, **fields: object) -> bytes:
    data = orjson.dumps({"type": type_, **fields})
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), data)


def error_body(refused: Refused, request_id: str) -> dict[str, Any]:
    """The error of this protocol."""
    kind = "not_found_error" if refused.status == 404 else "invalid_request_error"
    return {
        "type": "error",
        "error": {"type": kind, "message": refused.message},
        "request_id": request_id,
    }
