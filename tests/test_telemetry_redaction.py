"""What others say holds no secret and no prompt once it is written down."""

from __future__ import annotations

import base64
import html
import json
import string
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.config.schema import Account, Config, LedgerSettings, ServerSettings
from gateway.config.secrets import secrets_of
from gateway.telemetry import redaction as redaction_module
from gateway.telemetry.redaction import (
    MAX_COMPARED_BYTES,
    MAX_DETAIL_CHARS,
    MAX_QUOTE_CHARS,
    MAX_QUOTED_CHARS,
    MAX_READ_CHARS,
    REDACTED,
    SMALL_BODY_BYTES,
    Redaction,
)

PROMPT = "my neighbour Erika keeps her spare key under the third flower pot"


def body(text: str = PROMPT, **fields: Any) -> bytes:
    return json.dumps(
        {"model": "gpt-5-turbo-preview", "input": text, **fields}
    ).encode()


# --- known secrets --------------------------------------------------------------------

FORMS = {
    "raw": lambda secret: secret,
    "url": lambda secret: quote(secret, safe=""),
    "path": quote,
    "form": quote_plus,
    "json": lambda secret: json.dumps(secret)[1:-1],
    "json-utf8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "repr": lambda secret: repr(secret)[1:-1],
    "bytes": lambda secret: repr(secret.encode())[2:-1],
    "html": html.escape,
    "basic": lambda secret: base64.b64encode(f"user:{secret}".encode()).decode(),
    "basic-key": lambda secret: base64.b64encode(f"{secret}:".encode()).decode(),
    "base64-url": lambda secret: base64.urlsafe_b64encode(
        f"u:{secret}".encode()
    ).decode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "secret",
    ["sk-chat-account", "p@ss/w%rd: \"q\" & 'x'", "pässwörd-é€", "hunter2hunter2"],
)
def test_a_known_secret_is_taken_out_in_each_form(form: str, secret: str) -> None:
    quoted = FORMS[form](secret)
    text = f"it said {quoted} and more"
    redaction = Redaction([secret])

    for said in (redaction.clean(text), redaction.detail(text), redaction.quote(text)):
        assert REDACTED in said
        assert quoted not in said
        assert said.startswith("it said ")
    assert quoted.encode() not in redaction.clean_bytes(text.encode())


@given(
    secret=st.text(string.ascii_letters + string.digits + "+/=@:%&\"'\\ é", min_size=8),
    before=st.text(max_size=20),
    behind=st.text(max_size=20),
    form=st.sampled_from(sorted(FORMS)),
)
def test_no_secret_is_left_whatever_it_is_made_of(
    secret: str, before: str, behind: str, form: str
) -> None:
    assume(secret.strip() and secret not in REDACTED)
    quoted = FORMS[form](secret)
    redaction = Redaction([secret])

    said = redaction.detail(f"{before} {quoted} {behind}")
    assume(secret not in before + behind)
    assert secret not in said
    assert quoted not in said or quoted in before + behind


def test_a_short_secret_is_taken_out_as_a_word_alone() -> None:
    redaction = Redaction(["none"])

    assert f"key {REDACTED}, but nonetheless" == (
        redaction.clean("key none, but nonetheless")
    )


def test_nothing_is_left_of_a_longer_key_that_begins_like_a_known_one() -> None:
    redaction = Redaction(["sk-chat", "sk-chat-2"])

    assert f"a {REDACTED}, b" == redaction.clean("a sk-chat-2-of-another_key, b")
    assert b'"%b"' % REDACTED.encode() == redaction.clean_bytes(b'"sk-chat-2"')


def test_an_id_is_cleaned_as_any_text() -> None:
    redaction = Redaction(["account-secret"])

    assert f"req-{REDACTED}" == redaction.clean_id("req-account-secret-1")
    assert "req_01abcDEF" == redaction.clean_id("req_01abcDEF")


def test_bytes_that_hold_no_secret_are_the_same_object() -> None:
    data = body()

    assert Redaction(["sk-chat"]).clean_bytes(data) is data


def test_the_secrets_of_a_config_are_all_that_it_hides() -> None:
    config = Config(
        server=ServerSettings(metrics_token="metrics-token"),
        ledger=LedgerSettings(url="postgresql://user:data%40base@host/db"),
        account=(
            Account(
                "a",
                "https://h",
                api_key="sk-account",
                headers={
                    "Authorization": "Bearer other-key",
                    "anthropic-beta": "public-beta-1",
                    "x-team": "team-secret",
                },
            ),
        ),
    )
    known = secrets_of(config, ["http://me:proxy-pass@proxy:1", "http://[", "http://x"])

    assert {
        *("metrics-token", "sk-account", "Bearer other-key", "other-key"),
        *("team-secret", "data%40base", "data@base", "proxy-pass"),
    } == known


# --- what looks like a secret ---------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abc123DEF456",
        "sk-ant-api03-abcDEF_123-xyz",
        "sk-abcd********wxyz",
        "gw-" + "aB3_-" * 8 + "xyz",
        "AIzaSyA1234567890abcdefghijk",
        "ghp_abcdefghijklmnop1234",
        "github_pat_11ABCDEFG0abcdefgh",
        "xoxb-123456789-abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "hf_abcdefghijklmnopqr",
        "gsk_abcdefghijklmnopqr",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "ya29.a0AfH6SMBx_abc",
    ],
)
def test_what_looks_like_a_key_is_taken_out(key: str) -> None:
    for text in (f"Incorrect API key provided: {key}. See", f"'{key}'", f"({key})"):
        assert REDACTED in Redaction().clean(text)
        assert key not in Redaction().detail(text)
    assert REDACTED == Redaction().clean_id(key)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdefgh1", "abcdefgh1"),
        ("{'Proxy-Authorization': 'Basic aGVsbG86eA=='}", "aGVsbG86eA"),
        ("bearer token Bearer abc.def-123", "abc.def-123"),
        ('{"x-api-key": "letmein"}', "letmein"),
        ("api_key=letmein&x=1", "letmein"),
        ("cookie: letmein; other=1", "letmein"),
        ("http://user:letmein@proxy:3128/", "letmein"),
        ("access_token=letmein", "letmein"),
        ("client-secret: letmein", "letmein"),
        ("password=letmein", "letmein"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            "MIIE",
        ),
    ],
)
def test_what_follows_a_credentials_name_is_taken_out(text: str, secret: str) -> None:
    assert secret not in Redaction().clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "upstream exploded",
        "task-force, risk-averse, sk-lite",
        "Unsupported parameter: 'max_output_tokens'",
        "max_tokens: 64000 > 32000, which is the maximum",
        "Basic authentication failed; the token is missing",
        "This model's maximum context length is 128000 tokens",
        "500 server_error: The server had an error (request req_1)",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert text == Redaction(["sk-chat"]).detail(text, body())


# --- the request's own words ----------------------------------------------------------


def padded(size: int) -> bytes:
    """A body of about *size* bytes with the prompt in its middle."""
    filler = "lorem ipsum dolor sit amet " * (size // 54)
    return body(filler + PROMPT + filler)


@pytest.mark.parametrize(
    "own",
    [
        pytest.param(body(), id="short"),
        pytest.param(body("say something"), id="very-short"),
        pytest.param(padded(SMALL_BODY_BYTES // 2), id="small"),
        pytest.param(padded(SMALL_BODY_BYTES * 2), id="large"),
        pytest.param(padded(1024 * 1024), id="a-mebibyte"),
        pytest.param(padded(MAX_COMPARED_BYTES + 2048), id="too-large-to-compare"),
    ],
)
@pytest.mark.parametrize(
    "echo",
    [
        pytest.param("{}", id="bare"),
        pytest.param("invalid value '{}' for input", id="quoted"),
        pytest.param('failed on {{"model": "x", "input": "{}"}}', id="as-json"),
        pytest.param("{{'input': '{}'}}", id="as-python"),
        pytest.param('{{\\"input\\":\\"{}\\"}}', id="escaped-twice"),
        pytest.param("cannot read the text {} in turn 3", id="between-other-words"),
    ],
)
def test_a_prompt_that_is_quoted_is_taken_out(own: bytes, echo: str) -> None:
    prompt = "say something" if b"say something" in own else PROMPT
    said = Redaction().detail("500 server_error: " + echo.format(prompt), own)

    assert prompt not in said
    assert "flower pot" not in said
    assert said.startswith("500 server_error")


def test_letters_that_json_escapes_are_known_again() -> None:
    prompt = "Übermäßig schöne Grüße aus Köln"
    for own in (body(prompt), json.dumps({"a": prompt}, ensure_ascii=False).encode()):
        assert "schöne" not in Redaction().detail(f"bad: {prompt}", own)


def test_names_of_fields_and_models_stay() -> None:
    own = body(max_output_tokens=5, previous_response_id="x")
    text = "Unknown: max_output_tokens, previous_response_id of gpt-5-turbo-preview"
    said = Redaction().detail(text, own, {"gpt-5-turbo-preview"})

    assert text == said


def test_what_is_known_of_the_request_but_no_name_goes() -> None:
    own = body("the-password-is-swordfish")

    assert "swordfish" not in Redaction().detail("bad the-password-is-swordfish", own)


@given(
    words=st.lists(st.text(string.ascii_lowercase, min_size=2, max_size=9), min_size=5),
    start=st.integers(0, 50),
    length=st.integers(24, 200),
    around=st.text(string.ascii_uppercase + " ", max_size=30),
)
def test_no_run_of_24_characters_is_left(
    words: list[str], start: int, length: int, around: str
) -> None:
    prompt = " ".join(words)
    part = prompt[start : start + length]
    assume(len(part) >= 24)
    own = body(prompt)
    said = Redaction().detail(f"{around}: {part} {around}", own)

    runs = [part[i : i + 24] for i in range(len(part) - 23)]
    assert not [run for run in runs if run in said]


def test_the_time_for_one_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger the body, the fewer times it is searched."""
    searched = 0

    def is_in(text: str, own: bytes) -> bool:
        nonlocal searched
        searched += len(own)
        return False

    monkeypatch.setattr(redaction_module, "_is_in", is_in)
    for size in (10_000, 100_000, 1_000_000, MAX_COMPARED_BYTES):
        searched = 0
        Redaction().detail("x " * (MAX_READ_CHARS // 2), b"y" * size)
        assert searched <= 2 * redaction_module.SCAN_BYTES + 2 * size


# --- length and form ------------------------------------------------------------------


@pytest.mark.parametrize("marks", ['""', "''", "``", "“”"])
def test_a_long_quotation_is_shortened(marks: str) -> None:
    first, last = marks
    long, short = "w" * (MAX_QUOTED_CHARS + 1), "w" * MAX_QUOTED_CHARS
    detail = Redaction().detail

    assert f"it said {first}…{last} twice" == detail(
        f"it said {first}{long}{last} twice"
    )
    assert f"it said {first}{short}{last}" == detail(f"it said {first}{short}{last}")
    assert "wwww" not in detail(f"it said {first}{long}")


@pytest.mark.parametrize("size", [MAX_DETAIL_CHARS, MAX_READ_CHARS + 1, 1_000_000])
def test_it_is_one_bounded_line(size: int) -> None:
    said = Redaction().detail("a\nb\tc\x00 " * size)

    assert MAX_DETAIL_CHARS == len(said)
    assert said.startswith("a b c a b c")
    assert MAX_QUOTE_CHARS == len(Redaction().quote("a b " * size))


def test_a_secret_at_the_edge_of_what_is_read_leaves_no_half() -> None:
    secret = "hunter2" * 4
    for before in range(MAX_READ_CHARS - 40, MAX_READ_CHARS):
        quoted = "'" + "q" * (before - 3) + "' "  # shortened, so that the edge is seen
        said = Redaction([secret]).detail(quoted + secret)
        assert "hunter2" not in said


# --- what a client may read -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("cannot reach https://api.internal:8443/v1/x", "api.internal"),
        ("connect to vllm-7:8000 failed", "vllm-7"),
        ("host gpu3.corp is down", "gpu3"),
        ("from 10.1.2.3:443", "10.1.2.3"),
        ("from [fd00:1::2]:443", "fd00"),
        ("at localhost:11434", "localhost"),
        ("open /var/lib/models/x.bin: no such file", "/var/lib"),
        ("open C:\\models\\x.bin", "models"),
        ("in organization org-AbC on tokens", "org-AbC"),
        ("project proj_xyz has none", "proj_xyz"),
        ("organization 'Acme Corp' is limited", "Acme"),
        ("project 123456789012 is limited", "123456789012"),
        ("ask ops@acme.example", "ops@acme"),
        ("request 0190c1d2-7f00-7abc-8def-0123456789ab", "0190c1d2"),
        ("arn:aws:bedrock:us-east-1:1234:model", "bedrock"),
        ("key sk-chat-1 is bad", "sk-chat-1"),
    ],
)
def test_a_quote_tells_nothing_of_the_operator(text: str, inner: str) -> None:
    said = Redaction(["sk-chat-1"]).quote(text)

    assert inner not in said
    assert REDACTED in said


@pytest.mark.parametrize(
    "text",
    [
        "upstream exploded",
        "messages.0.content.1: text content blocks must be non-empty",
        "Limit 30000, used 29000. Try gpt-4.1 and/or later: 3 of 4",
        "Invalid type for 'input[0].content'",
    ],
)
def test_a_quote_keeps_what_helps_the_user(text: str) -> None:
    assert text == Redaction(["sk-chat"]).quote(text)
