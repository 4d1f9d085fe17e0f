"""What a body says is read, or refused with a clear word."""

from __future__ import annotations

import orjson
import pytest

from gateway.client import body
from gateway.errors import ClientError

TEXT = orjson.dumps({"model": "m", "x": "y" * 5000})


@pytest.mark.parametrize(
    ("data", "word"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"  \n", "empty", id="blank"),
        pytest.param(b"{", "JSON", id="cut"),
        pytest.param(b"\xff\xfe", "JSON", id="no-utf8"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, "JSON", id="deep"),
        pytest.param(b"[]", "object", id="list"),
        pytest.param(b'"model"', "object", id="string"),
        pytest.param(b"{}", "'model'", id="no-model"),
        pytest.param(b'{"model":null}', "'model'", id="null-model"),
        pytest.param(b'{"model":3}', "'model'", id="number-model"),
        pytest.param(b'{"model":""}', "'model'", id="empty-model"),
        pytest.param(b'{"model":["a"]}', "'model'", id="list-model"),
        pytest.param(b'{"model":"a\\nb"}', "'model'", id="model-with-line-end"),
        pytest.param(b'{"model":"m","stream":"yes"}', "'stream'", id="text-stream"),
        pytest.param(b'{"model":"m","stream":1}', "'stream'", id="number-stream"),
    ],
)
def test_the_error_of_an_invalid_request_names_what_is_wrong(
    data: bytes, word: str
) -> None:
    with pytest.raises(ClientError) as caught:
        body.parse(data)

    assert 400 == caught.value.status
    assert word in caught.value.message
    if word.startswith("'"):
        assert word.strip("'") == caught.value.param


@pytest.mark.parametrize(
    ("data", "stream"),
    [
        (b'{"model":"m"}', False),
        (b'{"model":"m","stream":null}', False),
        (b'{"model":"m","stream":true}', True),
    ],
)
def test_what_every_request_says_is_read(data: bytes, stream: bool) -> None:
    ask = body.parse(data)

    assert ("m", stream) == (ask.model, ask.stream)
    assert data is ask.data


def test_a_document_that_was_forgotten_is_parsed_again() -> None:
    ask = body.parse(TEXT)
    first = ask.document
    assert first is ask.document

    ask.forget_document()

    assert first is not ask.document and first == ask.document
