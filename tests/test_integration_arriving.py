"""Bodies on their way in: refused in time, bounded by user, and in their order."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.client import intake
from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import answers, endings
from tests.kit.asking import question
from tests.kit.badly import connect, raw_head, wrong
from tests.kit.gateway import Gateway
from tests.kit.queueing import ONE, holding
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import user

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
MIB = 1024 * 1024


class Uploading:
    """A client that sends the head of its request, and the body when asked for it."""

    def __init__(
        self,
        gateway: Gateway,
        protocol: str,
        name: str,
        size: int = 0,
        lines: str = "",
        *,
        chunked: bool = False,
    ) -> None:
        self.gateway, self.protocol, self.name = gateway, protocol, name
        asked = question(protocol, f"{protocol}-x", stream=False)
        self.body = json.dumps({**asked, "padding": "x" * size}).encode()
        self.lines = f"content-length: {len(self.body)}{lines}"
        if chunked:
            self.lines = "transfer-encoding: chunked"
            self.body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body)

    async def open(self) -> Uploading:
        self.reader, self.writer = await connect(self.gateway)
        head = raw_head(self.protocol, self.gateway, self.lines, self.name)
        self.writer.write(head)
        return self

    async def arriving(self) -> Uploading:
        """``open``, and return once the gateway reads the body."""
        await self.open()
        await self.gateway.inside.log.wait_for(
            lambda: any(
                scope.reading_body and scope.record.request_id == self.name
                for scope in components_of(self.gateway.inside.app).open_requests
            ),
            "it is not being read",
        )
        return self

    def send(self, size: int | None = None) -> None:
        """Hand over *size* bytes of the body, or all that are left."""
        self.writer.write(self.body[:size])
        self.body = self.body[size:] if size else b""

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of what came back; then it hangs up."""
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value
                for name, value in (line.split(": ", 1) for line in lines)
            }
            size = int(headers.get("content-length", 0))
            body = await self.reader.readexactly(size)
        self.writer.close()
        return int(first.split()[1]), headers, body


def used(gateway: Gateway, name: str = "alice") -> int:
    """The bytes of this user that arrive or wait."""
    return components_of(gateway.inside.app).reader._rooms.used(name)


async def reach(gateway: Gateway, size: int) -> None:
    """Return once so many bytes arrive or wait."""
    await gateway.log.wait_for(
        lambda: used(gateway) >= size, f"{size} bytes are not there"
    )


# --- silence ---


@each_protocol
async def test_a_body_that_falls_silent_is_a_408_in_the_protocols_form(
    strict: Gateway, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr(intake, "SILENCE_S", 0.05)
    client = await Uploading(strict, protocol, "silent-request").open()
    client.send(10)

    status, headers, body = await client.answer()

    answer = json.loads(body)
    assert (408, "silent-request") == (status, headers["x-request-id"])
    assert "close" == headers["connection"]
    assert "invalid_request_error" == answer["error"]["type"]
    assert ("error" == answer.get("type")) == (protocol == "messages")
    line = await strict.log.wait_finished("silent-request")
    assert ("refused", "client", "request_timeout", 408) == (
        line["outcome"],
        line["origin"],
        line["error_code"],
        line["status"],
    )
    assert 0 == used(strict)


# --- a full queue ---


@each_protocol
@pytest.mark.parametrize("expect", ["", "\r\nexpect: 100-continue"], ids=["", "asks"])
async def test_a_full_queue_answers_before_the_body_is_read(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, expect: str
) -> None:
    gateway = await serve(limits={**ONE, "max_queued": 0})
    async with holding(gateway.client(), upstream):
        client = Uploading(gateway, protocol, "one-too-many", MIB, expect)
        await client.open()

        status, headers, body = await client.answer()

    assert 429 == status
    assert 1 <= int(headers["retry-after"]) <= 60
    assert b"Concurrency limit exceeded for user" in body
    line = await gateway.log.wait_finished("one-too-many")
    assert ("refused", "queue_full") == (line["outcome"], line["error_code"])


async def test_bodies_that_arrive_take_up_places_in_line(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(limits={**ONE, "max_queued": 2})
    async with holding(gateway.client(), upstream) as gate:
        names = ["early-one-0", "early-one-1"]
        early = [await Uploading(gateway, "chat", name).arriving() for name in names]
        status, _, _ = await (
            await Uploading(gateway, "chat", "one-too-many").open()
        ).answer()
        early[0].writer.close()  # it leaves its place
        await gateway.log.wait_finished("early-one-0")
        late = await Uploading(gateway, "chat", "in-its-place").arriving()
        gate.set()
        for client in (early[1], late):
            client.send()
            assert 200 == (await client.answer())[0]

    assert 429 == status


async def test_counting_tokens_needs_no_place(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(limits={**ONE, "max_queued": 0})
    async with holding(gateway.client(), upstream):
        reply = await gateway.client().send(
            "/v1/messages/count_tokens", wrong("messages", model="trial")
        )

    assert 404 == reply.status or "input_tokens" in reply.json


# --- bytes that wait ---


@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
async def test_bodies_that_wait_are_bounded_and_the_others_are_not_read(
    serve: Serve, upstream: ScriptedUpstream, chunked: bool
) -> None:
    """Of four of 8 MiB there is room for two; without a length, one exceeds."""
    gateway = await serve(limits={**ONE, "max_waiting_bytes": 20 * MIB})
    async with holding(gateway.client(), upstream) as gate:
        clients = []
        for n in range(4):
            client = Uploading(gateway, "chat", f"upload-{n}", 8 * MIB, chunked=chunked)
            await client.arriving()
            client.send()
            clients.append(client)
        await reach(gateway, (20 if chunked else 16) * MIB)
        await asyncio.sleep(0.1)  # what may not come has time to come
        held = used(gateway)
        gate.set()
        answers_ = [await client.answer() for client in clients]

    if chunked:  # each may read a buffer more than there is room for
        assert held <= (20 + 8 + 4) * MIB
    else:
        assert 16 * MIB <= held < 17 * MIB
    assert [200] * 4 == [status for status, _, _ in answers_]
    assert 0 == used(gateway)


async def test_one_body_may_be_larger(serve: Serve, upstream: ScriptedUpstream) -> None:
    gateway = await serve(limits={**ONE, "max_waiting_bytes": 1000})

    for n in range(2):
        client = await Uploading(gateway, "chat", f"larger-{n}", MIB).open()
        client.send()
        assert 200 == (await client.answer())[0]


async def test_who_waits_for_room_keeps_its_place_and_its_time(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """It is served before those that came later, however long it waited for room."""
    limits = {**ONE, "max_waiting_bytes": 1000, "queue_timeout_s": 5.0}
    gateway = await serve(limits=limits)
    async with holding(gateway.client(), upstream) as gate:
        clients = []
        for n in range(3):
            client = Uploading(gateway, "chat", f"upload-{n}", 900)
            if n:
                await client.arriving()
            else:
                await client.open()
            client.send()
            clients.append(client)
            if not n:
                await reach(gateway, 900)
        assert used(gateway) < 1000 + 900
        gate.set()
        for client in clients:
            assert 200 == (await client.answer())[0]

    lines = [await gateway.log.wait_finished(f"upload-{n}") for n in range(3)]
    ended = [line["timestamp"] for line in lines]
    assert sorted(ended) == ended
    assert 0 == used(gateway)


@pytest.mark.parametrize("how", ["leaves", "silent"])
async def test_a_body_that_breaks_off_makes_room(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    gateway = await serve(limits={"max_waiting_bytes": 1000})
    if how == "silent":
        monkeypatch.setattr(intake, "SILENCE_S", 0.3)
    broken = await Uploading(gateway, "chat", "broken-off", 5000).arriving()
    broken.send(2000)
    await reach(gateway, 2000)
    behind = await Uploading(gateway, "chat", "behind-it", 50).arriving()
    behind.send()
    if how == "leaves":
        broken.writer.close()

    assert 200 == (await behind.answer())[0]
    await gateway.log.wait_finished("broken-off")
    assert 0 == used(gateway)
    broken.writer.close()


async def test_a_user_may_have_a_limit_of_its_own(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = [user("alice", **ONE, max_waiting_bytes=1000), user("bob")]
    gateway = await serve(users=rows)
    async with holding(gateway.client(), upstream):
        client = await Uploading(gateway, "chat", "the-first", 900).open()
        client.send()
        await reach(gateway, 900)
        second = await Uploading(gateway, "chat", "the-second", 900).arriving()
        second.send()
        endings.whole("chat", await gateway.client("bob").ask("chat", "chat-x"))
        held = used(gateway)
    for one in (client, second):
        assert 200 == (await one.answer())[0]

    assert 900 < held < 1800


# --- the stop ---


@each_protocol
@pytest.mark.parametrize("sent", [0, 100], ids=["nothing", "half"])
async def test_a_drain_refuses_bodies_that_are_still_arriving(
    gateway: Gateway, protocol: str, sent: int
) -> None:
    client = await Uploading(gateway, protocol, "half-a-body", 500).arriving()
    client.send(sent) if sent else None

    components_of(gateway.inside.app).drain()
    status, headers, body = await client.answer()

    assert (503, "half-a-body") == (status, headers["x-request-id"])
    assert 1 <= int(headers["retry-after"]) <= 60
    assert "server_error" in body.decode() or protocol == "messages"
    line = await gateway.log.wait_finished("half-a-body")
    assert ("refused", "draining") == (line["outcome"], line["error_code"])
    assert 0 == components_of(gateway.inside.app).serving


async def test_a_drain_refuses_bodies_that_wait_for_room(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(limits={**ONE, "max_waiting_bytes": 1000})
    async with holding(gateway.client(), upstream):
        first = await Uploading(gateway, "chat", "the-first", 900).open()
        first.send()
        await reach(gateway, 900)
        second = await Uploading(gateway, "chat", "the-second", 900).arriving()
        second.send()

        components_of(gateway.inside.app).drain()
        statuses = [(await one.answer())[0] for one in (first, second)]

    assert [503, 503] == statuses
    assert 0 == used(gateway)
