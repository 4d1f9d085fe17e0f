"""The pure parts of the websocket transport: frames, lanes, memory, requests."""

from __future__ import annotations

import json
import zlib
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from multidict import CIMultiDict
from websockets.frames import Frame, Opcode

from gateway.client.websocket.handshake import agree
from gateway.client.websocket.messages import (
    DEFLATE_END,
    MessageInflater,
    MessageReader,
)
from gateway.client.websocket.text_frames import (
    DEFLATE_FROM_BYTES,
    DEFLATE_UP_TO_BYTES,
    payloads,
    text_frame,
    with_member,
)
from gateway.client.websocket.turn_output import MAX_BYTES, TurnOutput
from gateway.endpoints.websocket.create import Create, base_headers
from gateway.endpoints.websocket.lanes import MAX_RUNNING, MAX_WAITING, Lanes
from gateway.endpoints.websocket.turn_memory import (
    MAX_FORGOTTEN,
    TURN_BYTES,
    Key,
    Turn,
    TurnMemory,
)
from gateway.errors import ClientError, Overloaded

# --- frames -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, 65535, 65536, DEFLATE_FROM_BYTES, DEFLATE_UP_TO_BYTES + 1]
)
@pytest.mark.parametrize("bits", [0, 9, 15])
def test_a_frame_is_read_by_another_grammar(size: int, bits: int) -> None:
    text = (b'{"a":"' + b"xyz" * size)[:size]
    reader = MessageReader(1 << 20, deflates=True)
    frame = bytearray(text_frame(text, bits))
    frame[1] |= 0x80  # as a client would have sent it, with a mask of zeros
    at = {126: 4, 127: 10}.get(frame[1] & 0x7F, 2)
    frame[at:at] = bytes(4)
    (message,), _ = reader.feed(bytes(frame))

    assert message.is_text
    is_middling = DEFLATE_FROM_BYTES <= size <= DEFLATE_UP_TO_BYTES
    assert message.is_deflated == bool(bits and is_middling)
    data = message.data
    if message.is_deflated:
        inflate = zlib.decompressobj(wbits=-(bits or 15))
        data = inflate.decompress(data + DEFLATE_END)
    assert text == data


@pytest.mark.parametrize(
    ("events", "texts"),
    [
        (b": comment\n\n", []),
        (b"data: [DONE]\n\n", []),
        (b'event: x\ndata: {"a":1}\n\ndata: {"b":2}\n\n', [b'{"a":1}', b'{"b":2}']),
        (b'data: {"a":\r\ndata: 1}\r\n\r\n', [b'{"a":\n1}']),
        (b'data:{"a":"\xff"}\n\n', ['{"a":"\ufffd"}'.encode()]),
    ],
)
def test_the_data_of_each_event_is_a_text(events: bytes, texts: list[bytes]) -> None:
    assert texts == [*payloads(events)]


@given(st.dictionaries(st.text(), st.integers(), max_size=3), st.sampled_from(" \n"))
def test_a_member_more(data: dict[str, int], space: str) -> None:
    text = (json.dumps(data) + space).encode()

    assert {**data, "stream_id": "x"} == json.loads(
        with_member(text, "stream_id", b'"x"')
    )


# --- the reader ---------------------------------------------------------------------

PARTS = st.lists(st.binary(max_size=300), min_size=1, max_size=4)


@given(
    st.lists(st.tuples(PARTS, st.booleans(), st.booleans()), max_size=4),
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_messages_in_any_fragments_and_any_reads(
    messages: list[tuple[list[bytes], bool, bool]], reads: list[int]
) -> None:
    wire, expected = b"", []
    for parts, is_text, ping in messages:
        expected.append((b"".join(parts), is_text))
        kind = Opcode.TEXT if is_text else Opcode.BINARY
        for n, part in enumerate(parts):
            frame = Frame(Opcode.CONT if n else kind, part, fin=n == len(parts) - 1)
            wire += frame.serialize(mask=True)
            if ping:
                wire += Frame(Opcode.PING, b"p").serialize(mask=True)
    reader, got, at, sizes = MessageReader(1 << 16, deflates=True), [], 0, deque(reads)
    while at < len(wire):
        whole, _ = reader.feed(wire[at : at + sizes[0]])
        at += sizes[0]
        sizes.rotate()
        got += [(one.data, one.is_text) for one in whole]

    assert expected == got
    pongs = sum(len(parts) for parts, _, ping in messages if ping)
    assert pongs == len(reader.to_send())


@given(st.binary(max_size=2000), st.booleans())
def test_garbage_ends_it_and_raises_nothing(data: bytes, deflates: bool) -> None:
    reader = MessageReader(1 << 16, deflates=deflates)
    for n in range(0, len(data), 100):
        reader.feed(data[n : n + 100])
    reader.to_send()
    reader.feed_eof()

    assert reader.is_over and not reader.is_open
    assert reader.close_code


def test_a_message_in_a_thousand_pieces_is_bounded() -> None:
    reader = MessageReader(1000, deflates=False)
    for n in range(1002):
        kind = Opcode.CONT if n else Opcode.TEXT
        reader.feed(Frame(kind, b"x", fin=False).serialize(mask=True))

    assert not reader.is_open
    assert 1009 == reader.close_code


@given(st.binary(max_size=2_000), st.integers(1, 200))
def test_an_inflater_gives_bounded_steps(seed: bytes, times: int) -> None:
    data = seed * times
    deflate = zlib.compressobj(wbits=-15)
    packed = deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
    inflater, pieces = MessageInflater(), []
    inflater.feed(packed)
    while not inflater.hungry:
        pieces.append(inflater.step())

    assert data == b"".join(pieces)
    assert all(len(piece) <= 65536 for piece in pieces)


@pytest.mark.parametrize(
    ("offer", "bits"),
    [
        ("permessage-deflate; client_max_window_bits", 15),
        ("permessage-deflate; server_max_window_bits=10", 10),
        ("permessage-deflate; server_max_window_bits=99, permessage-deflate", 15),
        ("x-webkit-deflate-frame", 0),
        ("permessage-deflate; nonsense", 0),
        ("permessage-deflate;;;=", 0),
        ("", 0),
    ],
)
def test_what_is_agreed_to(offer: str, bits: int) -> None:
    headers = {
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Extensions": offer,
    }
    agreed = agree(CIMultiDict(headers))

    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == agreed.accept  # RFC 6455, 1.3
    assert bits == agreed.deflate_bits
    assert bool(bits) == ("Sec-WebSocket-Extensions" in agreed.headers)


# --- lanes --------------------------------------------------------------------------


class LanesMachine(RuleBasedStateMachine):
    """Lanes beside the simplest thing that does the same."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[tuple[str, int]] = Lanes()
        self.waiting: dict[str, list[int]] = {}
        self.running: set[str] = set()
        self.count = 0

    @rule(lane=st.sampled_from([f"l{n}" for n in range(MAX_RUNNING + 4)]))
    def ask(self, lane: str) -> None:
        self.count += 1
        self.lanes.add(lane, (lane, self.count))
        self.waiting.setdefault(lane, []).append(self.count)
        self.start()

    @rule(data=st.data())
    def end(self, data: Any) -> None:
        if self.running:
            lane = data.draw(st.sampled_from(sorted(self.running)))
            self.running.discard(lane)
            self.lanes.done(lane)
            self.start()

    def start(self) -> None:
        while item := self.lanes.start():
            lane, number = item
            assert lane not in self.running
            assert number == self.waiting[lane].pop(0)  # FIFO in a lane
            self.running.add(lane)

    @invariant()
    def bounded_and_busy(self) -> None:
        waiting = {lane for lane, line in self.waiting.items() if line}
        assert len(self.running) <= MAX_RUNNING
        assert len(self.running) == MAX_RUNNING or not waiting - self.running
        assert self.lanes.idle == (not waiting and not self.running)


TestLanes = LanesMachine.TestCase
TestLanes.settings = settings(max_examples=20, stateful_step_count=40)


def test_a_lane_that_waited_longest_is_next() -> None:
    lanes: Lanes[str] = Lanes()
    for n in range(MAX_RUNNING):
        lanes.add(f"l{n}", f"first of {n}")
    while lanes.start():
        pass
    lanes.add("l0", "second of 0")
    lanes.add("late", "late")
    lanes.add("l0", "third of 0")
    lanes.done("l0")

    assert "second of 0" == lanes.start()
    assert lanes.start() is None
    lanes.done("l0")
    assert "late" == lanes.start()


def test_what_waits_is_bounded() -> None:
    lanes: Lanes[int] = Lanes()
    for n in range(MAX_WAITING):
        lanes.check()
        lanes.add("", n)

    with pytest.raises(Overloaded, match="queue_full"):
        lanes.check()
    assert [*range(MAX_WAITING)] == lanes.clear()
    lanes.check()


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 257, 7, ["a"], {}])
def test_a_name_that_is_none(name: object) -> None:
    with pytest.raises(ClientError, match="invalid_stream_id"):
        Lanes[int]().enter(name)


# --- memory -------------------------------------------------------------------------


def turn(parent: Turn | None, size: int) -> Turn:
    return Turn(parent, b"x" * size)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["alice", "bob"]),
            st.sampled_from(["c1", "c2"]),
            st.integers(0, 12),
            st.integers(-1, 12),
            st.sampled_from(["add", "forget", "drop", "find"]),
        ),
        max_size=60,
    )
)
def test_bytes_are_those_of_what_can_be_named(
    steps: list[tuple[str, str, int, int, str]],
) -> None:
    """Whatever is added, evicted or dropped: never too much, and 0 at the end."""
    memory = TurnMemory(max_user_bytes=8_000, max_total_bytes=12_000)
    for user, connection, n, parent, step in steps:
        key = Key(f"{user}-{connection}", f"resp_{n}")
        before = memory.find(user, Key(key.connection_id, f"resp_{parent}"))
        if step == "add":
            memory.add(user, key, turn(before, 100 * n))
            assert memory.find(user, key) and not memory.was_here(key)
        elif step == "forget":
            memory.forget(user, key)
            assert memory.find(user, key) is None
        elif step == "drop":
            memory.drop(user, key.connection_id)
        alive = set()
        for turns in memory._users.values():
            held = set()
            for one in turns.named.values():
                at: Turn | None = one
                while at is not None:
                    held.add(at)
                    at = at.parent
            assert turns.bytes == sum(one.size for one in held) <= 8_000
            alive |= held
        assert memory.bytes == sum(one.size for one in alive) <= 12_000
    for user in ("alice", "bob"):
        for connection in ("c1", "c2"):
            memory.drop(user, f"{user}-{connection}")
    assert (0, {}, {}) == (memory.bytes, memory._users, memory._connections)


def test_a_parent_that_was_evicted_meanwhile_is_held_by_its_child() -> None:
    memory = TurnMemory(max_user_bytes=2 * TURN_BYTES + 1_000)
    first = turn(None, 400)
    memory.add("alice", Key("c", "r1"), first)
    memory.forget("alice", Key("c", "r1"))
    memory.add("alice", Key("c", "r2"), turn(first, 400))

    assert memory.bytes == 2 * TURN_BYTES + 800
    assert memory.was_here(Key("c", "r1"))


def test_ids_that_were_here_are_bounded() -> None:
    memory = TurnMemory(max_user_bytes=TURN_BYTES)
    for n in range(MAX_FORGOTTEN + 2):
        memory.add("alice", Key("c", f"r{n}"), turn(None, 0))

    assert MAX_FORGOTTEN == len(memory._connections["c"].forgotten)
    assert not memory.was_here(Key("c", "r0"))
    assert memory.was_here(Key("c", "r1"))


# --- output -------------------------------------------------------------------------


def item_event(kind: str, index: int, item: object) -> bytes:
    data = {"type": f"response.output_item.{kind}", "output_index": index, "item": item}
    return json.dumps(data).encode()


def test_items_are_kept_in_their_order() -> None:
    output = TurnOutput()
    output.note(item_event("added", 0, {"id": "a"}))
    output.note(item_event("added", 1, {"id": "b"}))
    output.note(item_event("done", 1, {"id": "b", "n": 1}))
    output.note(b'{"type":"response.output_item.done","output_index":"x","item":{}}')

    assert [(0, "a")] == output.open_items
    assert b'{"id":"b","n":1}' == output.items
    output.note(item_event("done", 0, {"id": "a"}))
    assert b'{"id":"a"},{"id":"b","n":1}' == output.items


def test_a_response_that_is_too_large_is_not_kept() -> None:
    output = TurnOutput()
    output.note(item_event("done", 0, {"text": "x" * MAX_BYTES}))

    assert output.too_large
    assert b"" == output.items


# --- requests -----------------------------------------------------------------------

UPGRADE = base_headers({"User-Agent": "x", "Upgrade": "websocket"})


def create(document: dict[str, Any], parent: Turn | None = None) -> Create:
    return Create({"model": "m", **document}, UPGRADE, parent, was_here=False)


@pytest.mark.parametrize(
    ("document", "body"),
    [
        ({}, {}),
        ({"input": "x"}, {"input": "x"}),
        ({"input": []}, {"input": []}),
        ({"input": {"odd": 1}}, {"input": {"odd": 1}}),
        ({"stream": False, "stream_id": "a", "type": "t", "background": False}, {}),
        ({"new": [1]}, {"new": [1]}),
        ({"previous_response_id": "r"}, {"previous_response_id": "r"}),
    ],
)
def test_the_request_of_a_message(
    document: dict[str, Any], body: dict[str, Any]
) -> None:
    made = json.loads(create(document).body(1000).data)

    assert {"model": "m", "stream": True, **body} == made


def test_the_request_of_a_continuation() -> None:
    root = create({"input": "a", "previous_response_id": "ext"})
    first = root.turn(b'{"o":1}', "")
    second = create({"input": [{"i": 2}]}, first).turn(b"", "")
    made = json.loads(create({"input": "c"}, second).body(10_000).data)

    assert "ext" == made["previous_response_id"]
    user = {"type": "message", "role": "user"}
    assert [
        {**user, "content": "a"},
        {"o": 1},
        {"i": 2},
        {**user, "content": "c"},
    ] == made["input"]


def test_a_message_nested_too_deeply_is_the_clients_mistake() -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]

    with pytest.raises(ClientError, match="invalid_request"):
        create({"input": [deep], "tools": deep}).body(10_000)
