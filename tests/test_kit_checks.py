"""The kit's own checks fail when they should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.parse import parse
from tests.kit import answers, endings, plays, settings
from tests.kit.answer import Answer
from tests.kit.asking import Reply
from tests.kit.logs import Log
from tests.kit.scripted import ScriptedUpstream

HEAD = {"content-type": "text/event-stream", "x-request-id": "abcdefgh"}


def reply_of(body: bytes, status: int = 200, **headers: str) -> Reply:
    return Reply(status, {**HEAD, **headers}, 0.0, body)


def whole(protocol: str) -> bytes:
    return b"".join(answers.stream(protocol, Answer(), {"model": "m"}).whole())


FAILED: dict[str, Any] = {
    "type": "response.failed",
    "response": {
        "id": "resp_1",
        "object": "response",
        "status": "failed",
        "output": [],
        "error": {"code": "server_error", "message": "no"},
    },
    "error": {
        "type": "server_error",
        "code": "server_error",
        "message": "no",
        "param": None,
    },
}


def failed(name: str = "response.failed", **changes: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({**FAILED, **changes})}\n\n".encode()


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
def test_a_whole_answer_passes(protocol: str) -> None:
    endings.whole(protocol, reply_of(whole(protocol)))


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
@pytest.mark.parametrize("cut", [-1, -2, -40])
def test_an_answer_that_lacks_its_last_event_does_not(protocol: str, cut: int) -> None:
    events = answers.stream(protocol, Answer(), {"model": "m"}).whole()[:-1]

    with pytest.raises(Exception):
        endings.whole(protocol, reply_of(b"".join(events)[:cut] + b"\n\n"))


def test_a_proper_ending_is_read() -> None:
    error = endings.in_stream("responses", reply_of(failed()))

    assert ("server_error", "server_error", "no", None) == error


WRONG = [
    pytest.param("responses", failed() + failed(), id="twice"),
    pytest.param("responses", failed("error"), id="other-name"),
    pytest.param("responses", failed(sequence_number=1), id="sequence-number"),
    pytest.param("responses", failed(error=None), id="no-top-level-error"),
    pytest.param("responses", failed() + b": ping\n\n", id="something-behind"),
    pytest.param("responses", whole("responses") + failed(), id="after-the-end"),
    pytest.param("chat", b'data: {"error":{"message":"x"}}\n\n', id="chat-unnamed"),
    pytest.param(
        "messages",
        b'event: error\ndata: {"type":"error","error":{"type":"x","message":"y"}}\n\n',
        id="messages-name-first",
    ),
]


@pytest.mark.parametrize("protocol, body", WRONG)
def test_an_improper_ending_is_refused(protocol: str, body: bytes) -> None:
    with pytest.raises((AssertionError, TypeError)):
        endings.in_stream(protocol, reply_of(body))


def test_an_error_body_must_end_with_its_id() -> None:
    error = {"type": "x", "message": "no", "param": None, "code": None}
    json_type = {"content-type": "application/json"}

    with pytest.raises(AssertionError):
        body = json.dumps({"error": error}).encode()
        endings.before("chat", reply_of(body, 400, **json_type))


async def test_a_second_canonical_line_is_noticed() -> None:
    log = Log()
    line = '{"event":"request.finished","request_id":"%s"}\n'
    log.write(line % "one" + line % "two")
    await log.each_finished_once(["one"])
    log.write(line % "one")

    with pytest.raises(AssertionError):
        await log.each_finished_once(["one"])


def test_a_log_line_that_is_no_object_is_noticed() -> None:
    log = Log()
    log.write('{"event":"a"}\nTraceback\n')

    with pytest.raises(ValueError):
        assert log.lines


def test_a_line_is_taken_only_when_it_is_whole() -> None:
    log = Log()
    log.write('{"event":')
    log.write('"a"}\n{"ev')

    assert [{"event": "a"}] == log.lines


async def test_the_config_is_one_that_the_gateway_takes(tmp_path: Path) -> None:
    upstream = ScriptedUpstream(default=plays.ok(), port=9)
    rows = settings.accounts(upstream)
    text = settings.config_text(listen=["127.0.0.1:1"], accounts=rows)
    secrets = settings.environment(rows)

    config = parse(text, lambda name: secrets[name.removeprefix("env:")])

    assert ["responses", "chat", "messages", "trial"] == [
        a.name for a in config.account
    ]
    assert "sk-chat" == config.account[1].api_key
