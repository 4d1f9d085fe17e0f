"""The outline of a request says what its full parse says, as far as it is asked."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client import body
from gateway.errors import ClientError
from gateway.protocols import PROTOCOLS, outline
from gateway.protocols.compaction import compaction_item
from gateway.protocols.outline import LEFT_OUT, MIN_BYTES, outline_of
from gateway.protocols.reasoning_proofs import ProofFilter, ReasoningProofs
from gateway.protocols.responses.proofs import MAX_UNTYPED

WITH_PROOFS = [name for name, wire in PROTOCOLS.items() if wire.proofs is not None]

PROOF = st.sampled_from(["a" * 60, "b" * 60, "gw1.c", "", None, 3, [], [1], {}])
TEXT = st.text(max_size=8)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("input_text"), "text": TEXT}))
ITEM = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["reasoning", "compaction", "compaction_summary"])},
        optional={"id": PROOF, "encrypted_content": PROOF, "content": PROOF},
    ),
    st.just(compaction_item("c1", "what was said")),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["message", "function_call", 3, None])},
        optional={"id": TEXT, "role": TEXT, "content": PARTS | TEXT},
    ),
    st.fixed_dictionaries({"role": TEXT, "content": TEXT}),
)
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["thinking", "redacted_thinking", "text", "tool_use"])},
    optional={"thinking": PROOF, "signature": PROOF, "data": PROOF, "text": TEXT},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.lists(BLOCK) | TEXT}
)
PIECES = {"responses": ITEM, "messages": MESSAGE}
REST = st.dictionaries(
    st.sampled_from(["model", "store", "previous_response_id", "a/b", "", "~", "tools"])
    | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=5,
    ),
    max_size=6,
)


def proofs_of(protocol: str) -> ReasoningProofs:
    proofs = PROTOCOLS[protocol].proofs
    assert proofs
    return proofs


def accounts() -> list[ProofFilter]:
    """All kinds of accounts."""
    both = (False, True)
    return [
        ProofFilter(lambda proof, mine=mine: proof[:1] not in mine, native, verifies)
        for mine in ("", "a", "ab")
        for native in both
        for verifies in both
    ]


@pytest.mark.parametrize("protocol", WITH_PROOFS)
@given(st.data())
def test_an_outline_answers_as_the_whole_document(
    protocol: str, data: st.DataObject
) -> None:
    proofs = proofs_of(protocol)
    given_pieces = data.draw(st.lists(PIECES[protocol], max_size=6) | TEXT)
    document = data.draw(REST) | {proofs.conversation: given_pieces}
    found = outline_of(orjson.dumps(document), proofs)
    assert found is not None

    for name in document:
        if name not in LEFT_OUT and name != proofs.conversation:
            assert document[name] == found[name]
    assert found.keys() <= document.keys()
    assert proofs.compaction_in(document) == proofs.compaction_in(found)
    for account in accounts():
        whole, part = proofs.filtered(document, account), proofs.filtered(
            found, account
        )
        assert whole.removed == part.removed
        assert (whole.body is document) == (part.body is found)


@pytest.mark.parametrize("protocol", WITH_PROOFS)
def test_what_has_an_outline_is_never_fitted(protocol: str) -> None:
    """What is sent of an outline is the bytes that came."""
    wire = PROTOCOLS[protocol]
    document: dict[str, Any] = {"model": "m", "messages": [], "stream": True}

    assert not wire.is_misshapen(document)
    assert document is wire.fitted(document, "m", lambda model: None)  # type: ignore
    assert b"{}" == wire.asking_for_usage(b"{}", document)


NO_JSON = [
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xc0\x80"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\x"}',
    b'{"a":"\x01"}',
    b'{"a":01}',
    b'{"a":1.}',
    b'{"a":1e999}',
    b'{"a":NaN}',
    b'{"a":tru}',
    b'{"a":1,}',
    b'{"a" 1}',
    b'{"a":1}x',
    b'{"a":1}\x00',
    b'\x0c{"a":1}',
    b'\xef\xbb\xbf{"a":1}',
    b'{"a":1',
    b'{"a":' + b"[" * 1024 + b"]" * 1024 + b"}",
    b"",
    b" ",
]


@pytest.mark.parametrize("data", NO_JSON)
def test_what_the_full_parse_refuses_has_no_outline(data: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(data)

    for protocol in WITH_PROOFS:
        assert outline_of(data, proofs_of(protocol)) is None


@given(st.binary(max_size=12), st.integers(0, 200), st.integers(0, 20))
def test_no_damage_is_overlooked(damage: bytes, at: int, cut: int) -> None:
    text = (
        '{"model":"m","input":[{"type":"a","x":[1.5e3,null,"\\u00e9é"]}],"b":{"c":{}}}'
    )
    data = text.encode()
    data = data[:at] + damage + data[at + cut :]
    if outline_of(data, proofs_of("responses")) is not None:
        assert isinstance(orjson.loads(data), dict)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param('{"model":"a","model":"b"}', id="a-name-twice"),
        pytest.param('{"mod\\u0065l":"a","model":"b"}', id="a-name-twice-escaped"),
        pytest.param(f'{{"model":"a","x":{10**40}}}', id="a-long-number"),
        pytest.param(
            '{"input":[' + ",".join(["{}"] * (MAX_UNTYPED + 1)) + "]}", id="no-types"
        ),
        pytest.param('{"input":[1]}', id="number"),
        pytest.param('{"input":["a"]}', id="text"),
        pytest.param('{"input":[null]}', id="null"),
        pytest.param('{"input":[["type"]]}', id="list"),
        pytest.param('{"mod":"a","mod\\u0000el":"b"}', id="a-name-with-a-zero"),
        pytest.param("[]", id="no-object"),
        pytest.param("1", id="no-object-but-a-number"),
    ],
)
def test_what_is_unusual_is_left_to_the_full_parse(document: str) -> None:
    assert outline_of(document.encode(), proofs_of("responses")) is None


LARGE = "x" * MIN_BYTES


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({}, "model"),
        ({"model": {"a": 1}}, "model"),
        ({"model": ["a"]}, "model"),
        ({"model": "m", "stream": []}, "stream"),
        ({"model": "m", "stream": 1}, "stream"),
    ],
)
def test_a_large_body_is_refused_as_a_small_one(
    said: dict[str, Any], param: str
) -> None:
    errors = []
    for text in ("", LARGE):
        with pytest.raises(ClientError) as caught:
            body.parse(orjson.dumps(said | {"input": text}), proofs_of("responses"))
        errors.append((caught.value.message, caught.value.param))

    assert errors[0] == errors[1] and param == errors[0][1]


def test_a_large_body_is_parsed_when_more_is_asked_for() -> None:
    document = {"model": "m", "stream": True, "input": [], "tools": [1], "x": LARGE}
    ask = body.parse(json.dumps(document).encode(), proofs_of("responses"))

    assert ("m", True) == (ask.model, ask.stream)
    assert ask.is_outline(ask.outline) and "tools" not in ask.outline
    assert document == ask.document and not ask.is_outline(ask.document)

    ask.forget_document()

    assert document == ask.outline and not ask.is_outline(ask.outline)


def test_a_small_body_is_parsed_at_once() -> None:
    ask = body.parse(b'{"model":"m"}', proofs_of("responses"))

    assert ask.outline is ask.document and not ask.is_outline(ask.document)


def test_the_buffers_of_a_very_large_body_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outline, "KEPT_BYTES", 100)
    monkeypatch.setattr(outline, "_kept_parser", None)
    data = orjson.dumps({"model": "m", "input": "x" * 100})

    assert "m" == (outline_of(data, proofs_of("responses")) or {})["model"]
