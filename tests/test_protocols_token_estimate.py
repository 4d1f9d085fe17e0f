"""The estimate of a prompt's tokens: documented, the same for every protocol."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.token_estimate import (
    IMAGE_LOW_TOKENS,
    IMAGE_TOKENS,
    ITEM_TOKENS,
    PDF_TOKENS_MIN,
    REQUEST_TOKENS,
    TOOL_TOKENS,
    estimate_tokens,
    text_tokens,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("type", "text", "content", "source", "image_url", "file", "data")
            ),
            inner | st.sampled_from(("image", "document", "file", "input_audio")),
            max_size=4,
        )
    ),
    max_leaves=12,
)


def _message(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    "text, tokens",
    [
        pytest.param("", 0, id="empty"),
        pytest.param("a" * 35, 10, id="ascii"),
        pytest.param("я" * 10, 5, id="alphabet"),
        pytest.param("語" * 10, 10, id="ideographs"),
        pytest.param("a" * 7 + "é" * 2 + "語", 4, id="mixed"),
    ],
)
def test_text(text: str, tokens: float) -> None:
    assert tokens == pytest.approx(text_tokens(text))


BASE = REQUEST_TOKENS + ITEM_TOKENS


@pytest.mark.parametrize(
    "part, tokens",
    [
        pytest.param(
            {"type": "image", "source": {"type": "base64", "data": "A" * 9999}},
            IMAGE_TOKENS,
            id="messages-image",
        ),
        pytest.param(
            {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
            IMAGE_LOW_TOKENS,
            id="chat-image-low",
        ),
        pytest.param(
            {"type": "input_image", "image_url": "data:…", "detail": "low"},
            IMAGE_LOW_TOKENS,
            id="responses-image-low",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "base64", "data": "A" * 80}},
            PDF_TOKENS_MIN,
            id="small-pdf",
        ),
        pytest.param(
            {"type": "input_file", "file_data": "A" * 800_000},
            10_000,
            id="large-pdf",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "text", "data": "a" * 35}},
            10,
            id="text-document",
        ),
        pytest.param(
            {"type": "input_audio", "input_audio": {"data": "A" * 2000}}, 3, id="sound"
        ),
        pytest.param(
            {"type": "thinking", "thinking": "a" * 35, "signature": "s" * 500},
            10,
            id="signature-is-free",
        ),
        pytest.param(
            {"type": "redacted_thinking", "data": "x" * 500}, 0, id="redacted"
        ),
    ],
)
def test_part(part: dict[str, Any], tokens: int) -> None:
    assert BASE + tokens == estimate_tokens(_message(part))


def test_three_protocols_agree_on_plain_text() -> None:
    text = "a" * 350
    messages = {"messages": [{"role": "user", "content": text}]}
    items = {"input": [{"type": "message", "role": "user", "content": text}]}
    assert BASE + 100 == estimate_tokens(messages) == estimate_tokens(items)
    assert REQUEST_TOKENS + 100 == estimate_tokens({"input": text})


def test_tools_count_wherever_they_stand() -> None:
    tool = {"type": "function", "name": "f", "description": "d" * 100}
    json_tokens = math.ceil((len(str(tool)) - 4) / 3.5)
    top = estimate_tokens({"tools": [tool], "input": []})
    inside = estimate_tokens({"input": [{"type": "additional_tools", "tools": [tool]}]})
    assert abs(REQUEST_TOKENS + TOOL_TOKENS + json_tokens - top) <= 2
    assert abs(top + ITEM_TOKENS - inside) <= 2


@given(st.dictionaries(st.sampled_from(("system", "messages", "input", "tools")), JSON))
def test_any_shape_has_an_estimate(body: dict[str, Any]) -> None:
    assert estimate_tokens(body) >= 1


@given(JSON, st.text(min_size=1, max_size=20))
def test_more_text_never_costs_less(content: Any, text: str) -> None:
    less = estimate_tokens({"messages": [content]})
    more = estimate_tokens({"messages": [content, text]})
    assert more >= less


def test_deep_nesting_is_no_trouble() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert estimate_tokens({"messages": deep, "tools": [deep]}) >= 1
