"""How a failure must look to a client, in a stream and before it."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.kit.asking import LAST_EVENT, Reply, read_event

TERMINALS = {
    "response.completed",
    "response.failed",
    "response.incomplete",
    "[DONE]",
    "message_stop",
    "error",
}


# The type of an upstream's failure, as each protocol's clients know it.
FAILED = {
    "responses": "upstream_error",
    "chat": "upstream_error",
    "messages": "api_error",
}


class SeenError(NamedTuple):
    """An error as its client sees it; *code* is "" where the protocol has none."""

    type: str
    code: str
    message: str
    retry_after_s: int | None = None


def whole(protocol: str, reply: Reply, text: str = "All is well.") -> None:
    """The reply is one complete answer, with one terminal, and nothing after it."""
    assert 200 == reply.status, reply.body
    assert not reply.broken
    kinds = [event.kind for event in reply.events]
    assert [LAST_EVENT[protocol]] == [kind for kind in kinds if kind in TERMINALS]
    assert LAST_EVENT[protocol] == kinds[-1]
    assert text == reply.text


def in_stream(protocol: str, reply: Reply) -> SeenError:
    """The one ending that the gateway wrote into a stream that had begun."""
    assert 200 == reply.status, reply.body
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert not reply.broken
    kinds = [event.kind for event in reply.events]
    assert 1 == len([kind for kind in kinds if kind in TERMINALS]), kinds
    frame = reply.frames[-1]
    assert reply.body.endswith(frame)
    return _READERS[protocol](frame)


def _responses(frame: bytes) -> SeenError:
    first, second, *rest = frame.split(b"\n")
    assert b"event: response.failed" == first
    assert second.startswith(b"data: {") and rest == [b"", b""]
    data = read_event(frame).json
    assert {"type", "response", "error"} == set(data)
    response, error = data["response"], data["error"]
    known = {"id", "object", "created_at", "model", "status", "output", "error"}
    assert {"id", "object", "status", "output", "error"} <= set(response) <= known
    assert response.get("model", "some model")
    assert ("response", "failed", []) == (
        response["object"],
        response["status"],
        response["output"],
    )
    reason = response["error"]
    assert {"type", "code", "message", "param"} == set(error)
    assert (reason["code"], reason["message"], None) == (
        error["code"],
        error["message"],
        error["param"],
    )
    wait = _wait(reason.get("headers"), error["message"])
    return SeenError(error["type"], reason["code"], reason["message"], wait)


def _wait(headers: dict[str, str] | None, message: str) -> int | None:
    if headers is None:
        return None
    assert ["retry-after"] == list(headers)
    seconds = headers["retry-after"]
    assert f"try again in {seconds}s" in message
    return int(seconds)


def _chat(frame: bytes) -> SeenError:
    first, second, *rest = frame.split(b"\n")
    assert b"event: error" == first
    assert second.startswith(b'data: {"error":{') and rest == [b"", b""]
    data = read_event(frame).json
    error = data["error"]
    assert ({"error"}, {"type", "message", "param", "code"}) == (set(data), set(error))
    return SeenError(error["type"], error["code"], error["message"])


def _messages(frame: bytes) -> SeenError:
    assert frame.startswith(b'data: {"type":"error",')
    assert frame.endswith(b"\nevent: error\n\n")
    return _messages_error(read_event(frame).json)


def _messages_error(data: dict[str, Any]) -> SeenError:
    assert {"type", "error", "request_id"} == set(data)
    assert "error" == data["type"]
    error = data["error"]
    assert {"type", "message"} <= set(error)
    assert f"(request id: {data['request_id']})" in error["message"]
    return SeenError(error["type"], "", error["message"])


_READERS = {"responses": _responses, "chat": _chat, "messages": _messages}


def before(protocol: str, reply: Reply) -> SeenError:
    """The gateway's own HTTP error, in the protocol's form."""
    assert reply.status >= 400, reply.body
    assert reply.headers["content-type"].startswith("application/json")
    if protocol == "messages":
        seen = _messages_error(reply.json)
        assert reply.headers["request-id"] == reply.json["request_id"]
    else:
        error = reply.json["error"]
        assert {"type", "message", "param", "code"} <= set(error)
        seen = SeenError(error["type"], str(error["code"]), error["message"])
    assert seen.message.endswith(f" (request id: {reply.request_id})")
    if "retry-after" not in reply.headers:
        return seen
    seconds = int(reply.headers["retry-after"])
    assert 1 <= seconds <= 60
    assert f"try again in {seconds}s" in seen.message
    return seen._replace(retry_after_s=seconds)
