"""A Chat request is changed only where its server needs it."""

from __future__ import annotations

import orjson
import pytest

from gateway.protocols import PROTOCOLS


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            b' {"model":"m"}',
            b' {"stream_options":{"include_usage":true},"model":"m"}',
            id="none",
        ),
        pytest.param(
            b'{"stream_options":{"x":1},"model":"m"}',
            b'{"stream_options":{"include_usage":true,"x":1},"model":"m"}',
            id="others-stay",
        ),
        pytest.param(
            b'{"stream_options":null}',
            b'{"stream_options":{"include_usage":true}}',
            id="null",
        ),
        pytest.param(
            b'{"n":1.0,"stream_options": {"include_usage" : false},"model":"m"}',
            b'{"n":1.0,"stream_options": {"include_usage" : true},"model":"m"}',
            id="false",
        ),
        pytest.param(
            b'{"x":"stream_options"}',
            b'{"stream_options":{"include_usage":true},"x":"stream_options"}',
            id="none-but-a-text",
        ),
    ],
)
def test_usage_is_asked_for(body: bytes, expected: bytes) -> None:
    asking = PROTOCOLS["chat"].asking_for_usage(body, orjson.loads(body))

    assert asking == expected
    assert PROTOCOLS["chat"].asking_for_usage(asking, orjson.loads(asking)) is asking


@pytest.mark.parametrize("name", ["responses", "messages"])
def test_streams_of_others_end_with_their_usage_anyway(name: str) -> None:
    body = b'{"model":"m"}'

    assert PROTOCOLS[name].asking_for_usage(body, orjson.loads(body)) is body
