"""Reading on for a client that has left ends, whatever upstream and codec do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.protocols import PROTOCOLS
from gateway.protocols.protocol import Ending
from gateway.protocols.stream_state import Batch
from gateway.record import AttemptRecord
from gateway.relay.streamed_attempt import StreamedAttempt

NOTHING = Batch(b"", True)


class Codec:
    """Says *each* of every piece, and *last* at the upstream's end."""

    def __init__(self, each: Batch, last: Batch) -> None:
        self._each, self._last = each, last

    def feed(self, chunk: bytes) -> Batch:
        return self._each

    def finish(self, *, clean: bool = True) -> Batch:
        return self._last


class Response:
    """An answer in *pieces*; to ask for more when it has ended is a mistake."""

    def __init__(self, *pieces: bytes) -> None:
        self._left = [*pieces, b""]

    async def read(self) -> bytes:
        return self._left.pop(0)


@pytest.mark.parametrize(
    ("pieces", "each", "last", "whole"),
    [
        pytest.param([b"x"], Batch(b"", True, b"y", Ending("ok")), NOTHING, True),
        pytest.param([], NOTHING, Batch(b"", True, b"y", Ending("ok")), True),
        pytest.param([], NOTHING, Batch(b"", True, b"", Ending("failed")), False),
        pytest.param([b"x", b"y"], NOTHING, NOTHING, False, id="no-ending"),
    ],
)
async def test_a_drain_ends_with_the_answer(
    pieces: list[bytes], each: Batch, last: Batch, whole: bool
) -> None:
    attempt = attempt_of(Response(*pieces), Codec(each, last))

    assert await attempt.read_on() is whole


def attempt_of(response: Response, codec: Codec) -> StreamedAttempt:
    """An attempt whose client has left."""
    accounts = SimpleNamespace(by_name={"a": None})
    dependencies: Any = SimpleNamespace(accounts=accounts, limits=None)
    granted: Any = SimpleNamespace(slot=SimpleNamespace(name="a"), key=None)
    record, wire = AttemptRecord(1, "a", 0.0), PROTOCOLS["chat"]
    context = SimpleNamespace(attempt=record, wire=wire)
    state: Any = SimpleNamespace(context=context)
    attempt = StreamedAttempt(dependencies, state, granted)
    attempt._call = cast(Any, SimpleNamespace(response=response))
    attempt._codec = cast(Any, codec)
    return attempt
