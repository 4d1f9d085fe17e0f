"""A websocket's conversation, its lanes, its interrupts and warm-ups."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.daemon.app import components_of
from gateway.endpoints.websocket import lanes, turn_memory
from tests.conftest import Serve
from tests.kit import plays
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import user
from tests.kit.socket_account import over_sockets
from tests.kit.socket_upstream import SocketUpstream, begun, gated, silent
from tests.kit.websocket import CODEX, Frame, Socket, socket

each_protocol = pytest.mark.parametrize("protocol", ["responses", "chat", "messages"])
SHELL = Answer(tool=Tool("run", {"cmd": "ls"}))
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "the files"}
TOOLS = [{"type": "function", "name": "run", "parameters": {"type": "object"}}]


def memory(gateway: Gateway) -> turn_memory.TurnMemory:
    return components_of(gateway.inside.app).websockets._services.turns


# --- the conversation -----------------------------------------------------------------


@each_protocol
async def test_a_turn_goes_on_from_the_one_before_with_new_input_alone(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    model = f"{protocol}-a"
    upstream.next(plays.ok(SHELL))
    async with socket(gateway) as one:
        warm = await one.turn(
            model=model,
            generate=False,
            input=[{"type": "message", "role": "developer", "content": "Be brief."}],
        )
        first = await one.turn(
            model=model,
            tools=TOOLS,
            previous_response_id=warm.id,
            input="list the files",
        )
        second = await one.turn(
            model=model, tools=TOOLS, previous_response_id=first.id, input=[OUTPUT]
        )
        fork = await one.turn(
            model=model, tools=TOOLS, previous_response_id=warm.id, input="other"
        )

    assert [] == warm.last["response"]["output"]
    assert "All is well." == second.text == fork.text
    asked = [request.body.decode() for request in upstream.received()]
    for said in ("Be brief.", "list the files"):
        assert said in asked[0] and said in asked[1]
    assert "call_1" in asked[1] and "the files" in asked[1]
    assert "Be brief." in asked[2] and "list the files" not in asked[2]
    if protocol == "responses":
        assert "previous_response_id" not in upstream.received()[1].json
        kinds = [item["type"] for item in upstream.received()[1].json["input"]]
        assert ["message", "message", "function_call", "function_call_output"] == kinds
    assert 3 == len(gateway.log.events("request.finished"))  # a warm-up is none


async def test_an_answer_whose_items_are_in_its_terminal_alone_goes_on_too(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    item = {"type": "message", "role": "assistant", "content": "cobalt"}
    response = {"id": "resp_9", "status": "completed", "output": [item]}
    data = json.dumps({"type": "response.completed", "response": response})
    upstream.next(plays.raw(f"data: {data}\n\n".encode()))
    async with socket(gateway) as one:
        first = await one.turn(input="a word?")
        await one.turn(input="which?", previous_response_id=first.id)

    assert item in upstream.received()[1].json["input"]


async def test_whole_numbers_keep_their_digits(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async with socket(gateway) as one:
        first = await one.turn(input=[{"type": "new", "n": 2**70}], extra=2**70)
        await one.turn(input="go on", previous_response_id=first.id)

    assert [2**70, 2**70] == [
        request.json["input"][0]["n"] for request in upstream.received()
    ]
    assert 2**70 == upstream.received()[0].json["extra"]


@each_protocol
async def test_no_other_websocket_and_no_other_user_can_name_a_response(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    model = f"{protocol}-a"
    async with (
        socket(gateway) as one,
        socket(gateway) as two,
        socket(gateway, "bob") as other,
    ):
        first = await one.turn(model=model, input="a secret")
        for stranger in (two, other):
            failed = await stranger.turn(
                model=model, input="and?", previous_response_id=first.id
            )
            assert "previous_response_not_found" == failed.error["code"]
        go_on = await one.turn(model=model, input="x", previous_response_id=first.id)

    assert "response.completed" == go_on.last["type"]
    assert 2 == len(upstream.received())
    await gateway.log.wait_events("websocket.closed", 3)
    assert 0 == memory(gateway).bytes


@pytest.mark.parametrize("over", ["http", "websocket", "both"])
async def test_a_stored_conversation_goes_on_over_either(
    gateway: Gateway, upstream: ScriptedUpstream, over: str
) -> None:
    """On an account that keeps nothing the ledger has it, each turn once."""
    model, client = "chat-a", gateway.client()
    async with socket(gateway) as one:
        if over == "http":
            reply = await client.ask("responses", model, input="the word is cobalt")
            ident = str(reply.last.json["response"]["id"])
        else:
            first = await one.turn(model=model, store=True, input="the word is cobalt")
            ident = first.id
        second = await one.turn(
            model=model, store=True, input="second", previous_response_id=ident
        )
        third = await one.turn(
            model=model, store=True, input="third", previous_response_id=second.id
        )
        last = third.id
    async with socket(gateway) as two:
        if over == "both":
            await client.ask(
                "responses", model, input="fourth", previous_response_id=last
            )
        else:
            await two.turn(
                model=model, store=True, input="fourth", previous_response_id=last
            )

    asked = upstream.received()[-1].body.decode()
    assert all(asked.count(one) == 1 for one in ("cobalt", "second", "third", "fourth"))
    reply = await client.send(f"/v1/responses/{last}/input_items", method="GET")
    assert 5 == len(reply.json["data"])  # three turns, and the answers of two


async def test_a_response_that_an_account_keeps_is_the_accounts(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    reply = await gateway.client().ask("responses", "responses-a", input="the first")
    ident = reply.last.json["response"]["id"]
    async with socket(gateway) as one:
        second = await one.turn(input="second", previous_response_id=ident)
        await one.turn(input="third", previous_response_id=second.id)

    for request in upstream.received()[1:]:
        assert ident == request.json["previous_response_id"]
    texts = upstream.received()[2].body.decode()
    assert "second" in texts and "third" in texts and "the first" not in texts


async def test_a_continuation_that_fails_has_lost_its_parent(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """As the vendor has it; a fork from another lane costs nothing."""
    async with socket(gateway) as one:
        first = await one.turn(input="hello")
        upstream.next(plays.status(400), plays.status(400))
        await one.turn(input="x", stream_id="b", previous_response_id=first.id)
        await one.turn(input="x", previous_response_id=first.id)
        gone = await one.turn(input="x", previous_response_id=first.id)

    assert "previous_response_not_found" == gone.error["code"]
    assert 3 == len(upstream.received())


async def test_a_refusal_of_our_own_leaves_the_parent(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(
        users=[user("alice", max_concurrent=1)], limits={"queue_timeout_s": 0.2}
    )
    gate = asyncio.Event()
    async with socket(gateway) as one:
        first = await one.turn(input="hello")
        upstream.next(plays.held(gate))
        await one.create(input="x", stream_id="b")
        await upstream.wait_for(2)
        refused = await one.turn(input="x", previous_response_id=first.id)
        gate.set()
        await one.rest("b")
        well = await one.turn(input="x", previous_response_id=first.id)

    assert 429 == refused.last["status"]
    assert "response.completed" == well.last["type"]


async def test_what_was_evicted_is_not_found(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    turns = memory(gateway)
    turns._max_user_bytes = 20_000
    async with socket(gateway) as one:
        first = await one.turn(input="x" * 9_000)
        second = await one.turn(input="y" * 9_000)
        await one.turn(input="z" * 9_000)
        gone = await one.turn(input="x", previous_response_id=first.id)
        kept = await one.turn(input="x", previous_response_id=second.id)

    assert "previous_response_not_found" == gone.error["code"]
    assert "response.completed" == kept.last["type"]


# --- lanes ----------------------------------------------------------------------------


async def test_lanes_run_side_by_side_and_each_in_order(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway) as one:
        await one.create(input="slow", stream_id="a")
        await upstream.wait_for(1)
        await one.create(input="behind", stream_id="a")
        quick = await one.turn(input="quick", stream_id="b")
        assert 2 == len(upstream.received())
        gate.set()
        slow, behind = await one.rest("a"), await one.rest("a")

    assert {"b"} == {frame["stream_id"] for frame in quick.frames}
    assert "response.completed" == slow.last["type"] == behind.last["type"]
    assert b"behind" in upstream.received()[2].body


async def test_a_33rd_name_and_a_65th_waiter_are_refused(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    async with socket(gateway) as one:
        for n in range(lanes.MAX_NAMES):
            await one.turn(stream_id=f"lane-{n}", generate=False)
        refused = await one.turn(stream_id="lane-more", generate=False)
        upstream.next(plays.held(gate))
        await one.create(input="x")
        await upstream.wait_for(1)
        for _ in range(lanes.MAX_WAITING):
            await one.create(generate=False)
        await one.create(generate=False)
        while (full := await one.frame())["type"] != "error":
            pass
        gate.set()
        for _ in range(lanes.MAX_WAITING + 1):
            await one.rest()

    assert "websocket_stream_limit_reached" == refused.error["code"]
    assert 429 == full["status"]


# --- interrupts -----------------------------------------------------------------------


async def frame_of_type(one: Socket, kind: str) -> Frame:
    """The next frame of this *kind*; others are passed over."""
    while (frame := await one.frame())["type"] != kind:
        pass
    return frame


async def first_delta(one: Socket) -> str:
    """The id of the running response, once some of its text has come."""
    ident = ""
    while True:
        frame = await one.frame()
        ident = ident or str(frame.get("response", {}).get("id", ""))
        if frame["type"] == "response.output_text.delta":
            return ident


@each_protocol
async def test_an_interrupt_ends_the_response_at_once_and_it_can_be_gone_on_from(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(users=[user("alice", max_concurrent=1)])
    model = f"{protocol}-a"
    upstream.next(plays.silence(2))
    async with socket(gateway, headers=CODEX) as one:
        await one.create(model=model, input="think")
        ident = await first_delta(one)
        await one.send({"type": "response.interrupt", "response_id": ident})
        ended = await one.rest()
        await upstream.idle()
        go_on = await one.turn(model=model, input="now", previous_response_id=ident)

    kinds = [kind for kind in ended.kinds if kind != "response.output_text.delta"]
    assert [
        "response.interrupt.accepted",
        "response.output_item.interrupted",
        "response.incomplete",
    ] == kinds
    response = ended.last["response"]
    assert (ident, "incomplete") == (response["id"], response["status"])
    assert {"reason": "interrupted"} == response["incomplete_details"]
    assert upstream.received()[0].cut_by_client
    assert "response.completed" == go_on.last["type"]
    assert b"think" in upstream.received()[1].body
    lines = await gateway.log.wait_events("request.finished", 2)
    assert ("incomplete", ident) == (lines[0]["outcome"], lines[0]["response_id"])
    assert lines[0]["input_tokens"]  # reported, or estimated


async def test_an_interrupt_does_not_wait_for_a_slow_disk(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written while its answer ends; its row follows, once."""
    ledger = components_of(gateway.inside.app).ledger
    writer, held = ledger._writer, []
    upstream.next(plays.silence(2))
    async with socket(gateway, headers=CODEX) as one:
        await one.create(input="think")
        ident = await first_delta(one)
        with monkeypatch.context() as slow:
            slow.setattr(writer, "put", lambda *entries: held.extend(entries))
            await one.send({"type": "response.interrupt", "response_id": ident})
            ended = await one.rest()
        writer.put(*held)
        await one.turn(input="now", previous_response_id=ident)
    lines = await gateway.log.wait_events("request.finished", 2)
    ask = "SELECT outcome FROM request ORDER BY started_at"
    rows = await ledger.read(lambda connection: connection.exec_driver_sql(ask).all())

    assert held and "response.incomplete" == ended.last["type"]
    assert ["incomplete", "ok"] == [line["outcome"] for line in lines]
    assert [("incomplete",), ("ok",)] == rows


async def test_an_interrupt_of_what_does_not_run_is_answered(gateway: Gateway) -> None:
    async with socket(gateway) as one:
        first = await one.turn(input="hello")
        for ident in (first.id, "resp_no", None, 7):
            await one.send({"type": "response.interrupt", "response_id": ident})
            assert "response.interrupt.failed" == (await one.frame())["type"]
        await one.send({"type": "response.steer", "previous_response_id": first.id})
        steered = await one.frame()
        await one.send({"type": "response.processed", "response_id": first.id})
        well = await one.turn(input="hello")

    assert ("response.steer.failed", "steering_not_supported") == (
        steered["type"],
        steered["error"]["code"],
    )
    assert "response.created" == well.kinds[0]


async def test_what_is_said_of_a_response_is_said_in_its_lane(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Clients name the response alone; one that is not known has no lane."""
    async with socket(gateway, headers=CODEX) as one:
        first = await one.turn(input="hello", stream_id="a")
        upstream.next(plays.silence(2))
        await one.create(input="think", stream_id="b")
        ident = await first_delta(one)
        said = []
        for steered in (ident, first.id, "resp_no"):
            await one.send({"type": "response.steer", "previous_response_id": steered})
            said.append(await frame_of_type(one, "response.steer.failed"))
        await one.send({"type": "response.interrupt", "response_id": first.id})
        said.append(await frame_of_type(one, "response.interrupt.failed"))
        no_such = {"response_id": "resp_no", "stream_id": "b"}
        await one.send({"type": "response.interrupt", **no_such})
        said.append(await frame_of_type(one, "response.interrupt.failed"))
        await one.send({"type": "response.interrupt", "response_id": ident})
        ended = await one.rest("b")

    assert ["b", "a", None, "a", "b"] == [frame.get("stream_id") for frame in said]
    kinds = [kind for kind in ended.kinds if kind != "response.output_text.delta"]
    assert "response.interrupt.accepted" == kinds[0]
    assert "response.incomplete" == kinds[-1]


async def test_an_interrupt_while_an_account_over_websockets_only_thinks(
    serve: Serve, sockets: SocketUpstream
) -> None:
    """A client that may interrupt has the id as soon as the reasoning begins."""
    gateway = await serve(accounts=[over_sockets(sockets)])
    never = asyncio.Event()
    sockets.next(begun(3, gated(never, silent), Answer(reasoning="so")))
    lite = {"ws_request_header_x_openai_internal_codex_responses_lite": "true"}
    async with socket(gateway, headers=CODEX) as one:
        await one.create(input="think", client_metadata=lite)
        begins = [await one.frame() for _ in range(3)]
        ident = begins[0]["response"]["id"]
        await one.send({"type": "response.interrupt", "response_id": ident})
        ended = await one.rest()
        go_on = await one.turn(
            input="now", previous_response_id=ident, client_metadata=lite
        )
        never.set()

    assert ("response.created", "response.output_item.added", "reasoning") == (
        *(begins[0]["type"], begins[2]["type"], begins[2]["item"]["type"]),
    )
    assert [
        "response.interrupt.accepted",
        "response.output_item.interrupted",
        "response.incomplete",
    ] == ended.kinds
    assert {"reason": "interrupted"} == ended.last["response"]["incomplete_details"]
    assert "response.completed" == go_on.last["type"]
    whole = sockets.asked[1].json
    assert "previous_response_id" not in whole  # the account has given up that answer
    assert "think" in str(whole["input"]) and "now" in str(whole["input"])
    assert 2 == len(sockets.handshakes)  # no rest of the first is read as the second's
    lines = await gateway.log.wait_events("request.finished", 2)
    assert ["incomplete", "ok"] == [line["outcome"] for line in lines]


# --- warm-ups -------------------------------------------------------------------------


async def test_a_warm_up_takes_no_slot_no_queue_and_no_budget(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    limited = user(
        "alice", max_concurrent=1, max_queued=0, budget={"requests_per_minute": 1}
    )
    gateway = await serve(users=[limited])
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway) as one, socket(gateway) as two:
        await one.create(input="hello")
        await upstream.wait_for(1)
        for model in ("responses-a", "no-such-model"):
            warm = await two.turn(model=model, generate=False, input=[])
            assert ["response.created", "response.completed"] == warm.kinds
            assert 0 == warm.last["response"]["usage"]["total_tokens"]
        gate.set()
        await one.rest()

    assert 1 == len(upstream.received())
    assert 1 == len(await gateway.log.wait_events("request.finished"))


# --- waiting --------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [CODEX, {}], ids=["codex", "other"])
async def test_who_waits_gets_text_frames(
    serve: Serve, upstream: ScriptedUpstream, headers: dict[str, str]
) -> None:
    gateway = await serve(
        users=[user("alice", max_concurrent=1)], limits={"ping_interval_s": 0.1}
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway, headers=headers) as one:
        await one.create(input="hello", stream_id="a")
        await upstream.wait_for(1)
        await one.create(input="hello")
        waited = [await one.frame_of("") for _ in range(5)]
        gate.set()
        turn = await one.rest()

    assert {"type": "keepalive", "queued": {"position": 1, "expected_s": 1}} == {
        **waited[0],
        "queued": {**waited[0]["queued"], "expected_s": 1},
    }
    if headers:
        assert [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
        ] == [frame["type"] for frame in waited[1:4]]
        assert "Waiting in queue" in waited[3]["delta"]
    else:
        assert {"keepalive"} == {frame["type"] for frame in waited}
    assert "response.completed" == turn.last["type"]
