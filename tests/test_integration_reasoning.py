"""Reasoning goes back to the account that made it, and to no other."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from gateway.config.parse import parse
from gateway.daemon.app import components_of
from gateway.protocols import outline
from tests.conftest import Serve
from tests.kit import plays, settings
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.reasoning import Talk, maker, refusal, seal, sealing, sent_to
from tests.kit.scripted import Exchange, ScriptedUpstream
from tests.kit.settings import Table, account

native = pytest.mark.parametrize("protocol", ["responses", "messages"])
CROSS = pytest.mark.parametrize(
    ("protocol", "other"), [("responses", "messages"), ("messages", "responses")]
)


@pytest.fixture(params=[outline.MIN_BYTES, 0], ids=["parsed", "outlined"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are parsed, as short ones are, or have an outline, as long ones have."""
    monkeypatch.setattr(outline, "MIN_BYTES", request.param)


def two_models(upstream: ScriptedUpstream, protocol: str) -> list[Table]:
    """A big model on one account, a small one on another."""
    return [
        account(upstream, f"{protocol}-big", models=["big"]),
        account(upstream, f"{protocol}-small", models=["small"]),
    ]


def pair(upstream: ScriptedUpstream, protocol: str) -> list[Table]:
    """Two accounts for every model, the first preferred."""
    return [
        account(upstream, f"{protocol}-first", priority=1, models=["*"]),
        account(upstream, f"{protocol}-second", priority=2, models=["*"]),
    ]


async def sealed(
    serve: Serve, upstream: ScriptedUpstream, rows: list[Table]
) -> Gateway:
    upstream.always(sealing())
    return await serve(accounts=rows)


def talk(gateway: Gateway, protocol: str, **fields: Any) -> Talk:
    return Talk(gateway.client(), protocol, "s-1", **fields)


def reload(gateway: Gateway, rows: list[Table]) -> None:
    """Take up a config that has these accounts."""
    text = settings.config_text(listen=["127.0.0.1:1"], accounts=rows)
    secrets = settings.environment(rows)
    config = parse(text, lambda name: secrets[name.removeprefix("env:")])
    components_of(gateway.inside.app).reload(config)


def refused(upstream: ScriptedUpstream) -> list[str]:
    """The accounts that were sent what they cannot read."""
    return [
        request.account
        for request, makers in zip(upstream.received(), sent_to(upstream))
        if set(makers) - {request.account}
    ]


# --- two models of one session ----------------------------------------------------


@native
async def test_small_turns_between_leave_the_big_models_body_alone(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await sealed(serve, upstream, two_models(upstream, protocol))
    big = talk(gateway, protocol)
    if protocol == "messages":
        big.extra["thinking"] = {"type": "enabled", "budget_tokens": 2048}

    for _ in range(4):
        await big.turn("big")
        assert big.sent == upstream.received(f"{protocol}-big")[-1].body
        await talk(gateway, protocol).turn("small")

    assert ["big"] * 3 == [
        name.partition("-")[2] for name in sent_to(upstream, f"{protocol}-big")[-1]
    ]


@native
async def test_a_model_is_switched_and_switched_back(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """One history over both: each account gets its own reasoning, at the first try."""
    gateway = await sealed(serve, upstream, two_models(upstream, protocol))
    one = talk(gateway, protocol)

    for model in ("big", "big", "small", "small", "big", "small"):
        await one.turn(model)

    assert 6 == len(upstream.received()), "nothing was refused"
    big, small = f"{protocol}-big", f"{protocol}-small"
    assert [[], [big], [big] * 2] == sent_to(upstream, big)
    assert [[], [small], [small] * 2] == sent_to(upstream, small)


@native
async def test_a_small_model_never_moves_the_big_one(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """The small model fits one account alone, and the big one stays on the other."""
    rows = pair(upstream, protocol)
    rows[0] = {**rows[0], "priority": 2}
    rows[1] = {**rows[1], "priority": 2, "models": ["big"]}
    gateway = await sealed(serve, upstream, rows)
    upstream.next(plays.status(503), account=f"{protocol}-first", model="big")
    big, second = talk(gateway, protocol), f"{protocol}-second"
    while not big.made_by() or big.made_by()[-1] != second:
        await big.turn("big")
    began = len(upstream.received(second))

    for _ in range(3):
        await talk(gateway, protocol).turn("small")
        await big.turn("big")

    assert began + 3 == len(upstream.received(second))


# --- moves ------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
@native
@pytest.mark.parametrize("stream", [True, False], ids=["sse", "json"])
async def test_a_moved_session_leaves_the_old_behind_and_keeps_the_new(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    gateway = await sealed(serve, upstream, pair(upstream, protocol))
    one, second = talk(gateway, protocol, stream=stream), f"{protocol}-second"
    await one.turn("m")
    await one.turn("m")
    upstream.next(plays.status(503), account=f"{protocol}-first")
    for _ in range(3):
        await one.turn("m")

    assert [[], [second], [second] * 2] == sent_to(upstream, second)
    assert not refused(upstream)


@native
async def test_sub_agents_of_one_session_run_side_by_side(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """One is moved while the others work: what each made stays its own."""
    gateway = await sealed(serve, upstream, pair(upstream, protocol))
    agents = [talk(gateway, protocol) for _ in range(4)]
    await asyncio.gather(*(agent.turn("m") for agent in agents))
    upstream.next(plays.status(503), account=f"{protocol}-first")
    for _ in range(3):
        await asyncio.gather(*(agent.turn("m") for agent in agents))

    assert not refused(upstream)
    assert 17 == len(upstream.received())


@native
async def test_an_account_is_removed_and_comes_back(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    rows = pair(upstream, protocol)
    gateway = await sealed(serve, upstream, rows)
    one = talk(gateway, protocol)
    await one.turn("m")
    reload(gateway, rows[1:])
    await one.turn("m")
    reload(gateway, rows)
    await one.turn("m")
    reload(gateway, rows[:1])
    await one.turn("m")

    first, second = f"{protocol}-first", f"{protocol}-second"
    assert [first, second, second, first] == one.made_by()
    assert [[], [first]] == sent_to(upstream, first)
    assert [[], [second]] == sent_to(upstream, second)


@native
async def test_a_name_that_stands_for_another_server_is_another_account(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Whether the new server reads what the old one made, a refusal tells."""
    rows = pair(upstream, protocol)[:1]
    gateway = await sealed(serve, upstream, rows)
    one = talk(gateway, protocol)
    await one.turn("m")
    reload(gateway, [{**rows[0], "base_url": upstream.base_url("moved")}])
    await one.turn("m")
    await one.turn("m")

    first = f"{protocol}-first"
    assert [[first], [], ["moved"]] == sent_to(upstream, "moved")


@native
async def test_a_restart_strips_nothing(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """The small model asks first; the reasoning of the big one is not foreign."""
    rows = two_models(upstream, protocol)
    before = await sealed(serve, upstream, rows)
    big = talk(before, protocol)
    await big.turn("big")

    after = await serve(accounts=rows)
    big.client = after.client()
    await talk(after, protocol).turn("small")
    await big.turn("big")

    assert big.sent == upstream.received(f"{protocol}-big")[-1].body
    assert 3 == len(upstream.received())


@native
async def test_a_refusal_after_a_restart_costs_one_question_and_nothing_that_is_good(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """The makers are unknown: only what was not seen being made is left out."""
    gateway = await sealed(serve, upstream, pair(upstream, protocol)[:1])
    first = f"{protocol}-first"
    one, stranger = talk(gateway, protocol), talk(gateway, protocol)
    await one.turn("m")
    stranger.history = [json.loads(json.dumps(item)) for item in one.history]
    text = json.dumps(stranger.history).replace(first, "elsewhere")
    one.history = [*json.loads(text), *one.history]

    await one.turn("m")
    await one.turn("m")

    assert [[], ["elsewhere", first], [first], [first, first]] == sent_to(upstream)


@pytest.mark.usefixtures("short")
async def test_reasoning_is_left_out_twice_at_most(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """First the thinking, then what was not seen being made; then it is an error."""
    gateway = await sealed(serve, upstream, [account(upstream, "messages")])
    one = talk(gateway, "messages")
    await one.turn("messages-x")
    one.extra = dict(ENABLED)
    one.history += [{"role": "user", "content": "hi"}, said(USE)]
    one.history[1]["content"].insert(0, {**SIGNED, "signature": seal("elsewhere")})
    upstream.always(refusal("messages"))

    reply = await one.ask("messages-x", RESULT)

    assert 400 == reply.status
    asked = [["elsewhere", "messages"], ["elsewhere", "messages"], ["messages"]]
    assert asked == sent_to(upstream)[1:]


async def test_a_converted_tool_loop_loses_what_was_refused_at_once(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Only Anthropic's API asks for thinking before a call: it is not turned off."""
    rows = pair(upstream, "responses")
    before = await sealed(serve, upstream, rows[:1])
    one = talk(before, "messages", extra=dict(ENABLED))
    await one.turn("m")
    one.history += [{"role": "user", "content": "hi"}, said(USE)]
    one.client = (await serve(accounts=rows[1:])).client()

    await one.turn("m", RESULT)

    asked = [["responses-first"], []]
    assert asked == sent_to(upstream, "responses-second")


async def test_an_account_is_removed_while_it_refuses(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = pair(upstream, "responses")
    gateway = await sealed(serve, upstream, rows)

    async def play(exchange: Exchange) -> None:
        reload(gateway, rows[1:])
        await refusal("responses")(exchange)

    upstream.next(play, account="responses-first")
    thought = {"type": "reasoning", "summary": [], "encrypted_content": seal("gone")}

    reply = await talk(gateway, "responses", history=[thought]).ask("m")

    assert "invalid_encrypted_content" == reply.json["error"]["code"]


async def test_a_client_that_leaves_keeps_reasoning_whose_maker_is_known(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """It goes on from the part that it got, with another model, and back."""
    rows = two_models(upstream, "messages")
    gone = {"client_gone_drain_s": 0.0}
    upstream.always(sealing())
    gateway = await serve(accounts=rows, upstream=gone)
    one, gate = talk(gateway, "messages"), asyncio.Event()
    answer = Answer(reasoning="hm", proof=seal("messages-big"))
    upstream.next(plays.held(gate, deltas=3, answer=answer), account="messages-big")
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
    ident = str(uuid.uuid4())
    headers = {"x-request-id": ident}
    async with one.client.open("messages", "big", headers=headers, **body) as response:
        while b"signature_delta" not in await response.content.readline():
            pass

    thinking = {**SIGNED, "signature": answer.proof}
    one.history = [{"role": "user", "content": "hi"}, said(thinking, TEXT)]
    await gateway.log.wait_finished(ident)
    await one.turn("small")
    await one.turn("big")

    assert [[]] == sent_to(upstream, "messages-small")
    assert ["messages-big"] == sent_to(upstream, "messages-big")[-1]


# --- compactions ------------------------------------------------------------------


def compacted(name: str) -> dict[str, Any]:
    return {"type": "compaction", "id": f"cmp_{name}", "encrypted_content": seal(name)}


@pytest.mark.usefixtures("short")
async def test_a_compaction_outlives_the_small_models_turns(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await sealed(serve, upstream, two_models(upstream, "responses"))
    big = talk(gateway, "responses")
    await big.turn("big")
    big.history = [compacted("responses-big")]
    await talk(gateway, "responses").turn("small")
    await big.turn("big")
    await big.turn("big")

    assert big.sent == upstream.received("responses-big")[-1].body
    assert 4 == len(upstream.received())


async def test_a_compaction_after_a_restart_finds_the_account_that_made_it(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Its maker is unknown: every account that keeps responses may be asked."""
    rows = [account(upstream, "chat", priority=0, models=["*"])]
    gateway = await sealed(serve, upstream, rows + pair(upstream, "responses"))
    one = talk(gateway, "responses", history=[compacted("responses-second")])

    await one.turn("m")
    await one.turn("m")

    assert ["responses-first", "responses-second", "responses-second"] == [
        request.account for request in upstream.received()
    ]


async def test_a_compaction_that_no_account_reads_is_the_clients_error(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = [account(upstream, "chat", priority=0, models=["*"])]
    gateway = await sealed(serve, upstream, rows + pair(upstream, "responses"))
    one = talk(gateway, "responses", history=[compacted("gone")])

    for _ in range(2):
        reply = await one.ask("m")
        assert 400 == reply.status
        assert "invalid_encrypted_content" == reply.json["error"]["code"]

    assert 2 <= len(upstream.received()) <= 4


async def test_a_compaction_of_ours_goes_to_an_account_of_the_same_protocol_as_a_text(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = [
        account(upstream, "chat", models=["small"]),
        account(upstream, "responses", models=["big"]),
    ]
    gateway = await serve(accounts=rows)
    one = talk(gateway, "responses")
    reply = await one.ask("small", [{"type": "input_text", "text": "say something"}])
    trigger = {"type": "compaction_trigger"}
    body = {"model": "small", "input": [*one.history, trigger], "stream": False}
    reply = await one.client.send("/v1/responses", json.dumps(body).encode())
    (item,) = [i for i in reply.json["output"] if i["type"] == "compaction"]

    one.history = [item]
    await one.turn("big")

    sent = upstream.received("responses")[-1].json["input"]
    assert ["message", None] == [one.get("type") for one in sent]
    assert "All is well." in json.dumps(sent[0])


# --- converted answers ------------------------------------------------------------


@CROSS
@pytest.mark.parametrize("stream", [True, False], ids=["sse", "json"])
async def test_what_was_carried_comes_back_to_its_maker_alone(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, other: str, stream: bool
) -> None:
    """A client of one protocol, accounts of the other; the session moves."""
    gateway = await sealed(serve, upstream, pair(upstream, other))
    one, second = talk(gateway, protocol, stream=stream), f"{other}-second"
    if protocol == "messages":
        one.extra["thinking"] = {"type": "adaptive"}
    await one.turn("m")
    await one.turn("m")
    upstream.next(plays.status(503), account=f"{other}-first")
    await one.turn("m")
    await one.turn("m")

    first = f"{other}-first"
    assert [[], [first], [first] * 2] == sent_to(upstream, first)
    assert [[], [second]] == sent_to(upstream, second)


@CROSS
async def test_what_was_wrapped_is_nothing_to_an_account_of_the_clients_protocol(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, other: str
) -> None:
    """Even after a restart, when its maker is unknown."""
    rows = [
        account(upstream, other, models=["small"]),
        account(upstream, protocol, models=["big"]),
    ]
    gateway = await sealed(serve, upstream, rows)
    one = talk(gateway, protocol)
    if protocol == "messages":
        one.extra["thinking"] = {"type": "adaptive"}
    await one.turn("small")
    after = await serve(accounts=rows)
    one.client = after.client()
    await one.turn("big")
    await one.turn("big")
    await one.turn("small")

    assert [[], [protocol]] == sent_to(upstream, protocol)
    assert [[], [other]] == sent_to(upstream, other)


# --- unsigned thinking -------------------------------------------------------------

UNSIGNED = [
    pytest.param({"type": "thinking", "thinking": "hm", "signature": ""}, id="empty"),
    pytest.param({"type": "thinking", "thinking": "hm"}, id="missing"),
    pytest.param({"type": "thinking", "thinking": "hm", "signature": None}, id="null"),
    pytest.param({"type": "redacted_thinking", "data": ""}, id="redacted"),
]
SIGNED = {"type": "thinking", "thinking": "hm"}
TEXT = {"type": "text", "text": "yes"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
RESULT = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}]
ENABLED = {"thinking": {"type": "enabled", "budget_tokens": 2048}}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("block", UNSIGNED)
async def test_unsigned_thinking_does_not_go_to_those_who_verify(
    serve: Serve, upstream: ScriptedUpstream, block: dict[str, Any]
) -> None:
    gateway = await sealed(serve, upstream, [account(upstream, "messages")])
    history = [{"role": "user", "content": "hi"}, said(block, TEXT)]
    one = talk(gateway, "messages", history=history, extra=dict(ENABLED))

    await one.turn("messages-x")
    await one.turn("messages-x")

    first, second = upstream.received()
    assert [said(TEXT)] == first.json["messages"][1:2]
    assert ["messages"] == sent_to(upstream)[1]
    assert ENABLED["thinking"] == first.json["thinking"] == second.json["thinking"]


@pytest.mark.parametrize("block", UNSIGNED[:3])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"dialect": "deepseek"}, id="dialect"),
        pytest.param({"convert": {"thinking_back": True}}, id="option"),
        pytest.param({"rename": {"messages-x": "kimi-k2-thinking"}}, id="model"),
    ],
)
async def test_unsigned_thinking_goes_to_those_who_want_it_back(
    serve: Serve,
    upstream: ScriptedUpstream,
    block: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    gateway = await serve(accounts=[account(upstream, "messages", **fields)])
    history = [{"role": "user", "content": "hi"}, said(block, TEXT)]

    await talk(gateway, "messages", history=history).turn("messages-x")

    assert said(block, TEXT) == upstream.received()[-1].json["messages"][1]


async def test_a_turn_that_was_only_unsigned_thinking_goes_whole(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await sealed(serve, upstream, [account(upstream, "messages")])
    block = {"type": "thinking", "thinking": "hm", "signature": ""}
    history = [{"role": "user", "content": "hi"}, said(block)]

    await talk(gateway, "messages", history=history).turn("messages-x")

    sent = upstream.received()[-1].json["messages"]
    assert ["user", "user"] == [message["role"] for message in sent]


async def test_a_tool_loop_without_its_thinking_goes_on_without_thinking_and_says_so(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """For this request alone: the next one thinks again."""
    gateway = await sealed(serve, upstream, [account(upstream, "messages")])
    block = {"type": "thinking", "thinking": "hm", "signature": ""}
    history = [{"role": "user", "content": "hi"}, said(block, USE)]
    one = talk(gateway, "messages", history=history, extra=dict(ENABLED))

    reply = await one.turn("messages-x", RESULT)
    await one.turn("messages-x")

    first, second = upstream.received()
    assert {"type": "disabled"} == first.json["thinking"]
    assert ENABLED["thinking"] == second.json["thinking"]
    assert ["thinking"] == (await gateway.finished(reply))["dropped"]


async def test_a_tool_loop_that_began_without_thinking_is_mended_by_its_refusal(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """As when an account that does not think made the call."""
    gateway = await sealed(serve, upstream, [account(upstream, "messages")])
    history = [{"role": "user", "content": "hi"}, said(USE)]
    one = talk(gateway, "messages", history=history, extra=dict(ENABLED))

    reply = await one.turn("messages-x", RESULT)

    first, second = upstream.received()
    assert one.sent == first.body
    assert {"type": "disabled"} == second.json["thinking"]
    assert ["thinking"] == (await gateway.finished(reply))["dropped"]


async def test_signed_and_unsigned_thinking_in_one_history(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """The signed stays, also before a tool's call; thinking stays on."""
    upstream.always(sealing(Tool("f", {})))
    gateway = await serve(accounts=[account(upstream, "messages")])
    block = {"type": "thinking", "thinking": "hm", "signature": ""}
    history = [{"role": "user", "content": "hi"}, said(block, TEXT)]
    one = talk(gateway, "messages", history=history, extra=dict(ENABLED))
    await one.turn("messages-x")
    use = [b for b in one.history[-1]["content"] if b["type"] == "tool_use"]

    await one.turn("messages-x", [{**RESULT[0], "tool_use_id": use[0]["id"]}])

    last = upstream.received()[-1].json
    assert ENABLED["thinking"] == last["thinking"]
    assert ["messages"] == sent_to(upstream)[-1]
    assert 2 == len(upstream.received())


@pytest.mark.parametrize(
    "words",
    [
        "messages.1.content.0.thinking.signature: Field required",
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        "messages.1.content.0.thinking.signature: Input should be a valid string",
    ],
)
async def test_a_server_that_refuses_unsigned_thinking_is_not_sent_it_again(
    serve: Serve, upstream: ScriptedUpstream, words: str
) -> None:
    """It was said to want it back, and does not."""
    row = account(upstream, "messages", dialect="deepseek")
    gateway = await serve(accounts=[row])
    block = {"type": "thinking", "thinking": "hm", "signature": ""}
    history = [{"role": "user", "content": "hi"}, said(block, TEXT)]
    one = talk(gateway, "messages", history=history)
    upstream.next(refusal("messages", words))

    await one.turn("messages-x")
    await one.turn("messages-x")

    first, second, third = upstream.received()
    assert said(block, TEXT) == first.json["messages"][1]
    assert said(TEXT) == second.json["messages"][1] == third.json["messages"][1]


async def test_count_tokens_leaves_out_the_same(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(accounts=[account(upstream, "messages")])
    block = {"type": "thinking", "thinking": "hm", "signature": ""}
    body = {"model": "messages-x", "messages": [said(block, TEXT)]}

    await gateway.client().send("/v1/messages/count_tokens", json.dumps(body).encode())

    (request,) = upstream.requests
    assert [said(TEXT)] == request.json["messages"]


def test_the_kit_knows_who_sealed_what() -> None:
    assert "one" == maker(seal("one"))
    assert "" == maker("") == maker("other")
