"""
The recorded websocket sessions: what a client sends in them is sent to the gateway,
what its account answered is answered by the scripted upstream, and what the client got
must come, event by event.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import plays
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, ScriptedUpstream
from tests.kit.settings import account, user
from tests.kit.websocket import CODEX, Frame, Socket, Turn, socket

SHARED = Path(os.environ.get("GATEWAY_SHARED", "")) / "vectors" / "ws"
HERE = bool(os.environ.get("GATEWAY_SHARED")) and SHARED.exists()

OWN_CODES = (
    *("previous_response_not_found", "unsupported_parameter"),
    *("rate_limit_exceeded", "websocket_connection_limit_reached"),
)
"""The gateway refuses with them itself, and asks no account."""

WAITING = "rs_queue"
"""The item that shows Codex its place."""


def recorded(name: str) -> list[Any]:
    if not HERE:
        return []
    rows = json.loads((SHARED / name).read_text("utf-8"))
    return [pytest.param(one, id=one["name"]) for one in rows]


def sessions() -> dict[str, list[Frame]]:
    """The lines of each recorded session."""
    found: dict[str, list[Frame]] = {}
    if HERE:
        for line in (SHARED / "sessions.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(row["session"], []).append(row)
    return found


def play_of(frames: list[Frame], *, goes_on: bool) -> plays.Play | None:
    """
    An account that answers as the recorded one; None for what no account was asked.

    Args:
        goes_on: it ends what it has begun only when its client has left.
    """
    last = frames[-1]
    error = last.get("error") or last.get("response", {}).get("error") or {}
    if error.get("code") in OWN_CODES:
        return None
    if last["type"] == "error":
        return plays.status(last["status"], json.dumps({"error": last["error"]}))
    own = [frame for frame in frames if not is_ours(frame)]
    data = b"".join(
        f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n".encode()
        for frame in own
    )

    async def play(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "text/event-stream"})
        await exchange.send(data)
        await asyncio.Event().wait()

    return play if goes_on else plays.raw(data)


def is_ours(frame: Frame) -> bool:
    """Whether the gateway writes *frame*, and no account."""
    if frame["type"] == "response.failed":
        return True
    return WAITING in (frame.get("item_id"), frame.get("item", {}).get("id"))


def kinds(frames: list[Frame]) -> list[str]:
    """Their types; what is repeated while a client waits is there once."""
    waiting = "response.reasoning_summary_text.delta"
    all_kinds = [frame["type"] for frame in frames if frame["type"] != "keepalive"]
    found: list[str] = []
    for kind, group in itertools.groupby(all_kinds):
        found += [kind] if kind == waiting else list(group)
    return found


@asynccontextmanager
async def as_usual(
    gateway: Gateway, upstream: ScriptedUpstream
) -> AsyncIterator[asyncio.Event]:
    """Nothing stands in the way of the session."""
    yield asyncio.Event()


@asynccontextmanager
async def with_a_full_user(
    gateway: Gateway, upstream: ScriptedUpstream
) -> AsyncIterator[asyncio.Event]:
    """The user's slot is taken until the event is set, or the session is over."""
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with asyncio.TaskGroup() as group:
        group.create_task(gateway.client().ask("responses", "responses-holder"))
        await upstream.wait_for(1)
        try:
            yield gate
        finally:
            gate.set()


FULL = {"users": [user("alice", max_concurrent=1, max_queued=0)]}
WAITS = {
    "users": [user("alice", max_concurrent=1)],
    "limits": {"ping_interval_s": 0.1},
}
Around = Callable[[Gateway, ScriptedUpstream], Any]
STAGES: dict[str, tuple[dict[str, Any], Around]] = {
    "codex_waits_then_answer": (WAITS, with_a_full_user),
    "refused_before_created": (FULL, with_a_full_user),
    "refused_before_created_codex": (FULL, with_a_full_user),
}
"""What the sessions need that are not played as usual."""


class Session:
    """
    One recorded session that is played.

    Args:
        waited: set when the client was shown its place as often as in the record.
    """

    def __init__(
        self, one: Socket, upstream: ScriptedUpstream, waited: asyncio.Event
    ) -> None:
        self.one = one
        self._upstream = upstream
        self._waited = waited
        self._ids: dict[str, str] = {}  # the recorded ones of warm-ups, as ours

    async def play(self, turn: dict[str, Any], *, goes_on: bool = False) -> Turn:
        """Send what was sent in *turn*, and compare what comes."""
        send, wanted = dict(turn["send"]), turn["recv"]
        warm = send.get("generate") is False
        asks = send["type"] == "response.create" and not warm
        if asks and (play := play_of(wanted, goes_on=goes_on)):
            self._upstream.next(play)
        if known := self._ids.get(send.get("previous_response_id") or ""):
            send["previous_response_id"] = known
        await self.one.send(send)
        got = await self._received(send.get("stream_id", ""), wanted, goes_on)
        if warm:
            assert ["response.created", "response.completed"] == got.kinds
            self._ids[wanted[-1]["response"]["id"]] = got.id
        else:
            assert kinds(wanted) == kinds(got.frames)
            compare(wanted[-1], got.last)
        for text in turn.get("upstream_must_contain", ()):
            assert text in self._upstream.received()[-1].body.decode()
        return got

    async def _received(self, lane: str, wanted: list[Frame], goes_on: bool) -> Turn:
        shown, got = [*filter(is_place, wanted)], Turn()
        while len([*filter(is_place, got.frames)]) < len(shown):
            got.frames.append(await self.one.frame())
        if shown:
            self._waited.set()
        if goes_on:
            got.frames += [await self.one.frame() for _ in wanted]
        else:
            got.frames += (await self.one.rest(lane)).frames
        return got


def is_place(frame: Frame) -> bool:
    """Whether *frame* shows a client its place in the queue."""
    return WAITING in str(frame.get("item_id")) and "delta" in frame


def compare(wanted: Frame, got: Frame) -> None:
    """The last frames of a turn: what a client acts on must be the same."""
    for name in ("type", "status", "stream_id"):
        assert wanted.get(name) == got.get(name), name
    if wanted["type"] == "response.incomplete":
        reason = wanted["response"]["incomplete_details"]
        assert reason == got["response"]["incomplete_details"]
    for error, ours in zip(errors(wanted), errors(got), strict=True):
        assert error["code"] == ours["code"]
        assert error.get("param") == ours.get("param")
        assert ("headers" in error) is ("headers" in ours)
    assert ("headers" in wanted) is ("headers" in got)


def errors(frame: Frame) -> Iterator[Frame]:
    """What it says of a failure."""
    if "error" in frame and frame["type"] == "error":
        yield frame["error"]
    if error := frame.get("response", {}).get("error"):
        yield error


@pytest.mark.parametrize("name", ["conversations.json", "codex.json", "sessions.jsonl"])
def test_the_vectors_are_all_there(name: str) -> None:
    there = sessions() if name == "sessions.jsonl" else recorded(name)
    assert there or not HERE


@pytest.mark.parametrize(
    "vector",
    [
        one
        for one in [*recorded("conversations.json"), *recorded("codex.json")]
        if one.id != "connection_limit"
    ],
)
async def test_a_conversation(
    serve: Serve, upstream: ScriptedUpstream, vector: dict[str, Any]
) -> None:
    name, turns = vector["name"], vector["turns"]
    config, around = STAGES.get(name, ({}, as_usual))
    rows = [account(upstream, "responses", models=["*"])]
    gateway = await serve(accounts=rows, **config)
    codex = CODEX if "codex" in name else {}
    async with (
        around(gateway, upstream) as waited,
        socket(gateway, headers=codex) as one,
    ):
        session = Session(one, upstream, waited)
        known = turns[0]["send"].get("previous_response_id")
        if known and known != "resp_no":  # it began before the record
            session._ids[known] = (await one.turn(generate=False, input=[])).id
        for turn, then in zip(turns, [*turns[1:], None]):
            interrupted = then and then["send"]["type"] == "response.interrupt"
            got = await session.play(turn, goes_on=bool(interrupted))
            if interrupted:
                ident = got.frames[0]["response"]["id"]
                assert ident == then["send"]["response_id"]
    asked = len(upstream.received()) - (around is with_a_full_user)
    expected = vector.get("upstream_frames_over_http", asked)
    assert expected == asked


async def test_the_conversation_at_the_age_limit(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """A create that crosses it is refused, what runs ends, and the socket is closed."""
    wanted = [one for one in recorded("conversations.json") if "limit" in str(one.id)]
    if not wanted:
        pytest.skip("the recorded sessions are not here")
    (frame,) = wanted[0].values[0]["turns"][0]["recv"]  # type: ignore[index]
    gateway = await serve(server={"websocket_max_age_s": 0.1})
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with socket(gateway) as one:
        await one.create(input="x")
        await upstream.wait_for(1)
        got: Frame = {}
        while got.get("type") != "error":
            late = await one.turn(input=[], stream_id="late", generate=False)
            got = late.last
        gate.set()
        turn = await one.rest()
        assert 1000 == await one.closed()

    compare({**frame, "stream_id": "late"}, got)
    assert "response.completed" == turn.last["type"]


@pytest.mark.parametrize("name", sessions())
async def test_a_session_of_codex(
    serve: Serve, upstream: ScriptedUpstream, name: str
) -> None:
    """Frame by frame; where its server closed, Codex opens the next websocket."""
    lines = sessions()[name]
    gateway = await serve(accounts=[account(upstream, "responses", models=["*"])])
    handshake = next(line for line in lines if line["dir"] == "handshake")
    own = {"user-agent", "originator", "openai-beta"}
    headers = {k: v for k, v in handshake["headers"].items() if k in own}
    played = 0
    for part in sockets_of(lines):
        async with socket(gateway, headers={**CODEX, **headers}) as one:
            session = Session(one, upstream, asyncio.Event())
            for turn in turns_of(part):
                await session.play(turn)
                played += 1
    assert played >= 3


def sockets_of(lines: list[Frame]) -> list[list[Frame]]:
    """The frames of each websocket of a session."""
    parts: list[list[Frame]] = [[]]
    for line in lines:
        if "step" in line:  # the server closed it
            parts.append([])
        elif "frame" in line:
            parts[-1].append(line)
    return parts


def turns_of(lines: list[Frame]) -> Iterator[dict[str, Any]]:
    """What was sent, each with what came for it."""
    turn: dict[str, Any] = {}
    for line in lines:
        if line["dir"] == "c2s":
            if turn:
                yield turn
            turn = {"send": line["frame"], "recv": []}
        else:
            turn["recv"].append(line["frame"])
    if turn:
        yield turn
