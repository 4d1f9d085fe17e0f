"""The client's bytes change only where they must."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.outgoing import ask_for_usage, replace_model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"model":"a"}', b'{"model":"new"}', id="plain"),
        pytest.param(
            b'{ "x" : 1.0,\n "model" : "a" , "y":1e5}',
            b'{ "x" : 1.0,\n "model" : "new" , "y":1e5}',
            id="spaces-and-numbers-stay",
        ),
        pytest.param(
            b'{"input":{"model":"a"},"model":"a"}',
            b'{"input":{"model":"a"},"model":"new"}',
            id="a-nested-model-stays",
        ),
        pytest.param(
            b'{"input":"say \\"model\\":\\"a\\"","model":"a"}',
            b'{"input":"say \\"model\\":\\"a\\"","model":"new"}',
            id="quoted-text-stays",
        ),
        pytest.param(
            b'{"mod\\u0065l":"a"}', b'{"model":"new"}', id="an-escaped-key-is-found"
        ),
    ],
)
def test_only_the_model_changes(body: bytes, expected: bytes) -> None:
    assert expected == replace_model(body, "new")


@given(st.dictionaries(st.text(), JSON), st.text(min_size=1))
def test_the_rest_means_the_same(rest: dict[str, object], model: str) -> None:
    body = orjson.dumps({**rest, "model": "old"})

    assert {**rest, "model": model} == orjson.loads(replace_model(body, model))


def test_many_false_models_cost_little() -> None:
    """Each look costs a parse: a hostile body must not get many."""
    body = b'{"x":[' + b'{"model":"a"},' * 50_000 + b'1],"model":"a"}'

    assert "new" == orjson.loads(replace_model(body, "new"))["model"]


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
            b'{"stream_options":{"x":1,"include_usage":true},"model":"m"}',
            id="others-stay",
        ),
        pytest.param(
            b'{"stream_options":null}',
            b'{"stream_options":{"include_usage":true}}',
            id="null",
        ),
    ],
)
def test_usage_is_asked_for(body: bytes, expected: bytes) -> None:
    assert expected == ask_for_usage(body, orjson.loads(body))
