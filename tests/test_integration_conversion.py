"""What a Responses client relies on, on accounts that keep nothing and speak another
protocol: earlier turns by id, compaction, refusals, what was left out, failover."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

FOREIGN = ("chat", "messages")
SENTINEL = b"data: [DONE]\n\n"

each_foreign = pytest.mark.parametrize("protocol", FOREIGN)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["sse", "json"])
CROSS = [
    pytest.param(client, upstream, id=f"{client}-on-{upstream}")
    for client in answers.PROTOCOLS
    for upstream in answers.PROTOCOLS
    if client != upstream
]


def response_of(reply: Reply) -> dict[str, Any]:
    """The ``response`` object, however it came."""
    assert 200 == reply.status, reply.body
    if reply.headers["content-type"].startswith("text/event-stream"):
        found = without_sentinel(reply).last.json["response"]
    else:
        found = reply.json
    assert isinstance(found, dict) and "completed" == found["status"]
    return found


def without_sentinel(reply: Reply) -> Reply:
    """A converted Responses stream says ``[DONE]`` behind its terminal: not here."""
    return replace(reply, body=reply.body.removesuffix(SENTINEL))


def words_of(request: Any) -> str:
    """All that the upstream received of the conversation."""
    return json.dumps(request.json["messages"])


@each_foreign
@streamed_or_not
async def test_a_turn_goes_on_from_the_one_before(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    client, model = gateway.client(), f"{protocol}-x"
    upstream.next(plays.ok(Answer(pieces=("My name ", "is Blue."))))
    ident = ""
    for said in ("first question", "second question", "third question"):
        reply = await client.ask(
            "responses",
            model,
            stream=stream,
            input=said,
            **({"previous_response_id": ident} if ident else {}),
        )
        ident = response_of(reply)["id"]

    last = words_of(upstream.received()[-1])
    places = [
        last.index(words)
        for words in (
            "first question",
            "My name is Blue.",
            "second question",
            "All is well.",
            "third question",
        )
    ]
    assert sorted(places) == places
    assert "previous_response_id" not in upstream.received()[-1].json


async def unknown(gateway: Gateway, user: str, model: str, ident: str) -> None:
    """*ident* is unknown for *user*: here, and at the account."""
    reply = await gateway.client(user).ask(
        "responses", model, stream=False, previous_response_id=ident
    )
    endings.before("responses", reply)
    error = reply.json["error"]
    assert (400, "previous_response_not_found", "previous_response_id") == (
        reply.status,
        error["code"],
        error["param"],
    )
    assert 404 == (await lookup(gateway, ident, user=user)).status


async def lookup(
    gateway: Gateway, ident: str, tail: str = "", method: str = "GET", user: str = ""
) -> Reply:
    client = gateway.client(user or "alice")
    return await client.send(f"/v1/responses/{ident}{tail}", method=method)


@each_foreign
async def test_an_unknown_response_is_refused_before_an_account_is_asked(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    await unknown(gateway, "alice", f"{protocol}-x", "resp_unknown")

    assert [] == upstream.received()


@each_foreign
async def test_an_answer_is_its_users_own(gateway: Gateway, protocol: str) -> None:
    model = f"{protocol}-x"
    response = response_of(await gateway.client().ask("responses", model))

    await unknown(gateway, "bob", model, response["id"])
    await lookup(gateway, response["id"], method="DELETE", user="bob")

    assert 200 == (await lookup(gateway, response["id"])).status


@each_foreign
@streamed_or_not
async def test_what_was_not_to_be_stored_is_not(
    gateway: Gateway, protocol: str, stream: bool
) -> None:
    model = f"{protocol}-x"
    reply = await gateway.client().ask("responses", model, stream=stream, store=False)

    await unknown(gateway, "alice", model, response_of(reply)["id"])


@each_foreign
async def test_a_kept_answer_is_read_and_deleted(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    model = f"{protocol}-x"
    response = response_of(await gateway.client().ask("responses", model))
    ident = response["id"]

    assert response == (await lookup(gateway, ident)).json
    listed = (await lookup(gateway, ident, "/input_items")).json
    assert "list" == listed["object"]
    assert "say something" in json.dumps(listed["data"])
    assert "All is well." not in json.dumps(listed["data"])
    deleted = (await lookup(gateway, ident, method="DELETE")).json
    assert (ident, True) == (deleted["id"], deleted["deleted"])
    await unknown(gateway, "alice", model, ident)
    assert 1 == len(upstream.received())


@each_foreign
async def test_a_conversation_is_compacted_and_goes_on(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Both ways to compact; the item stands for the conversation afterwards."""
    client, model = gateway.client(), f"{protocol}-x"
    upstream.always(plays.ok(Answer(pieces=("They like ", "blue."))))
    body = {"model": model, "input": "what we talked about"}
    whole = await client.send(
        "/v1/responses/compact",
        json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    said = {"type": "message", "role": "user", "content": "what we talked about"}
    triggered = await client.ask(
        "responses", model, input=[said, {"type": "compaction_trigger"}]
    )

    assert (200, "response.compaction") == (whole.status, whole.json["object"])
    for output in (whole.json["output"], response_of(triggered)["output"]):
        (item,) = [item for item in output if item["type"] == "compaction"]
        ask = {"type": "message", "role": "user", "content": "and now?"}
        response_of(await client.ask("responses", model, input=[item, ask]))
        last = words_of(upstream.received()[-1])
        assert last.index("They like blue.") < last.index("and now?")
    assert 4 == len(upstream.received())


async def count(gateway: Gateway, model: str, words: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": words}]}
    reply = await gateway.client().send(
        "/v1/messages/count_tokens", json.dumps(body).encode()
    )
    assert (200, ["input_tokens"]) == (reply.status, list(reply.json))
    return int(reply.json["input_tokens"])


@pytest.mark.parametrize("protocol", ["responses", "chat"])
async def test_tokens_are_counted_without_asking_anybody(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    few = await count(gateway, f"{protocol}-x", "hello")
    many = await count(gateway, f"{protocol}-x", "hello there, you " * 200)

    assert 0 < few < 50
    assert 400 < many < 1600
    assert [] == upstream.received()


REFUSED = [
    pytest.param("responses", "chat", {"background": True}, "background"),
    pytest.param("responses", "messages", {"background": True}, "background"),
    pytest.param("responses", "messages", {"conversation": "conv_1"}, "conversation"),
    pytest.param("responses", "chat", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    pytest.param("chat", "messages", {"n": 2}, "n"),
    pytest.param("chat", "responses", {"n": 2}, "n"),
]


@streamed_or_not
@pytest.mark.parametrize("protocol, speaks, extra, named", REFUSED)
async def test_what_would_change_the_answer_is_refused(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    protocol: str,
    speaks: str,
    extra: dict[str, Any],
    named: str,
    stream: bool,
) -> None:
    reply = await gateway.client().ask(protocol, f"{speaks}-x", stream=stream, **extra)

    error = endings.before(protocol, reply)
    assert (400, "invalid_request_error") == (reply.status, error.type)
    assert f"'{named}'" in error.message
    assert [] == upstream.received()
    line = await gateway.finished(reply)
    assert ("refused", "client", 0) == (
        line["outcome"],
        line["origin"],
        line["attempts"],
    )


@streamed_or_not
async def test_what_was_left_out_is_named(gateway: Gateway, stream: bool) -> None:
    """Always in the log; in a header to those who ask."""
    ask: Any = gateway.client().ask
    hints = {"seed": 7, "logit_bias": {"50": 1}, "stream": stream}
    named = await ask("chat", "messages-x", headers={"x-gateway-dropped": "1"}, **hints)
    unnamed = await ask("chat", "messages-x", **hints)

    for reply in (named, unnamed):
        dropped = (await gateway.finished(reply))["dropped"]
        assert {"seed", "logit_bias"} <= set(dropped)
    assert {"seed", "logit_bias"} <= set(named.headers["x-gateway-dropped"].split(","))
    assert "x-gateway-dropped" not in unnamed.headers


@pytest.mark.parametrize("play", [plays.status(503), plays.eof(0)], ids=["503", "eof"])
@pytest.mark.parametrize("client, other", CROSS)
async def test_an_account_of_another_protocol_takes_over(
    serve: Serve, upstream: ScriptedUpstream, client: str, other: str, play: Any
) -> None:
    """And the other way about: a native account after a foreign one."""
    rows = [
        account(upstream, f"{client}-one", priority=1, models=["native-first"]),
        account(upstream, f"{other}-two", priority=2, models=["native-first"]),
        account(upstream, f"{other}-one", priority=1, models=["foreign-first"]),
        account(upstream, f"{client}-two", priority=2, models=["foreign-first"]),
    ]
    gateway = await serve(accounts=rows)
    upstream.always(play, account=f"{client}-one")
    upstream.always(play, account=f"{other}-one")

    for model, taken in (
        ("native-first", f"{other}-two"),
        ("foreign-first", f"{client}-two"),
    ):
        reply = await gateway.client().ask(client, model)
        endings.whole(
            client, without_sentinel(reply) if client == "responses" else reply
        )
        line = await gateway.finished(reply)
        assert ("ok", 2, taken) == (line["outcome"], line["attempts"], line["account"])


@pytest.mark.parametrize("client, other", CROSS)
async def test_a_cut_answer_is_never_whole(
    gateway: Gateway, upstream: ScriptedUpstream, client: str, other: str
) -> None:
    upstream.next(plays.cut(2))

    reply = await gateway.client().ask(client, f"{other}-x")

    assert endings.FAILED[client] == endings.in_stream(client, reply).type
    assert "All is" in reply.text
    assert "failed" == (await gateway.explained(reply))["outcome"]
