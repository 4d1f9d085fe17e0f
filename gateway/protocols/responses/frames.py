"""
What the websocket transport of Responses says besides the events of a stream.

Source: the OpenAI API reference (WebSocket mode), and the observed behaviour of Codex
CLI 0.171, openai-python 3.54 and openai-node 7.59.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.protocols.codec import AnswerSettings
from gateway.protocols.model import Asked
from gateway.protocols.openai_errors import openai_error, openai_error_status
from gateway.protocols.protocol import response_id_of
from gateway.protocols.responses.response import base, usage_object
from gateway.protocols.stream_facts import StreamFacts
from gateway.usage import Usage

INTERRUPTED = "interrupted"
"""The code of an answer that its client has interrupted, and the reason in its end."""


def event(data: Mapping[str, Any]) -> bytes:
    """*data* as an event without a name; the name is in its ``type``."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def error_event(error: GatewayError, request_id: str) -> bytes:
    """
    The failure of a response of which the client has nothing.

    ``status`` is a whole number and ``code`` a text: without them Codex waits on.
    """
    fields = {**openai_error(error, request_id), "param": error.param}
    data: dict[str, Any] = {
        "type": "error",
        "status": openai_error_status(error),
        "error": fields,
    }
    if error.retry_after_s is not None:
        data["headers"] = {"retry-after": str(error.retry_after_s)}
    return event(data)


def metadata_event(headers: Mapping[str, str]) -> bytes:
    """What an account says in the headers of its answer, for Codex."""
    return event({"type": "response.metadata", "headers": dict(headers)})


def response_object(
    ident: str, model: str, created_at: int, **members: Any
) -> dict[str, Any]:
    """A ``response`` object in progress, or as its *members* say."""
    return {
        **base(AnswerSettings(Asked(model), "", model, created_at), ident),
        **members,
    }


def warm_up_events(ident: str, model: str, created_at: int) -> bytes:
    """
    The answer to a request that generates nothing. Its output is empty: with words in
    it Codex gives up the conversation that it begins.
    """
    created = response_object(ident, model, created_at)
    completed = response_object(
        ident,
        model,
        created_at,
        status="completed",
        completed_at=created_at,
        usage=usage_object(Usage(input_tokens=0, output_tokens=0)),
    )
    return event(
        {"type": "response.created", "sequence_number": 0, "response": created}
    ) + event(
        {"type": "response.completed", "sequence_number": 1, "response": completed}
    )


def accepted(response_id: str, sequence_number: int) -> bytes:
    """An interrupt is obeyed."""
    return event(
        {
            "type": "response.interrupt.accepted",
            "sequence_number": sequence_number,
            "response_id": response_id,
        }
    )


def not_interrupted(response_id: object) -> bytes:
    """An interrupt names no response that runs."""
    error = {
        "type": "invalid_request_error",
        "code": "response_not_found",
        "message": "No response of that id is running on this websocket",
    }
    return orjson.dumps(
        {
            "type": "response.interrupt.failed",
            "response_id": response_id if isinstance(response_id, str) else None,
            "error": error,
        }
    )


def not_steered(response_id: object) -> bytes:
    """A response is not steered: no account can be asked to."""
    error = {
        "type": "invalid_request_error",
        "code": "steering_not_supported",
        "message": "A running response cannot be steered here",
    }
    return orjson.dumps(
        {
            "type": "response.steer.failed",
            "previous_response_id": (
                response_id if isinstance(response_id, str) else None
            ),
            "error": error,
        }
    )


def interrupted_events(
    request_id: str,
    model: str,
    facts: StreamFacts,
    *,
    began_at: int,
    sequence_number: int,
    open_items: Sequence[tuple[int, str]],
    output: Sequence[Any],
) -> bytes:
    """
    The end of an answer that its client has interrupted.

    Args:
        began_at: Unix seconds, where the answer does not say when it was made.
        sequence_number: of the next event.
        open_items: index and id of each item that is not finished.
        output: the items that are.
    """
    ident = facts.response_id or response_id_of(request_id)
    said = b"".join(
        _item_interrupted(ident, number, *item)
        for number, item in enumerate(open_items, sequence_number)
    )
    response = response_object(
        ident,
        facts.model or model,
        began_at if facts.created_at is None else facts.created_at,
        status="incomplete",
        incomplete_details={"reason": INTERRUPTED},
        output=list(output),
        usage=usage_object(facts.usage),
    )
    return said + event(
        {
            "type": "response.incomplete",
            "sequence_number": sequence_number + len(open_items),
            "response": response,
        }
    )


def _item_interrupted(ident: str, number: int, index: int, item_id: str) -> bytes:
    return event(
        {
            "type": "response.output_item.interrupted",
            "sequence_number": number,
            "response_id": ident,
            "item_id": item_id,
            "output_index": index,
        }
    )
