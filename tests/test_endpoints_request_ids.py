"""A client's own request id is taken over, a key in its place is not."""

from __future__ import annotations

import pytest

from gateway.endpoints.request_ids import request_id_of


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("fd277bc5-ff7e-45d1-8aa9-f54e1df318f1", id="uuid"),
        pytest.param("a" * 8, id="shortest"),
        pytest.param("a" * 128, id="longest"),
        pytest.param("gw-check-0001", id="begins-like-a-key"),
        pytest.param("sk-request.2026", id="too-short-for-a-key"),
    ],
)
def test_an_id_is_taken_over(given: str) -> None:
    assert request_id_of({"x-request-id": given}, 1.0) == given


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="none"),
        pytest.param("a" * 7, id="too-short"),
        pytest.param("a" * 129, id="too-long"),
        pytest.param("with a space", id="space"),
        pytest.param("gw-" + "k" * 43, id="own-key"),
        pytest.param("sk-proj-" + "k" * 40, id="openai-key"),
        pytest.param("sk-ant-api03-" + "k" * 80, id="anthropic-key"),
        pytest.param("AIza" + "k" * 35, id="google-key"),
    ],
)
def test_else_a_new_one_is_made(given: str) -> None:
    made = request_id_of({"x-request-id": given}, 1.0)

    assert made != given and made.startswith("00000000-03e8-7")
