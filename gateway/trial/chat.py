"""
The trial account's side of Chat Completions.

Source: ``openai`` types (``types/chat``), version 3.57.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import orjson

from gateway.trial import responses
from gateway.trial.model import (
    TrialAnswer,
    TrialCall,
    TrialMessage,
    TrialRefusal,
    TrialRequest,
    TrialTool,
    limit,
    schema_of,
    tables,
    texts,
)

name = "chat"

# --- reading ----------------------------------------------------------------------


def read(body: dict[str, Any]) -> TrialRequest:
    """
    Read *body* as a request.

    Raises:
        TrialRefusal: as the real API would.
    """
    if body.get("messages") is None:
        raise TrialRefusal(
            "messages is missing", "messages", "missing_required_parameter"
        )
    if body.get("n") not in (None, 1):
        raise TrialRefusal("The trial account gives one choice", "n", "invalid_value")
    messages = tables(body["messages"], "messages")
    if not messages:
        raise TrialRefusal("messages is empty", "messages", "invalid_value")
    request = TrialRequest(
        model=str(body.get("model", "")),
        stream=body.get("stream") is True,
        messages=[_read_message(message) for message in messages],
        tools=list(_tools(body.get("tools"))),
        schema=schema_of(body.get("response_format"), "json_schema", "schema"),
        max_words=limit(body, ["max_completion_tokens", "max_tokens"]),
    )
    _choose(request, body.get("tool_choice"))
    return request


def _read_message(message: dict[str, Any]) -> TrialMessage:
    said = texts(message.get("content"))
    if message.get("role") in ("tool", "function"):
        return TrialMessage("tool", said)
    return TrialMessage("user" if message.get("role") == "user" else "other", said)


def _tools(given: object) -> Iterator[TrialTool]:
    kinds: tuple[Literal["function", "custom"], ...] = ("function", "custom")
    for tool in given if isinstance(given, list) else ():
        for kind in kinds:
            inner = tool.get(kind) if isinstance(tool, dict) else None
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                yield TrialTool(kind, inner["name"], inner.get("parameters"))


def _choose(request: TrialRequest, choice: object) -> None:
    if choice == "none":
        request.choice = "none"
    elif choice == "required":
        request.choice = "required"
    elif isinstance(choice, dict):
        inner = choice.get(str(choice.get("type")))
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            request.choice, request.wanted = "required", inner["name"]


# --- writing ----------------------------------------------------------------------


class ChatTrialWriter:
    """
    One answer in the form of this protocol.

    Args:
        now_unix: its creation time, Unix seconds.
        ident: letters and digits, the stem of its ids.
    """

    def __init__(
        self, body: dict[str, Any], request: TrialRequest, now_unix: int, ident: str
    ) -> None:
        options = body.get("stream_options")
        self._has_usage = isinstance(options, dict) and bool(
            options.get("include_usage")
        )
        self._request = request
        self._ident = ident
        self._head = {
            "id": f"chatcmpl-{ident}",
            "created": now_unix,
            "model": request.model,
            "service_tier": "default",
        }

    def stream(self, answer: TrialAnswer) -> Iterator[bytes]:
        """Every chunk of the answer, in order, framed, and ``[DONE]``."""
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        for piece in answer.pieces:
            yield self._chunk({"content": piece})
        if answer.call:
            yield from self._call(answer.call)
        yield self._chunk({}, _finish(answer))
        if self._has_usage:
            yield self._frame({"choices": [], "usage": self._usage(answer)})
        yield b"data: [DONE]\n\n"

    def body(self, answer: TrialAnswer) -> dict[str, Any]:
        """The whole answer as one object."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "annotations": [],
        }
        if answer.call:
            message["tool_calls"] = [self._named(answer.call, answer.call.arguments)]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish(answer),
        }
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": self._usage(answer),
        }

    def _call(self, call: TrialCall) -> Iterator[bytes]:
        """The name first, then the arguments in two fragments."""
        yield self._chunk({"tool_calls": [{"index": 0, **self._named(call, "")}]})
        middle = (len(call.arguments) + 1) // 2
        key = "input" if call.tool.kind == "custom" else "arguments"
        for piece in (call.arguments[:middle], call.arguments[middle:]):
            if piece:
                fragment = {"index": 0, call.tool.kind: {key: piece}}
                yield self._chunk({"tool_calls": [fragment]})

    def _named(self, call: TrialCall, arguments: str) -> dict[str, Any]:
        key = "input" if call.tool.kind == "custom" else "arguments"
        inner = {"name": call.tool.name, key: arguments}
        kind = call.tool.kind
        return {"id": f"call_{self._ident}", "type": kind, kind: inner}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
        }
        usage = {"usage": None} if self._has_usage else {}
        return self._frame({"choices": [choice], **usage})

    def _frame(self, fields: dict[str, Any]) -> bytes:
        data = {**self._head, "object": "chat.completion.chunk", **fields}
        return b"data: %b\n\n" % orjson.dumps(data)

    def _usage(self, answer: TrialAnswer) -> dict[str, Any]:
        input_words = self._request.input_words
        return {
            "prompt_tokens": input_words,
            "completion_tokens": answer.words,
            "total_tokens": input_words + answer.words,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def _finish(answer: TrialAnswer) -> str:
    if answer.call:
        return "tool_calls"
    return "length" if answer.cut else "stop"


writer = ChatTrialWriter
error_body = responses.error_body
