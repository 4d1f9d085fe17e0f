"""
A failure in any form is one: at the beginning of a stream, within it, in a whole body.

Over every protocol, passed unchanged and translated; what is an answer stays one.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.protocols import PROTOCOLS
from gateway.protocols.failure_forms import MAX_MESSAGE_CHARS, failure_in, stated_error
from gateway.protocols.failure_table import meaning
from gateway.protocols.stray_failures import (
    MAX_MISPLACED_BYTES,
    MAX_TRIES,
    NonStreamBody,
)
from gateway.protocols.stream_converter import StreamConverter
from gateway.protocols.stream_state import Batch, PassThrough
from tests.kit import answers
from tests.kit.answer import Answer
from tests.protocols_answers import translation

SPENT = {"code": "insufficient_quota", "message": "boom"}
FORMS: dict[str, tuple[Any, str]] = {
    "nested": ({"error": SPENT}, "quota"),
    "words": ({"error": "boom"}, "failed"),
    "true": ({"error": True, "message": "Insufficient balance: boom"}, "quota"),
    "list-of-words": ({"error": ["boom", "bang"]}, "failed"),
    "in-response": ({"response": {"error": SPENT}}, "quota"),
    "flat": ({"object": "error", "message": "boom", "code": 50001}, "failed"),
    "flat-typed": ({"type": "overloaded_error", "message": "boom"}, "overloaded"),
    "code-and-msg": ({"code": 500, "msg": "boom", "success": False}, "failed"),
    "code-and-message": ({"code": "Arrearage", "message": "boom"}, "quota"),
    "error-code": ({"error_code": 18, "error_msg": "boom"}, "failed"),
    "status-code": ({"statusCode": 503, "message": "Overloaded"}, "overloaded"),
    "detail": ({"detail": "boom"}, "failed"),
    "detail-list": ({"detail": [{"loc": ["body", "a"], "msg": "boom"}]}, "client"),
    "detail-object": ({"detail": SPENT}, "quota"),
    "problem": ({"type": "about:blank", "title": "T", "detail": "boom"}, "failed"),
    "errors": ({"success": False, "errors": [SPENT]}, "quota"),
    "errors-alone": ({"errors": [SPENT]}, "quota"),
    "unsuccessful": ({"success": False}, "failed"),
    "not-ok": ({"ok": False, "description": "boom"}, "failed"),
    "status": ({"status": "error", "message": "boom"}, "failed"),
    "base-resp": ({"base_resp": {"status_code": 1008, "status_msg": "boom"}}, "quota"),
    "base-resp-beside": (
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "b"}},
        "rate_limited",
    ),
    "array": ([{"error": {"code": 503, "status": "UNAVAILABLE"}}], "overloaded"),
    "string": ("Insufficient credits: boom", "quota"),
    "message": ({"message": "boom"}, "failed"),
    "amazon": ({"__type": "com.x#ThrottlingException", "message": "b"}, "rate_limited"),
    "amazon-event": ({"throttlingException": {"message": "b"}}, "rate_limited"),
}
each_form = pytest.mark.parametrize(("form", "kind"), FORMS.values(), ids=list(FORMS))
each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


def course(source: str, target: str) -> PassThrough | StreamConverter:
    """What follows a stream of *source* for a client of *target*."""
    if source == target:
        return PassThrough(PROTOCOLS[source], PROTOCOLS[source].new_facts())
    return translation(source, target)


def _typed(form: Any) -> bool:
    """Whether *form* looks, from its beginning, like an event of a newer protocol."""
    return isinstance(form, dict) and bool({"type", "choices"} & set(form))


def follow(one: PassThrough | StreamConverter, *chunks: bytes) -> tuple[bytes, Batch]:
    """The output, and the batch with the ending."""
    out = b""
    for chunk in chunks:
        batch = one.feed(chunk)
        out += batch.data
        if batch.ending:
            return out, batch
    batch = one.finish()
    return out + batch.data, batch


def kind_of(batch: Batch) -> str:
    """What the failure in *batch* means."""
    assert batch.ending and "failed" == batch.ending.outcome
    assert batch.ending.failure is not None
    error = stated_error(batch.ending.failure)
    assert error is not None
    return meaning(error).kind.value


@each_form
def test_each_form_is_read(form: Any, kind: str) -> None:
    error = stated_error(form)
    assert error is not None
    assert kind == meaning(error).kind.value
    again = stated_error(failure_in(form))
    assert again is not None and error.message == again.message
    assert meaning(error) == meaning(again)


@each_form
@each_protocol
@pytest.mark.parametrize("target", answers.PROTOCOLS)
@pytest.mark.parametrize("name", [b"", b"event: error\n"], ids=["bare", "named"])
def test_as_the_first_event(
    protocol: str, target: str, name: bytes, form: Any, kind: str
) -> None:
    frame = name + b"data: " + json.dumps(form).encode() + b"\n\n"

    out, batch = follow(course(protocol, target), frame)

    assert (b"", kind) == (out, kind_of(batch))


@each_form
@each_protocol
@pytest.mark.parametrize("target", answers.PROTOCOLS)
@pytest.mark.parametrize("compact", [True, False])
def test_as_plain_json_where_a_stream_should_be(
    protocol: str, target: str, form: Any, kind: str, compact: bool
) -> None:
    if isinstance(form, str):
        pytest.skip("text is no JSON that begins like it")
    separators = (",", ":") if compact else None
    data = json.dumps(form, separators=separators).encode()

    out, batch = follow(course(protocol, target), data[:7], data[7:])

    assert (b"", kind) == (out, kind_of(batch))


@each_form
@each_protocol
@pytest.mark.parametrize("target", answers.PROTOCOLS)
@pytest.mark.parametrize("compact", [True, False])
def test_within_an_answer(
    protocol: str, target: str, form: Any, kind: str, compact: bool
) -> None:
    """Also where the upstream goes on to say that all is over."""
    separators = (",", ":") if compact else None
    stream = answers.stream(protocol, Answer(), {"model": "m"})
    odd = b"data: " + json.dumps(form, separators=separators).encode() + b"\n\n"
    last = stream.tail[-1] if protocol == "chat" else b": bye\n\n"

    out, batch = follow(course(protocol, target), *stream.begun(2), odd, last)

    assert batch.ending and "failed" == batch.ending.outcome
    assert batch.started and b"All " in out
    # A typed event is known by what the answer lacks at its end.
    if protocol == "chat" or not _typed(form):
        assert kind == kind_of(batch)
        assert b"boom" not in out


@each_protocol
def test_events_of_an_answer_are_not_looked_at_for_failures(protocol: str) -> None:
    """They pass unread; what a needle points at costs a parse."""
    stream = answers.stream(protocol, Answer(), {"model": "m"})
    watch = PassThrough(PROTOCOLS[protocol], PROTOCOLS[protocol].new_facts())
    for event in stream.begun(1):
        watch.feed(event)

    assert all(watch.passes(event) for event in stream.deltas[1:])


@each_protocol
@pytest.mark.parametrize("target", answers.PROTOCOLS)
def test_text_under_the_name_of_an_error(protocol: str, target: str) -> None:
    frame = b"event: error\ndata: Insufficient credits\n\n"

    _, batch = follow(course(protocol, target), frame)

    assert "quota" == kind_of(batch)


ANSWERS = [
    {"choices": [], "detail": "x"},
    {"choices": [{"delta": {"content": "x"}}], "code": 500, "message": "x"},
    {"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
    {"content": [], "message": "x", "status": "error"},
    {"output": [], "errors": ["x"]},
    {"candidates": [], "message": "x"},
    {"code": 0, "message": "success"},
    {"code": 200, "msg": "ok", "success": True},
    {"code": None, "message": "x"},
    {"success": True, "message": "x"},
    {"type": "response.something_new", "message": "x", "code": "y"},
    {"type": "ping", "message": "x"},
    {"id": "1", "message": "x"},
    {"status": "in_progress", "id": "1"},
    {"error": None},
    {"error": {}},
    {},
]


@pytest.mark.parametrize("data", ANSWERS, ids=lambda data: json.dumps(data))
def test_what_holds_or_announces_an_answer_is_no_failure(data: object) -> None:
    assert stated_error(data) is None
    assert failure_in(data) is None


@each_protocol
def test_a_whole_answer_is_one(protocol: str) -> None:
    body = answers.body(protocol, Answer(), {"model": "m"})

    assert PROTOCOLS[protocol].is_answer(body)


@each_protocol
@each_form
def test_a_whole_failure_is_no_answer(protocol: str, form: Any, kind: str) -> None:
    assert not PROTOCOLS[protocol].is_answer(form)


@pytest.mark.parametrize(
    ("protocol", "body", "is_answer"),
    [
        ("chat", {"choices": []}, False),
        ("chat", {"choices": None}, False),
        ("chat", {"choices": [{"error": SPENT}]}, False),
        ("chat", {"content": []}, False),
        ("messages", {"type": "message", "content": []}, True),
        ("messages", {"content": "text"}, False),
        ("messages", {"choices": [{}]}, False),
        ("responses", {"output": []}, True),
        ("responses", {"object": "response.compaction", "output": [{}]}, True),
        ("responses", {"output": [], "error": SPENT}, False),
        (
            "responses",
            {"object": "response", "status": "failed", "output": [], "error": SPENT},
            True,
        ),
        ("responses", {"object": "response", "status": "queued"}, True),
        ("responses", {"status": "failed", "error": SPENT}, False),
    ],
)
def test_the_form_of_an_answer(protocol: str, body: object, is_answer: bool) -> None:
    assert is_answer is PROTOCOLS[protocol].is_answer(body)


@each_protocol
@pytest.mark.parametrize("body", [None, [], "text", 1, {}, {"hello": 1}])
def test_other_json_is_no_answer(protocol: str, body: object) -> None:
    assert not PROTOCOLS[protocol].is_answer(body)


def test_misplaced_json_is_read_within_bounds() -> None:
    endless = NonStreamBody()
    pieces = 0
    while endless.take(b'{"a":' + b" " * 1019) is None:
        pieces += 1
    assert pieces == MAX_MISPLACED_BYTES // 1024


def test_misplaced_json_is_not_parsed_at_each_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []

    def read(data: bytes) -> None:
        parsed.append(data)

    monkeypatch.setattr("gateway.protocols.stray_failures.read_json", read)
    one = NonStreamBody()
    for _ in range(1000):
        assert one.take(b"{}") is None
    assert MAX_TRIES == len(parsed)


def test_words_are_shortened() -> None:
    for form in ({"error": {"message": "x" * 9999}}, {"error": "x" * 9999}, "x" * 9999):
        error = stated_error(form)
        assert error is not None and MAX_MESSAGE_CHARS == len(error.message)


def test_the_words_of_many_errors_are_read_with_their_places() -> None:
    error = stated_error(
        {
            "detail": [
                {"loc": ["body", "a", 0], "msg": "too long"},
                {"loc": ["body", "b"], "msg": "missing"},
            ]
        }
    )
    assert error is not None
    assert "body.a.0: too long; body.b: missing" == error.message
