"""Messages of a websocket: what a body becomes, and what an answer is made of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from yarl import URL

from gateway.protocols.json_members import members
from gateway.protocols.responses import socket_message
from gateway.protocols.responses.socket_answer import HELD_BYTES, SocketAnswer
from gateway.protocols.responses.socket_create import (
    MAX_CHAIN_ITEMS,
    Chain,
    SocketCreate,
)
from gateway.protocols.sse import events
from gateway.transport.websocket.frame_cutter import FrameCutter, OddFrame
from gateway.transport.websocket.socket_headers import socket_headers
from tests.kit.answer import Answer, Tool
from tests.kit.project import ROOT
from tests.kit.socket_upstream import messages_of

SHARED = Path(os.environ.get("GATEWAY_SHARED", ROOT.parent / "shared"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SPACED = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])
ANSWER = [one.encode() for one in messages_of(Answer(id="1"), {"model": "m"})]


def create(**fields: Any) -> SocketCreate:
    return SocketCreate(json.dumps({"model": "m", **fields}).encode())


def orjson_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def chain_of(asked: SocketCreate, *outputs: Any) -> Chain:
    seed = asked.seed()
    assert seed
    return seed.grown("resp_1", outputs)


# --- a body as a message ------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5), st.booleans(), SPACED)
def test_a_message_is_the_body_with_a_type(
    fields: dict[str, Any], stream: bool, spaces: tuple[str, str]
) -> None:
    own = ("type", "background", "stream")
    fields = {name: value for name, value in fields.items() if name not in own}
    body = json.dumps({**fields, "stream": stream}, separators=spaces).encode()

    made = SocketCreate(body)

    assert {**fields, "type": "response.create"} == json.loads(made.whole())
    assert made.stream is stream


def test_every_other_byte_of_a_value_stays() -> None:
    body = b'{ "type":"x", "n" : 1.50, "big": 12345678901234567890123, "input": [ 1 ] }'

    message = SocketCreate(body).whole()

    assert message == (
        b'{"type":"response.create","n":1.50,"big":12345678901234567890123,'
        b'"input":[ 1 ]}'
    )


@given(st.lists(JSON, max_size=6), SPACED)
def test_the_elements_of_a_list_are_found_by_the_way(
    items: list[Any], spaces: tuple[str, str]
) -> None:
    body = json.dumps({"a": 1, "input": items, "b": 2}, separators=spaces).encode()
    found: list[tuple[int, int]] = []

    names = [member.name for member in members(body, b"input", found)]

    assert [b"a", b"input", b"b"] == names
    assert items == [json.loads(body[start:end]) for start, end in found]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"input":[]}', b'{"type":"response.create","input":[]}'),
        (b'{"input":"a"}', b'{"type":"response.create","input":"a"}'),
        (b'{"input":[1],"input":"a"}', b'{"type":"response.create","input":"a"}'),
        (b"{}", b'{"type":"response.create"}'),
        (
            b'{"previous_response_id":null}',
            b'{"type":"response.create","previous_response_id":null}',
        ),
    ],
)
def test_odd_bodies(body: bytes, expected: bytes) -> None:
    made = SocketCreate(body)

    assert expected == made.whole()
    assert not made.follows(Chain("r", b"x", 0, b"y"))


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, {"a": "1"}),
        ({}, {"a": "1"}),
        ({"a": "2", "b": "3"}, {"a": "2", "b": "3"}),
        ("odd", "odd"),
    ],
)
def test_metadata_are_added_where_the_client_has_none(own: Any, expected: Any) -> None:
    body = {} if own is None else {"client_metadata": own}
    made = SocketCreate(json.dumps(body).encode(), {"a": "1"})

    assert expected == json.loads(made.whole())["client_metadata"]


# --- a conversation that goes on ----------------------------------------------------

ITEM = {"type": "message", "role": "user", "content": "a"}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "status": "completed",
    "call_id": "c",
    "name": "f",
    "arguments": "{}",
}
ECHO = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "x"}


def test_only_what_follows_is_sent() -> None:
    chain = chain_of(create(input=[ITEM], client_metadata={"turn_id": "1"}), CALL)
    goes_on = create(input=[ITEM, ECHO, OUTPUT], client_metadata={"turn_id": "2"})

    assert goes_on.follows(chain)
    assert json.loads(goes_on.after(chain)) == {
        "type": "response.create",
        "model": "m",
        "client_metadata": {"turn_id": "2"},
        "previous_response_id": "resp_1",
        "input": [OUTPUT],
    }


@pytest.mark.parametrize(
    ("fields", "follows"),
    [
        pytest.param({"input": [ITEM, CALL, OUTPUT]}, True, id="as-it-came"),
        pytest.param({"input": [ITEM, {**ECHO, "id": None}, OUTPUT]}, True, id="null"),
        pytest.param({"input": [ITEM, {**ECHO, "id": "x"}, OUTPUT]}, True, id="id"),
        pytest.param({"input": [ITEM, ECHO]}, False, id="nothing-new"),
        pytest.param({"input": [ITEM]}, False, id="shorter"),
        pytest.param({"input": [ITEM, OUTPUT, ECHO]}, False, id="other-order"),
        pytest.param(
            {"input": [ITEM, {**ECHO, "name": "g"}, OUTPUT]}, False, id="name"
        ),
        pytest.param({"input": [{**ITEM, "x": 1}, ECHO, OUTPUT]}, False, id="item"),
        pytest.param({"input": [ITEM, ECHO, OUTPUT], "x": 1}, False, id="member"),
        pytest.param({"input": [ITEM, ECHO, OUTPUT], "model": "n"}, False, id="model"),
        pytest.param(
            {"input": [ITEM, ECHO, OUTPUT], "previous_response_id": "r"},
            False,
            id="own",
        ),
        pytest.param({"input": "text"}, False, id="text"),
        pytest.param({}, False, id="no-input"),
    ],
)
def test_if_in_doubt_everything_is_sent(fields: Any, follows: bool) -> None:
    assert follows is create(**fields).follows(chain_of(create(input=[ITEM]), CALL))


def test_a_conversation_of_too_many_items_is_not_followed() -> None:
    assert create(input=[1] * (MAX_CHAIN_ITEMS + 1)).seed() is None
    named = create(input=[ITEM], previous_response_id="r").seed()
    assert named == Chain("")


@given(st.lists(JSON, min_size=1, max_size=5), st.lists(JSON, min_size=1, max_size=3))
def test_the_known_and_the_new_make_the_whole(old: list[Any], new: list[Any]) -> None:
    chain = chain_of(create(input=old))
    goes_on = create(input=[*old, *new])

    assert goes_on.follows(chain)
    assert new == json.loads(goes_on.after(chain))["input"]


# --- an answer ----------------------------------------------------------------------


@given(
    st.sampled_from(
        [Answer(id="1"), Answer(id="1", tool=Tool("f", {}), reasoning="x")]
    ),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_any_cutting_of_the_messages_gives_the_same_answer(
    answer: Answer, cuts: list[int]
) -> None:
    messages = [one.encode() for one in messages_of(answer, {"model": "m"})]
    taken, parts = SocketAnswer(stream=True), []
    bounds = [0, *sorted(cuts), len(messages)]
    for start, end in zip(bounds, bounds[1:]):
        parts.append(taken.take(messages[start:end]))

    found = list(events(b"".join(parts)))
    assert messages == [one.split(b"data: ", 1)[1].rstrip() for one in found]
    assert (200, True, True) == (taken.status, taken.has_ended, taken.keeps_socket)


def test_nothing_leaves_before_the_output_and_a_restart_leaves_no_trace() -> None:
    taken = SocketAnswer(stream=True)

    assert b"" == taken.take(ANSWER[:2])
    assert (200, False) == (taken.status, taken.passes)
    taken.restart({"x-request-id": "2"}, names_parent=False)
    again = taken.take(ANSWER)

    assert 1 == again.count(b"event: response.created")
    assert "2" == taken.headers["x-request-id"]
    assert "text/event-stream" == taken.headers["content-type"]


def test_a_long_preamble_is_let_go() -> None:
    taken = SocketAnswer(stream=True)
    ping = orjson.dumps({"type": "keepalive", "x": "y" * (HELD_BYTES // 2)})

    assert b"" == taken.take([ping])
    assert taken.take([ping]) and taken.passes


def test_a_whole_answer_is_the_response_of_its_end() -> None:
    taken = SocketAnswer(stream=False)

    body = taken.take(ANSWER)

    assert json.loads(body) == json.loads(ANSWER[-1])["response"]
    assert "application/json" == taken.headers["content-type"]


@pytest.mark.parametrize(
    ("message", "status", "ended", "refused"),
    [
        ({"status": 429, "error": {"code": "x"}}, 429, True, ""),
        ({"status_code": 503, "error": {}}, 503, True, ""),
        ({"status": 400, "code": "x", "message": "y"}, 400, True, ""),
        ({"error": {"code": "x"}}, 200, True, ""),
        ({"status": "429", "error": {"code": 7}}, 200, True, ""),
        ({"status": 99, "error": []}, 200, True, ""),
        ({}, 200, True, ""),
        ({"error": {"code": "previous_response_not_found"}}, 400, True, ""),
        (
            {"error": {"code": "websocket_connection_limit_reached"}, "status": 400},
            0,
            False,
            "websocket_connection_limit_reached",
        ),
    ],
)
def test_error_messages(message: Any, status: int, ended: bool, refused: str) -> None:
    taken = SocketAnswer(stream=True)

    out = taken.take([orjson.dumps({"type": "error", **message})])

    assert (status, ended) == (taken.status, taken.has_ended)
    assert refused == taken.refused
    if status >= 400:
        assert "error" in json.loads(out)
    elif status:
        assert out.startswith(b"event: error\ndata: ")


@given(st.lists(st.binary(max_size=20) | JSON.map(orjson_of), max_size=6))
def test_any_messages_are_taken(messages: list[bytes]) -> None:
    for stream in (True, False):
        taken = SocketAnswer(stream=stream)
        out = taken.take(messages)
        assert out == b"" or taken.passes or taken.has_ended


@pytest.mark.skipif(not SHARED.exists(), reason="the recorded turns are not here")
@pytest.mark.parametrize("name", ["codex.json", "conversations.json"])
def test_recorded_turns_are_answered_and_followed(name: str) -> None:
    """Each answer is taken whole; the next create goes on from it as recorded."""
    path = SHARED / "vectors" / "ws" / name
    answers = 0
    for one in json.loads(path.read_text("utf-8")):
        for turn in one["turns"]:
            received = [orjson.dumps(frame) for frame in turn.get("recv", [])]
            taken = SocketAnswer(stream=True)
            taken.take(received)
            if any(b'"response.completed"' in frame for frame in received):
                answers += 1
                assert (True, 200) == (taken.has_ended, taken.status), one["name"]
                assert taken.learned(Chain(""))
    assert answers


def test_harmless_messages() -> None:
    harmless = {
        b'{"type":"codex.rate_limits"}': True,
        b'{"type":"response.metadata","headers":{}}': True,
        b"{}": True,
        b": ping": True,
        b'{"type":"error"}': False,
        b'{"x":1,"type":"response.created"}': False,
    }

    for message, expected in harmless.items():
        assert expected is socket_message.is_harmless(message), message


def test_headers_of_one_request_do_not_divide_its_socket() -> None:
    url = URL("http://a/v1/responses")
    same = [("session-id", "s"), ("authorization", "k")]
    one = socket_headers(url, [*same, ("x-request-id", "1"), ("traceparent", "a")])
    two = socket_headers(url, [("x-request-id", "2"), *same[::-1]])

    assert one.digest == two.digest
    for other in (
        socket_headers(url, [*same, ("x-other", "1")]),
        socket_headers(url, [("session-id", "t"), same[1]]),
        socket_headers(url, [same[0], ("authorization", "l")]),
        socket_headers(URL("http://b/v1/responses"), same),
    ):
        assert other.digest != one.digest


# --- frames -------------------------------------------------------------------------

FRAMES = st.builds(
    Frame,
    st.sampled_from([Opcode.TEXT, Opcode.PING, Opcode.BINARY, Opcode.CLOSE]),
    st.binary(max_size=100) | st.binary(min_size=126, max_size=130),
)


@given(st.lists(FRAMES, max_size=6), st.integers(1, 40))
def test_frames_are_cut_the_same_wherever_the_bytes_break(
    frames: list[Frame], step: int
) -> None:
    wire = [one.serialize(mask=False) for one in frames if _is_legal(one)]
    data = b"".join(wire)
    cutter, found = FrameCutter(1000), []
    for i in range(0, len(data), step):
        found += cutter.feed(data[i : i + step])

    assert found == FrameCutter(1000).feed(data)
    whole = [one.data if isinstance(one, OddFrame) else one for one in found]
    assert len(wire) == len(whole)
    assert all(sent.endswith(got) for sent, got in zip(wire, whole))


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_cut(data: bytes, step: int) -> None:
    cutter = FrameCutter(100)
    for i in range(0, len(data), step):
        for frame in cutter.feed(data[i : i + step]):
            if isinstance(frame, OddFrame) and frame.is_fatal:
                return
            assert len(frame if isinstance(frame, bytes) else frame.data) <= 110


def _is_legal(frame: Frame) -> bool:
    try:
        frame.check()
    except WebSocketException:
        return False
    return True
