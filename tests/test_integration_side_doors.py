"""Beside the model endpoints: model lists, token counts, stored responses."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.daemon.app import components_of
from gateway.daemon.wiring import Components
from gateway.endpoints import count_tokens, model_lists, stored_responses
from tests.conftest import Serve
from tests.kit import endings, plays, settings
from tests.kit.asking import Reply, question
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, Play, ScriptedUpstream
from tests.kit.settings import account, user


def components(gateway: Gateway) -> Components:
    return components_of(gateway.inside.app)


def says(text: bytes, status: int = 200) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.reply(status, text)

    return play


def count_of(number: int) -> Play:
    return says(b'{"input_tokens":%d}' % number)


async def hang(exchange: Exchange) -> None:
    await asyncio.Event().wait()


def listed(*models: str) -> Play:
    return says(json.dumps({"data": [{"id": name} for name in models]}).encode())


def asked(upstream: ScriptedUpstream, path: str) -> list[str]:
    """The accounts that were asked at *path*, in order."""
    return [one.account for one in upstream.requests if one.path == path]


# --- token counts ---------------------------------------------------------------------

COUNT = "/messages/count_tokens"


async def count(gateway: Gateway, model: str = "messages-x", who: str = "alice") -> Any:
    body = json.dumps(question("messages", model, stream=False)).encode()
    return await gateway.client(who).send(f"/v1{COUNT}", body)


def pair(upstream: ScriptedUpstream) -> list[settings.Table]:
    """Two accounts that can count; the first one is asked first."""
    return [
        account(upstream, "messages"),
        account(upstream, "messages-2", priority=2),
    ]


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(plays.status(500), id="500"),
        pytest.param(plays.status(529), id="overloaded"),
        pytest.param(plays.status(429), id="rate-limited"),
        pytest.param(plays.status(401), id="refused"),
        pytest.param(plays.reset(None), id="reset"),
    ],
)
async def test_a_count_is_asked_of_the_next_account(
    serve: Serve, upstream: ScriptedUpstream, play: Play
) -> None:
    gateway = await serve(accounts=pair(upstream))
    upstream.next(play, account="messages")
    upstream.next(count_of(42), account="messages-2")
    reply = await count(gateway)

    assert (200, {"input_tokens": 42}) == (reply.status, reply.json)
    assert ["messages", "messages-2"] == asked(upstream, COUNT)
    line = await gateway.finished(reply)
    assert ("ok", "messages-2", 2) == (
        line["outcome"],
        line["account"],
        line["attempts"],
    )
    assert gateway.log.events("attempt.failed", account="messages")


@pytest.mark.parametrize("own_limit", [True, False])
async def test_an_account_that_does_not_answer_a_count_is_followed_by_the_next(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    own_limit: bool,
) -> None:
    """After the side doors' own limit, or after an answer's where that is shorter."""
    if own_limit:
        monkeypatch.setattr(count_tokens, "COUNT_TIMEOUT_S", 0.2)
    waits = None if own_limit else {"first_event_timeout_s": 0.2}
    gateway = await serve(accounts=pair(upstream), upstream=waits)
    upstream.next(hang, account="messages")
    upstream.next(count_of(42), account="messages-2")
    reply = await count(gateway)

    assert {"input_tokens": 42} == reply.json
    (failed,) = gateway.log.events("attempt.failed")
    assert ("messages", "upstream_timeout") == (failed["account"], failed["error_code"])


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_that_cannot_count_is_passed_over(
    serve: Serve, upstream: ScriptedUpstream, status: int
) -> None:
    """To one that can; where none can, the count is estimated."""
    gateway = await serve(accounts=pair(upstream))
    upstream.next(says(b"nothing here", status), account="messages")
    upstream.next(count_of(42), account="messages-2")
    assert {"input_tokens": 42} == (await count(gateway)).json
    upstream.next(says(b"", status), says(b"", status))
    reply = await count(gateway)

    assert 200 == reply.status
    assert reply.json["input_tokens"]
    assert (await gateway.finished(reply))["estimated"]
    assert all(
        one["available"]
        for one in components(gateway).accounts.status.states().values()
    )


async def test_a_mistake_of_the_clients_is_asked_once_and_passed_on(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(accounts=pair(upstream))
    upstream.next(plays.status(400))
    reply = await count(gateway)

    assert 400 == reply.status
    assert ["messages"] == asked(upstream, COUNT)


async def test_when_all_fail_the_error_is_that_of_the_model_endpoints(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(accounts=pair(upstream))
    upstream.next(plays.status(500), plays.status(500))
    reply = await count(gateway)

    assert (502, "api_error") == (
        reply.status,
        endings.before("messages", reply).type,
    )
    assert ["messages", "messages-2"] == asked(upstream, COUNT)


async def test_an_account_that_is_left_alone_is_not_asked(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(accounts=pair(upstream))
    limited = plays.status(429, headers={"retry-after": "30"})
    upstream.next(limited, account="messages")
    endings.whole("messages", await gateway.client().ask("messages", "messages-x"))
    upstream.next(count_of(42), account="messages-2")
    assert {"input_tokens": 42} == (await count(gateway)).json
    upstream.next(limited, account="messages-2")
    await gateway.client().ask("messages", "messages-x")
    reply = await count(gateway)

    assert ["messages-2"] == asked(upstream, COUNT)
    assert 429 == reply.status
    assert endings.before("messages", reply).retry_after_s


async def test_a_count_is_no_last_resort_of_an_account_that_failed(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """An answer may try what failed a moment ago; a count is not worth it."""
    gateway = await serve(accounts=pair(upstream)[:1])
    upstream.next(plays.status(500))
    assert 502 == (await gateway.client().ask("messages", "messages-x")).status
    reply = await count(gateway)

    assert 429 == reply.status
    assert [] == asked(upstream, COUNT)


async def test_a_limit_on_counting_is_none_on_answers(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Anthropic counts the two apart."""
    gateway = await serve(accounts=pair(upstream)[:1])
    upstream.next(plays.status(429, headers={"retry-after": "30"}))
    assert 429 == (await count(gateway)).status

    assert components(gateway).accounts.status.states()["messages"]["available"]


async def test_an_account_that_cannot_be_reached_is_left_alone(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(accounts=pair(upstream)[:1])
    upstream.next(plays.reset(None))
    assert 502 == (await count(gateway)).status

    assert not components(gateway).accounts.status.states()["messages"]["available"]


async def test_it_is_estimated_where_no_account_speaks_messages(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(accounts=[account(upstream, "chat")])
    limited = plays.status(429, headers={"retry-after": "30"})
    upstream.next(limited)
    await gateway.client().ask("chat", "chat-x")
    reply = await count(gateway, "chat-x")  # it needs no account, cooling or not

    assert 200 == reply.status
    assert (await gateway.finished(reply))["estimated"]
    assert 404 == (await count(gateway, "unknown")).status


# --- requests per minute --------------------------------------------------------------


def hurried(*names: str) -> Sequence[settings.Table]:
    return [user(name, budget={"requests_per_minute": 2}) for name in names]


async def test_counts_and_stored_responses_are_requests_of_the_minute(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(users=hurried("alice"))
    first = await gateway.client().ask("responses", "responses-x")
    made = first.events[0].json["response"]["id"]
    upstream.next(says(b"{}"))
    stored = await gateway.client().send(f"/v1/responses/{made}", method="GET")
    assert 200 == stored.status
    late = [
        await count(gateway),
        await gateway.client().send(f"/v1/responses/{made}", method="GET"),
        await gateway.client().ask("messages", "messages-x"),
    ]

    assert [429, 429, 429] == [reply.status for reply in late]
    assert 1 <= int(late[0].headers["retry-after"]) <= 60
    assert [] == asked(upstream, COUNT)
    models = await gateway.client().send("/v1/models", method="GET")
    assert 200 == models.status


# --- stored responses -----------------------------------------------------------------


async def stored(gateway: Gateway, made: str, method: str = "GET") -> Reply:
    return await gateway.client().send(f"/v1/responses/{made}", method=method)


async def a_response(gateway: Gateway) -> str:
    reply = await gateway.client().ask("responses", "responses-x")
    return str(reply.events[0].json["response"]["id"])


async def test_a_stored_response_is_asked_of_its_maker_alone(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = [account(upstream, "responses"), account(upstream, "responses-2")]
    gateway = await serve(accounts=rows)
    made = await a_response(gateway)
    maker = upstream.received()[0].account
    # Twice: a kept connection that breaks is no failure yet.
    upstream.next(plays.reset(None), plays.reset(None))
    reply = await stored(gateway, made)

    assert 502 == reply.status
    path = f"/responses/{made}"
    assert [maker, maker] == asked(upstream, path)
    assert gateway.log.events("account.cooled", account=maker)
    assert gateway.log.events("attempt.failed", account=maker)
    again = await stored(gateway, made)  # it is left alone now
    assert 429 == again.status
    assert endings.before("responses", again).retry_after_s
    assert [maker, maker] == asked(upstream, path)


@pytest.mark.parametrize("own_limit", [True, False])
async def test_a_stored_response_that_does_not_come_is_a_failure(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    own_limit: bool,
) -> None:
    if own_limit:
        monkeypatch.setattr(stored_responses, "STORED_TIMEOUT_S", 0.2)
    waits = None if own_limit else {"first_event_timeout_s": 0.5}
    rows = [account(upstream, "responses")]
    gateway = await serve(accounts=rows, upstream=waits)
    made = await a_response(gateway)
    upstream.next(hang)

    assert 502 == (await stored(gateway, made)).status


async def test_a_stored_response_whose_account_was_replaced_is_not_found(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """The server that the name now leads to has never seen it."""
    rows = [account(upstream, "responses")]
    gateway = await serve(accounts=rows)
    made = await a_response(gateway)
    config = components(gateway)._config
    [old] = config.account
    new = dataclasses.replace(old, base_url=upstream.base_url("elsewhere"))
    components(gateway).reload(dataclasses.replace(config, account=(new,)))

    assert 404 == (await stored(gateway, made)).status
    assert [] == asked(upstream, f"/responses/{made}")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x", "/v1/responses/resp_1"])
async def test_nothing_new_is_taken_while_draining(gateway: Gateway, path: str) -> None:
    components(gateway).drain()
    reply = await gateway.client().send(path, method="GET")

    assert 503 == reply.status
    assert "draining" == (await gateway.finished(reply))["error_code"]


# --- models ---------------------------------------------------------------------------


async def models(gateway: Gateway) -> list[str]:
    reply = await gateway.client().send("/v1/models", method="GET")
    assert 200 == reply.status
    return [str(one["id"]) for one in reply.json["data"]]


@pytest.fixture
async def one(serve: Serve, upstream: ScriptedUpstream) -> Gateway:
    return await serve(accounts=[account(upstream, "chat")])


async def test_a_list_is_asked_for_once_and_remembered(
    one: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.next(listed("chat-a"))
    found = await asyncio.gather(*(models(one) for _ in range(10)))
    found += [await models(one) for _ in range(3)]
    assert [["chat-a"]] * 13 == found
    assert ["chat"] == asked(upstream, "/models")


async def test_a_list_that_is_too_old_is_used_while_another_is_asked_for(
    one: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_lists, "MODELS_KEPT_S", 0.0)
    upstream.next(listed("chat-a"))
    assert ["chat-a"] == await models(one)
    upstream.next(hang)
    assert [["chat-a"]] * 3 == [await models(one) for _ in range(3)]
    await upstream_asked(upstream, 2)

    assert 2 == len(asked(upstream, "/models"))  # one question at a time


async def upstream_asked(upstream: ScriptedUpstream, number: int) -> None:
    async with asyncio.timeout(20):
        while len(asked(upstream, "/models")) < number:
            await asyncio.sleep(0.01)


async def test_a_new_list_takes_the_old_ones_place(
    one: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_lists, "MODELS_KEPT_S", 0.0)
    upstream.next(listed("chat-a"), listed("chat-b"))
    await models(one)
    async with asyncio.timeout(20):
        while ["chat-b"] != await models(one):
            upstream.next(listed("chat-b"))
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(hang, id="hangs"),
        pytest.param(plays.status(500), id="500"),
        pytest.param(plays.reset(None), id="reset"),
        pytest.param(says(b"nothing here", 404), id="has-none"),
    ],
)
async def test_an_account_that_does_not_tell_its_models_is_asked_once(
    one: Gateway,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    play: Play,
) -> None:
    """It holds up those who ask at the same time, once; and no account is blamed."""
    monkeypatch.setattr(model_lists, "MODELS_TIMEOUT_S", 0.1)
    upstream.next(play)
    found = await asyncio.gather(*(models(one) for _ in range(5)))
    found += [await models(one) for _ in range(3)]

    assert [[]] * 8 == found
    assert ["chat"] == asked(upstream, "/models")
    assert components(one).accounts.status.states()["chat"]["available"]


async def test_a_failure_is_forgotten_in_time(
    one: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_lists, "MODELS_FAILED_S", 0.0)
    upstream.next(plays.status(500), listed("chat-a"))
    await models(one)

    assert ["chat-a"] == await models(one)


async def test_a_client_that_leaves_does_not_take_the_question_along(
    one: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await gate.wait()
        await listed("chat-a")(exchange)

    upstream.next(late)
    leaving, staying = (asyncio.create_task(models(one)) for _ in range(2))
    await upstream_asked(upstream, 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    gate.set()

    assert ["chat-a"] == await staying
    assert 1 == len(asked(upstream, "/models"))


async def test_an_account_that_is_left_alone_is_not_asked_for_its_models(
    one: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.next(plays.status(429, headers={"retry-after": "30"}))
    await one.client().ask("chat", "chat-x")

    assert [] == await models(one)
    assert [] == asked(upstream, "/models")


async def test_the_list_of_an_account_that_was_replaced_is_forgotten(
    one: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.next(listed("chat-a"), listed("chat-b"))
    await models(one)
    config = components(one)._config
    [old] = config.account
    new = dataclasses.replace(old, base_url=upstream.base_url("elsewhere"))
    components(one).reload(dataclasses.replace(config, account=(new,)))

    assert ["chat-b"] == await models(one)
    assert ["chat", "elsewhere"] == asked(upstream, "/models")
