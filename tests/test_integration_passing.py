"""
Same protocol on both sides: bytes, unknown things and the family's headers pass.

What is the gateway's own business (keys, hops, ids, the model's name) does not.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, badly, endings, plays
from tests.kit.answer import Answer, Tool
from tests.kit.asking import PATHS, question
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, ScriptedUpstream
from tests.kit.settings import account, key_of

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@each_protocol
async def test_the_request_body_is_not_touched(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Spaces, order, unknown fields, large numbers: byte for byte."""
    body = (
        '{ "zzz":1.0,"unknown" : {"b":[1,2 ,3]},  "model" :"%s-x",'
        '"big":12345678901234567890123,"text":"\\u00e9 é \\ud83d\\ude00",'
        '"stream":true,'
        '"input":"hi","messages":[{"role":"user","content":"hi"}],"max_tokens":9}'
    ) % protocol
    reply = await gateway.client().send(PATHS[protocol], body.encode())

    endings.whole(protocol, reply)
    sent = upstream.received()[0].body
    if protocol != "chat":
        assert body.encode() == sent
    else:  # the usage is asked for besides, for the ledger
        document = json.loads(sent)
        assert {"include_usage": True} == document.pop("stream_options")
        assert json.loads(body) == document


@each_protocol
async def test_an_answer_that_is_whole_when_it_begins_leaves_in_one_write(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    upstream.next(plays.shaped())
    body = json.dumps(question(protocol, f"{protocol}-x")).encode()
    reader, writer = await badly.connect(gateway)
    head = badly.raw_head(
        protocol, gateway, f"content-length: {len(body)}", "in-one-write"
    )
    writer.write(head + body)

    first = await reader.read(1 << 20)
    writer.close()

    assert first.startswith(b"HTTP/1.1 200 ")
    assert first.endswith(b"\r\n0\r\n\r\n")
    assert "ok" == (await gateway.log.wait_finished("in-one-write"))["outcome"]


@each_protocol
async def test_only_the_model_changes_when_it_is_renamed(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    rows = [account(upstream, protocol, rename={f"{protocol}-fast": "real-1"})]
    gateway = await serve(accounts=rows)
    extra: dict[str, Any] = {"zzz": [1, {"model": "other"}], "aaa": None}

    reply = await gateway.client().ask(protocol, f"{protocol}-fast", **extra)

    endings.whole(protocol, reply)
    sent = upstream.received()[0].json
    sent.pop("stream_options", None)
    expected = {**question(protocol, f"{protocol}-fast"), **extra}
    assert {**expected, "model": "real-1"} == sent
    line = await gateway.finished(reply)
    assert (f"{protocol}-fast", "real-1") == (line["model"], line["upstream_model"])


@each_protocol
async def test_the_stream_passes_byte_for_byte(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    said: list[bytes] = []
    answer = Answer(
        pieces=("a", "é\u2028", "🙂"), reasoning="hm", tool=Tool("f", {"a": "b"})
    )

    async def play(exchange: Exchange) -> None:
        stream = answers.stream(protocol, answer, exchange.request.json)
        odd = b": a comment\n\nid: 7\nretry: 10\nevent: unknown.thing\n"
        odd += b'data: {"type":"unknown.thing","choices":[],\ndata: "x":1}\n\n'
        said.extend([*stream.begun(1), odd, *stream.deltas[1:], *stream.tail])
        await exchange.head()
        for event in said:
            await exchange.send(event)
        await exchange.end()

    upstream.next(play)
    extra = {"stream_options": {"include_usage": True}} if protocol == "chat" else {}
    reply = await gateway.client().ask(protocol, f"{protocol}-x", **extra)

    assert b"".join(said) == reply.body


async def test_usage_that_the_client_did_not_ask_for_is_not_given(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    reply = await gateway.client().ask("chat", "chat-x")

    endings.whole("chat", reply)
    chunks = [event.json for event in reply.events[:-1]]
    assert all(chunk["choices"] for chunk in chunks)
    assert not any(chunk.get("usage") for chunk in chunks)
    assert 11 == (await gateway.finished(reply))["input_tokens"]


async def test_usage_that_the_client_asked_for_is_given(gateway: Gateway) -> None:
    reply = await gateway.client().ask(
        "chat", "chat-x", stream_options={"include_usage": True}
    )

    assert 11 == reply.events[-2].json["usage"]["prompt_tokens"]


@each_protocol
async def test_a_body_passes_unchanged(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    answer = Answer(id="known", tool=Tool("f", {"a": 1}), reasoning="hm")
    upstream.next(plays.ok(answer))

    reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=False)

    assert 200 == reply.status
    assert reply.headers["content-type"].startswith("application/json")
    expected = answers.body(protocol, answer, {"model": f"{protocol}-x"})
    assert json.dumps(expected).encode() == reply.body
    assert 11 == (await gateway.finished(reply))["input_tokens"]


FAMILY = {
    "responses": {
        "x-codex-turn-metadata": '{"turn_id":"1"}',
        "session-id": "11111111-2222",
        "thread-id": "11111111-2222",
        "originator": "codex_exec",
        "openai-beta": "responses=v1",
        "x-codex-beta-features": "remote_compaction_v2",
        "x-openai-internal-codex-responses-lite": "1",
    },
    "chat": {"openai-beta": "x=1", "x-client-request-id": "1-2-3"},
    "messages": {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "claude-code-20250219,other",
        "x-claude-code-session-id": "3333-4444",
        "x-app": "cli",
    },
}


@each_protocol
async def test_the_familys_headers_pass_upstream(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    reply = await gateway.client().ask(
        protocol, f"{protocol}-x", headers=FAMILY[protocol]
    )

    endings.whole(protocol, reply)
    assert FAMILY[protocol].items() <= upstream.received()[0].headers.items()


@each_protocol
async def test_credentials_and_hops_stay_here(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    mine = {
        "x-api-key": key_of("alice"),
        "cookie": "session=1",
        "proxy-authorization": "Basic eA==",
        "te": "trailers",
        "keep-alive": "timeout=5",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
    }
    reply = await gateway.client().ask(protocol, f"{protocol}-x", headers=mine)

    endings.whole(protocol, reply)
    request = upstream.received()[0]
    assert f"sk-{protocol}" == request.key
    for name in ("cookie", "proxy-authorization", "te", "keep-alive", "x-hop"):
        assert name not in request.headers
    assert key_of("alice") not in str(request.headers)
    one_form = "x-api-key" if protocol == "messages" else "authorization"
    other = {"x-api-key", "authorization"} - {one_form}
    assert one_form in request.headers
    assert not other & set(request.headers)


BILLS = {
    "OpenAI-Organization": "whose-bill",
    "OpenAI-Project": "whose-bill",
    "anthropic-organization-id": "whose-bill",
    "anthropic-workspace-id": "whose-bill",
    "x-goog-user-project": "whose-bill",
    "x-goog-api-key": "whose-bill",
    "helicone-auth": "whose-bill",
    "x-amz-security-token": "whose-bill",
    "x-forwarded-for": "whose-bill",
    "forwarded": "whose-bill",
    "via": "whose-bill",
    "cookie": "whose-bill",
}


@each_protocol
@pytest.mark.parametrize("speaks", answers.PROTOCOLS)
async def test_whose_bill_it_is_is_the_operators_to_say(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, speaks: str
) -> None:
    """On the same protocol, converted, as a stream and as a whole."""
    mine = {"OpenAI-Project": "ours"}
    rows = [account(upstream, speaks, models=["*"], headers=mine)]
    gateway = await serve(accounts=rows)

    for stream in (True, False):
        await gateway.client().ask(protocol, "any", stream=stream, headers=BILLS)

    assert 2 == len(upstream.received())
    for request in upstream.received():
        assert "whose-bill" not in str(request.headers)
        assert "ours" == request.headers["openai-project"]


async def test_whose_bill_it_is_stays_here_at_the_side_doors(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    ask = gateway.client().send
    made = await gateway.client().ask("responses", "responses-x")
    ident = made.last.json["response"]["id"]
    upstream.requests.clear()
    count = json.dumps({**question("messages", "messages-x")}).encode()

    await ask("/v1/messages/count_tokens", count, headers=BILLS)
    await ask(f"/v1/responses/{ident}", method="GET", headers=BILLS)
    await ask("/v1/models", method="GET", headers=BILLS)

    paths = {request.path for request in upstream.requests}
    assert {"/messages/count_tokens", f"/responses/{ident}", "/models"} <= paths
    for request in upstream.requests:
        assert "whose-bill" not in str(request.headers)


@each_protocol
async def test_the_accounts_own_headers_and_auth_are_sent(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    rows = [
        account(upstream, protocol, auth="api-key", headers={"OpenAI-Project": "p"})
    ]
    gateway = await serve(accounts=rows)

    await gateway.client().ask(protocol, f"{protocol}-x")

    headers = upstream.received()[0].headers
    assert (f"sk-{protocol}", "p") == (headers["api-key"], headers["openai-project"])
    assert "authorization" not in headers and "x-api-key" not in headers


@each_protocol
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "non-stream"])
async def test_the_familys_headers_pass_back_and_others_do_not(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    headers = {
        "x-request-id": "up-1",
        "request-id": "up-1",
        "openai-processing-ms": "5",
        "x-ratelimit-remaining-requests": "9",
        "anthropic-ratelimit-requests-remaining": "9",
        "set-cookie": "a=b",
        "server": "secret-server",
        "keep-alive": "timeout=3",
    }
    upstream.next(plays.ok(headers=headers))

    reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=stream)

    assert "up-1" == reply.headers["x-upstream-request-id"]
    assert reply.headers["x-request-id"] == gateway.client().asked[-1]
    assert not {"set-cookie", "keep-alive"} & set(reply.headers)
    assert "secret-server" != reply.headers.get("server")
    if protocol == "messages":
        assert reply.headers["request-id"] == reply.request_id
    line = await gateway.finished(reply)
    assert "up-1" == line["upstream_request_id"]


@each_protocol
@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": key_of("bob"), "authorization": ""},
        {"authorization": f"Bearer {key_of('bob')}"},
        {"authorization": f"bearer  {key_of('bob')}"},
        {"x-api-key": key_of("bob"), "authorization": f"Bearer {key_of('bob')}"},
    ],
    ids=["x-api-key", "bearer", "lower-case", "both"],
)
async def test_either_form_of_the_key_is_taken(
    gateway: Gateway, protocol: str, headers: dict[str, str]
) -> None:
    reply = await gateway.client().ask(protocol, f"{protocol}-x", headers=headers)

    endings.whole(protocol, reply)
    assert "bob" == (await gateway.finished(reply))["user"]


@each_protocol
async def test_the_path_works_without_v1_and_with_a_query(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    body = json.dumps(question(protocol, f"{protocol}-x")).encode()
    bare = PATHS[protocol].removeprefix("/v1")

    for path in (bare, PATHS[protocol] + "?beta=true"):
        endings.whole(protocol, await gateway.client().send(path, body))

    assert "beta=true" == upstream.received()[1].query
