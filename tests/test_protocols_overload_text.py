"""What upstreams say when they fail inside a 200 answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.failure_forms import FailureWords, stated_error
from gateway.protocols.failure_table import STRONG, WEAK, FailureKind, meaning
from gateway.protocols.overload_text import ANSWERS, answer_so_far

ERROR = {"code": "slow_down", "type": "t", "message": "m", "param": "p"}
READ = ("slow_down", "t", "m", "p")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            {"type": "response.failed", "response": {"id": "r", "error": ERROR}},
            id="response-failed",
        ),
        pytest.param(
            {"type": "error", "error": ERROR, "sequence_number": 1}, id="nested"
        ),
        pytest.param({"error": ERROR}, id="chat-chunk"),
        pytest.param(
            {"choices": [{"index": 0, "error": ERROR, "finish_reason": "error"}]},
            id="inside-a-choice",
        ),
        pytest.param([{"error": ERROR}], id="array-of-one"),
        pytest.param(
            {"id": "r", "status": "failed", "error": ERROR}, id="whole-response"
        ),
    ],
)
def test_a_failure_is_read_in_every_form(data: object) -> None:
    error = stated_error(data)
    assert error is not None
    assert READ == (error.code, error.type, error.message, error.param)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            {"type": "error", "code": "slow_down", "message": "m", "param": None},
            ("slow_down", "", "m", 0),
            id="flat-event",
        ),
        pytest.param(
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
            ("", "overloaded_error", "m", 0),
            id="messages",
        ),
        pytest.param(
            {
                "type": "error",
                "error": {
                    "type": "rate_limit_error",
                    "message": "m",
                    "details": {"error_code": "enforced_spend_limit_reached"},
                },
            },
            ("enforced_spend_limit_reached", "rate_limit_error", "m", 0),
            id="messages-finer-code",
        ),
        pytest.param(
            {"error": {"code": 529, "message": "m"}}, ("", "", "m", 529), id="number"
        ),
        pytest.param(
            {"error": {"code": "503", "message": "m"}}, ("", "", "m", 503), id="digits"
        ),
        pytest.param(
            {"type": "error", "status": 429, "error": {"message": "m"}},
            ("", "", "m", 429),
            id="status-beside",
        ),
        pytest.param(
            {"error": {"code": 8, "status": "RESOURCE_EXHAUSTED", "message": "m"}},
            ("", "RESOURCE_EXHAUSTED", "m", 0),
            id="status-as-a-word",
        ),
        pytest.param({"error": "words"}, ("", "", "words", 0), id="plain-text"),
        pytest.param({"detail": "words"}, ("", "", "words", 0), id="detail"),
        pytest.param(
            {"type": "response.failed", "response": {"error": None}},
            ("", "", "", 0),
            id="failed-without-error",
        ),
        pytest.param({"type": "response.failed"}, ("", "", "", 0), id="failed-bare"),
    ],
)
def test_odd_forms_are_read_as_far_as_they_go(
    data: object, expected: tuple[str, str, str, int]
) -> None:
    error = stated_error(data)
    assert error is not None
    assert expected == (error.code, error.type, error.message, error.status)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"type": "response.created", "response": {}}, id="created"),
        pytest.param({"choices": [{"delta": {}}]}, id="chunk"),
        pytest.param({"choices": [], "detail": "x"}, id="chunk-with-detail"),
        pytest.param({"type": "message_start", "message": {}}, id="message-start"),
        pytest.param({"response": {"error": None}, "error": None}, id="null-errors"),
        pytest.param([], id="empty-array"),
        pytest.param("  ", id="blank-text"),
        pytest.param(None, id="nothing"),
    ],
)
def test_what_is_no_failure_is_not_read_as_one(data: object) -> None:
    assert stated_error(data) is None


WORDS = [
    pytest.param(word, kind, id=f"{kind.value}-{word}")
    for table in (STRONG, WEAK)
    for kind, words in table.items()
    for word in words
]


@pytest.mark.parametrize(("word", "kind"), WORDS)
def test_each_word_has_its_kind_as_code_and_as_type(
    word: str, kind: FailureKind
) -> None:
    assert kind is meaning(FailureWords(code=word)).kind
    assert kind is meaning(FailureWords(type=word.upper())).kind


def test_no_word_stands_in_two_rows() -> None:
    words = [word for t in (STRONG, WEAK) for row in t.values() for word in row]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Selected model is at capacity. Please try a different model.", "overloaded"),
        ("The model gpt-x is currently overloaded", "overloaded"),
        (
            "That model is currently overloaded with other requests.",
            "overloaded",
        ),
        ("Our servers are currently overloaded.", "overloaded"),
        ("The engine is currently overloaded, please try later", "overloaded"),
        ("Overloaded", "overloaded"),
        ("Rate limit reached for gpt-x in organization org-1", "rate_limited"),
        ("Too many requests", "rate_limited"),
        ("Your credit balance is too low to access the API.", "quota"),
        ("You exceeded your current quota, please check", "quota"),
        ("You've hit your weekly usage limit.", "quota"),
        ("This organization has been disabled.", "refused"),
        ("Incorrect API key provided: sk-…", "refused"),
        ("invalid x-api-key", "refused"),
        (
            "An error occurred while processing your request. You can retry",
            "failed",
        ),
        ("The server had an error while processing", "failed"),
        ("The model `gpt-x` does not exist or you do not have access", "no_model"),
        ("model: claude-x", "no_model"),
        ("Project `p` does not have access to model `m`", "no_model"),
        ("The encrypted content for item rs_1 could not be verified.", "foreign"),
        (
            "messages.1.content.0: Invalid `signature` in `thinking` block",
            "foreign",
        ),
        ("prompt is too long: 250000 tokens > 200000 maximum", "client"),
    ],
)
def test_the_beginning_of_the_message_betters_a_weak_word(text: str, kind: str) -> None:
    said = meaning(FailureWords(type="invalid_request_error", message=text))
    assert (kind, True) == (said.kind.value, said.sure)


@pytest.mark.parametrize(
    "text",
    [
        "Invalid value: 'Your credit balance is too low'",
        "Unknown parameter: 'The model is at capacity'",
        "Expected a string, got 'invalid x-api-key'",
    ],
)
def test_a_quoted_text_blames_only_the_client(text: str) -> None:
    """A client can make an upstream quote any words in the middle of a message."""
    said = meaning(FailureWords(type="invalid_request_error", message=text))
    assert (FailureKind.CLIENT, False) == said


def test_a_strong_word_is_not_bettered_by_the_message() -> None:
    error = FailureWords(code="context_length_exceeded", message="Overloaded")
    assert FailureKind.CLIENT is meaning(error).kind


def test_an_unknown_failure_is_the_upstreams() -> None:
    assert (FailureKind.FAILED, False) == meaning(
        FailureWords(code="never_seen", message="?")
    )


@pytest.mark.parametrize("text", ANSWERS)
def test_an_overload_as_plain_answer_is_held_back_and_known(text: str) -> None:
    for end in range(len(text)):
        assert answer_so_far(text[:end]) in ("maybe", "yes")
    assert "yes" == answer_so_far(text + "\n")
    assert "no" == answer_so_far(text + " That is what the log said.")


@pytest.mark.parametrize("text", ["Hello", "The answer", "Selecting", "At capacity"])
def test_a_real_answer_is_let_go_at_once(text: str) -> None:
    assert "no" == answer_so_far(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["error", "type", "code", "message", "response", "choices", "status"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_breaks_the_reading(data: Any) -> None:
    error = stated_error(data)
    assert error is None or isinstance(meaning(error).kind, FailureKind)
