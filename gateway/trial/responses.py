"""
The trial account's side of the Responses protocol.

Source: ``openai`` types (``types/responses``), version 3.57, and Open Responses
2026-04-24 for the keys that a ``response`` object must have.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import orjson

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

_ECHOED: dict[str, Any] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}
"""The fields of the request that the response repeats, with their defaults."""


name = "responses"

# --- reading ----------------------------------------------------------------------


def read(body: dict[str, Any]) -> TrialRequest:
    """
    Read *body* as a request.

    Raises:
        TrialRefusal: as the real API would.
    """
    if body.get("previous_response_id"):
        raise TrialRefusal(
            "The trial account keeps no responses",
            "previous_response_id",
            "previous_response_not_found",
        )
    if body.get("background"):
        raise TrialRefusal(
            "The trial account has no background mode",
            "background",
            "unsupported_parameter",
        )
    request = TrialRequest(
        model=str(body.get("model", "")),
        stream=body.get("stream") is True,
        messages=[TrialMessage("other", texts(body.get("instructions")))],
        tools=list(_tools(body.get("tools"))),
        max_words=limit(body, ["max_output_tokens"]),
    )
    for item in _items(body):
        request.messages.append(_read_message(item))
        if item.get("type") == "additional_tools":
            request.tools += _tools(item.get("tools"))
    form = body["text"].get("format") if isinstance(body.get("text"), dict) else None
    request.schema = schema_of(form, "schema")
    _choose(request, body.get("tool_choice"))
    return request


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if given is None:
        raise TrialRefusal("input is missing", "input", "missing_required_parameter")
    return tables(given, "input")


def _read_message(item: dict[str, Any]) -> TrialMessage:
    if str(item.get("type", "")).endswith("_output"):
        return TrialMessage("tool", texts(item.get("output")))
    said = texts(item.get("content"))
    return TrialMessage("user" if item.get("role") == "user" else "other", said)


def _tools(given: object, namespace: str = "") -> Iterator[TrialTool]:
    """The tools that a client runs itself; those of a namespace carry its name."""
    for tool in given if isinstance(given, list) else ():
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str):
            continue
        if tool.get("type") == "namespace" and not namespace:
            yield from _tools(tool.get("tools"), name)
        elif tool.get("type") == "function":
            yield TrialTool("function", name, tool.get("parameters"), namespace)
        elif tool.get("type") == "custom":
            yield TrialTool("custom", name, None, namespace)


def _choose(request: TrialRequest, choice: object) -> None:
    if choice == "none":
        request.choice = "none"
    elif choice == "required":
        request.choice = "required"
    elif isinstance(choice, dict) and isinstance(choice.get("name"), str):
        request.choice, request.wanted = "required", choice["name"]


# --- writing ----------------------------------------------------------------------


class ResponsesTrialWriter:
    """
    One answer in the form of this protocol.

    Args:
        now_unix: its creation time, Unix seconds.
        ident: letters and digits, the stem of its ids.
    """

    def __init__(
        self, body: dict[str, Any], request: TrialRequest, now_unix: int, ident: str
    ) -> None:
        self._body = body
        self._request = request
        self._now_unix = now_unix
        self._ident = ident
        self._count = 0

    def stream(self, answer: TrialAnswer) -> Iterator[bytes]:
        """Every event of the answer, in order, framed."""
        self._count = 0
        started = self._response("in_progress", [], None)
        yield self._event("response.created", response=started)
        yield self._event("response.in_progress", response=started)
        output: list[dict[str, Any]] = []
        for item in self._items(answer):
            yield from self._item(item, len(output), answer)
            output.append(item)
        status = "incomplete" if answer.cut else "completed"
        done = self._response(status, output, answer)
        yield self._event(f"response.{status}", response=done)

    def body(self, answer: TrialAnswer) -> dict[str, Any]:
        """The whole answer as one object."""
        status = "incomplete" if answer.cut else "completed"
        return self._response(status, self._items(answer), answer)

    def compacted(self) -> dict[str, Any]:
        """The answer of ``/responses/compact``: the user's messages, and one blob."""
        said = [
            {
                "id": f"msg_{self._ident}_{index}",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": text} for text in turn.texts
                ],
            }
            for index, turn in enumerate(self._request.messages)
            if turn.speaker == "user"
        ]
        return {
            "id": f"resp_{self._ident}",
            "object": "response.compaction",
            "created_at": self._now_unix,
            "output": [*said, self._compaction()],
            "usage": self._usage(0),
        }

    def _items(self, answer: TrialAnswer) -> list[dict[str, Any]]:
        """The finished output items."""
        given = self._body.get("input")
        last = given[-1] if isinstance(given, list) and given else {}
        if last.get("type") == "compaction_trigger":
            return [self._compaction()]
        items = []
        if answer.pieces or not answer.call:
            part = {
                "type": "output_text",
                "annotations": [],
                "logprobs": [],
                "text": answer.text,
            }
            items.append(
                {
                    "id": f"msg_{self._ident}",
                    "type": "message",
                    "status": "incomplete" if answer.cut else "completed",
                    "role": "assistant",
                    "content": [part],
                }
            )
        if answer.call:
            items.append(self._call(answer.call))
        return items

    def _call(self, call: TrialCall) -> dict[str, Any]:
        space = {"namespace": call.tool.namespace} if call.tool.namespace else {}
        common = {"call_id": f"call_{self._ident}", "name": call.tool.name, **space}
        if call.tool.kind == "custom":
            own = {"id": f"ctc_{self._ident}", "type": "custom_tool_call"}
            return {**own, "status": "completed", "input": call.arguments, **common}
        own = {"id": f"fc_{self._ident}", "type": "function_call"}
        return {**own, "status": "completed", "arguments": call.arguments, **common}

    def _compaction(self) -> dict[str, Any]:
        words = f"trial:{self._request.input_words} words".encode()
        return {
            "id": f"cmp_{self._ident}",
            "type": "compaction",
            "encrypted_content": base64.b64encode(words).decode(),
        }

    def _item(
        self, item: dict[str, Any], index: int, answer: TrialAnswer
    ) -> Iterator[bytes]:
        """The events of one output item, from added to done."""
        place = {"output_index": index}
        empty = {"message": "content", "function_call": "arguments"}
        key = empty.get(item["type"], "input")
        begun = dict(item)
        if key in begun:
            begun |= {key: [] if key == "content" else "", "status": "in_progress"}
        yield self._event("response.output_item.added", **place, item=begun)
        place |= {"item_id": item["id"]}
        if item["type"] == "message":
            yield from self._message(item, place, answer)
        elif item["type"] == "function_call":
            name = "response.function_call_arguments"
            text = item["arguments"]
            for piece in _halves(text):
                yield self._event(f"{name}.delta", **place, delta=piece)
            done = {"arguments": text, "name": item["name"]}
            yield self._event(f"{name}.done", **place, **done)
        elif item["type"] == "custom_tool_call":
            name = "response.custom_tool_call_input"
            for piece in _halves(item["input"]):
                yield self._event(f"{name}.delta", **place, delta=piece)
            yield self._event(f"{name}.done", **place, input=item["input"])
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _message(
        self, item: dict[str, Any], place: dict[str, Any], answer: TrialAnswer
    ) -> Iterator[bytes]:
        place = {**place, "content_index": 0}
        part = item["content"][0]
        begun = {**part, "text": ""}
        yield self._event("response.content_part.added", **place, part=begun)
        name = "response.output_text"
        for piece in answer.pieces:
            yield self._event(f"{name}.delta", **place, delta=piece, logprobs=[])
        yield self._event(f"{name}.done", **place, text=part["text"], logprobs=[])
        yield self._event("response.content_part.done", **place, part=part)

    def _event(self, type_: str, **fields: object) -> bytes:
        data = {"type": type_, "sequence_number": self._count, **fields}
        self._count += 1
        return b"event: %b\ndata: %b\n\n" % (type_.encode(), orjson.dumps(data))

    def _response(
        self, status: str, output: list[dict[str, Any]], answer: TrialAnswer | None
    ) -> dict[str, Any]:
        """The response object; *answer* if it is complete."""
        echoed = dict(_ECHOED)
        for key, default in _ECHOED.items():
            given = self._body.get(key)
            if isinstance(default, dict) and isinstance(given, dict):
                echoed[key] = default | given
            elif given is not None:
                echoed[key] = given
        echoed["tools"] = _echoed_tools(echoed["tools"])
        return echoed | {
            "id": f"resp_{self._ident}",
            "object": "response",
            "created_at": self._now_unix,
            "completed_at": self._now_unix if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": (
                {"reason": "max_output_tokens"} if status == "incomplete" else None
            ),
            "model": self._request.model,
            "output": output,
            "service_tier": "default",
            "store": False,
            "usage": self._usage(answer.words) if answer else None,
        }

    def _usage(self, output_words: int) -> dict[str, Any]:
        input_words = self._request.input_words
        return {
            "input_tokens": input_words,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output_words,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_words + output_words,
        }


def _halves(text: str) -> Iterator[str]:
    """*text* in two deltas, because clients must join deltas."""
    middle = (len(text) + 1) // 2
    for piece in (text[:middle], text[middle:]):
        if piece:
            yield piece


def error_body(refused: TrialRefusal, request_id: str) -> dict[str, Any]:
    """The error of this protocol, and of Chat."""
    return {
        "error": {
            "message": refused.message,
            "type": "invalid_request_error",
            "param": refused.param or None,
            "code": refused.code,
        }
    }


def _echoed_tools(given: object) -> list[dict[str, Any]]:
    """The request's tools as a response repeats them: functions with every key."""
    defaults = {"description": None, "parameters": None, "strict": True}
    return [
        {**defaults, **tool} if tool.get("type") == "function" else tool
        for tool in (given if isinstance(given, list) else ())
        if isinstance(tool, dict)
    ]


writer = ResponsesTrialWriter
