"""Reading on for a client that has left ends, whatever upstream and reader do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.protocols.protocol import Ending
from gateway.protocols.stream_state import Batch
from gateway.relay.upstream_call import UpstreamCall

NOTHING = Batch(b"", True)


class Course:
    """Says *each* of every piece, and *last* at the upstream's end."""

    def __init__(self, each: Batch, last: Batch) -> None:
        self._each, self._last = each, last

    def feed(self, chunk: bytes) -> Batch:
        return self._each

    def finish(self, *, clean: bool = True) -> Batch:
        return self._last


class Reply:
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
        pytest.param([b"x", b"y"], NOTHING, NOTHING, False, id="told-before"),
    ],
)
async def test_a_drain_ends_with_the_answer(
    pieces: list[bytes], each: Batch, last: Batch, whole: bool
) -> None:
    none = cast(Any, SimpleNamespace(came=lambda size: None))
    exchange = UpstreamCall(none, none, none, none, none)
    exchange.reply = cast(Any, Reply(*pieces))

    assert whole == await exchange.drain(cast(Any, Course(each, last)))
