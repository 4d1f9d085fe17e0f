"""Turns that the gateway keeps, since the account that answered does not."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

each_foreign = pytest.mark.parametrize("protocol", ["chat", "messages"])
PADDING = "p" * 2_000


async def turn(gateway: Gateway, model: str, said: str, **fields: Any) -> Reply:
    return await gateway.client().ask(
        "responses", model, stream=False, input=f"{said} {PADDING}", **fields
    )


def kept_bytes(folder: Path) -> int:
    with sqlite3.connect(folder / "gateway.db") as ledger:
        return int(
            ledger.execute("select sum(length(body)) from response").fetchone()[0]
        )


@each_foreign
async def test_a_conversation_grows_by_what_is_new_and_outlives_its_beginning(
    gateway: Gateway, upstream: ScriptedUpstream, tmp_path: Path, protocol: str
) -> None:
    model, ids, sizes = f"{protocol}-x", [], []
    for n in range(12):
        going_on = {"previous_response_id": ids[-1]} if ids else {}
        reply = await turn(gateway, model, f"question-{n}-", **going_on)
        assert 200 == reply.status, reply.body
        ids.append(reply.json["id"])
        sizes.append(kept_bytes(tmp_path))
    grown = [later - one for one, later in zip(sizes, sizes[1:])]
    assert max(grown) - min(grown) < 100, "each turn takes as much as the one before"

    for ident in ids[:-1]:
        gone = await gateway.client().send(f"/v1/responses/{ident}", method="DELETE")
        assert 200 == gone.status
    reply = await turn(gateway, model, "last", previous_response_id=ids[-1])

    assert 200 == reply.status
    sent = json.dumps(upstream.received()[-1].json["messages"])
    assert all(f"question-{n}-" in sent for n in range(12))
    found = await gateway.client().send(
        f"/v1/responses/{reply.json['id']}/input_items", method="GET"
    )
    assert 25 == len(found.json["data"]), "13 questions, 12 answers"
    early = await turn(gateway, model, "again", previous_response_id=ids[0])
    assert "previous_response_not_found" == early.json["error"]["code"]


async def test_what_a_user_keeps_is_bounded_by_the_config(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(ledger={"response_max_bytes": 20_000})
    ids = [
        (await turn(gateway, "chat-x", f"question-{n}-")).json["id"] for n in range(12)
    ]

    assert kept_bytes(tmp_path) <= 20_000
    codes = [
        (await gateway.client().send(f"/v1/responses/{ident}", method="GET")).status
        for ident in ids
    ]
    assert 404 == codes[0] and 200 == codes[-1]
    assert sorted(codes, reverse=True) == codes, "the oldest went"


async def test_what_only_an_account_can_know_is_asked_of_one_that_keeps_responses(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """As after a restart, which forgets who made a response."""
    rows = [
        account(upstream, "chat", priority=1, models=["m"]),
        account(upstream, "responses", priority=2, models=["m"]),
    ]
    gateway = await serve(accounts=rows)

    reply = await turn(gateway, "m", "go on", previous_response_id="resp_before")

    assert 200 == reply.status
    assert ["responses"] == [request.account for request in upstream.received()]


@pytest.mark.parametrize("model", ["responses-x", "chat-x"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_response_of_another_user_is_unknown(
    gateway: Gateway, upstream: ScriptedUpstream, model: str, stream: bool
) -> None:
    """Also where the account would know it: all users share the account."""
    ident = (await turn(gateway, model, "a secret")).json["id"]
    asked = len(upstream.received())

    reply = await gateway.client("bob").ask(
        "responses", model, stream=stream, previous_response_id=ident
    )
    assert (400, "previous_response_not_found") == (
        reply.status,
        reply.json["error"]["code"],
    )
    assert asked == len(upstream.received())
    own = await turn(gateway, model, "go on", previous_response_id=ident)
    assert 200 == own.status
