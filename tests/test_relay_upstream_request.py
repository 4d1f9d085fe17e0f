"""The client's bytes change only where they must."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols import json_members as member_bytes
from gateway.protocols.json_members import members
from gateway.relay.upstream_request import replace_model

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
            b'{"model":"a","n":123456789012345678901234567890,"s":"\\u00e9\\/"}',
            b'{"model":"new","n":123456789012345678901234567890,"s":"\\u00e9\\/"}',
            id="large-numbers-and-escapes-stay",
        ),
        pytest.param(
            b'{"input":{"model":"a"},"model":"a"}',
            b'{"input":{"model":"a"},"model":"new"}',
            id="a-nested-model-stays",
        ),
        pytest.param(
            b'{"model":"a","tools":[{"model":"a"}],"x":1,"x":2}',
            b'{"model":"new","tools":[{"model":"a"}],"x":1,"x":2}',
            id="what-comes-behind-stays",
        ),
        pytest.param(
            b'{"input":"say \\"model\\":\\"a\\"","model":"a"}',
            b'{"input":"say \\"model\\":\\"a\\"","model":"new"}',
            id="quoted-text-stays",
        ),
        pytest.param(
            b'{"x":"\\\\","y":"[{\\"model\\":","a\\"model":"a","model":"a"}',
            b'{"x":"\\\\","y":"[{\\"model\\":","a\\"model":"a","model":"new"}',
            id="brackets-and-backslashes-in-texts",
        ),
        pytest.param(
            b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"new"}', id="an-escaped-name"
        ),
        pytest.param(
            b'{"model":"a","x":[],"mo\\u0064el":"b"}',
            b'{"model":"new","x":[],"mo\\u0064el":"new"}',
            id="twice-whichever-the-upstream-reads",
        ),
        pytest.param(
            b'{"x":' + b"[" * 500 + b"]" * 500 + b',"model":"a"}',
            b'{"x":' + b"[" * 500 + b"]" * 500 + b',"model":"new"}',
            id="behind-a-deep-value",
        ),
    ],
)
def test_only_the_model_changes(body: bytes, expected: bytes) -> None:
    assert expected == replace_model(body, "new")


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_name_that_stands_once_is_searched_not_scanned(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(member_bytes, "members", None)
    text = b'"input":[{"text":"say \\"model\\": \xc3\xa9"}]'
    parts = [text, text.replace(b"input", b"more")]
    parts.insert(["first", "middle", "last"].index(place), b'"model" : "old"')
    body = b"{" + b",".join(parts) + b"}"

    assert body.replace(b'"old"', b'"new"') == replace_model(body, "new")


NAMES = st.sampled_from(["model", "mo", "x", 'a"model', "]}", "\\"]) | st.text()


@given(st.dictionaries(NAMES, JSON), st.booleans(), st.sampled_from([None, 1]))
def test_the_members_are_found_as_the_bytes_that_they_are(
    document: dict[str, object], ascii_alone: bool, indent: int | None
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_alone, indent=indent).encode(
        "utf-8", "surrogatepass"
    )
    found = list(members(body))

    assert list(document) == [one.name.decode() for one in found]
    for one, value in zip(found, document.values()):
        assert value == json.loads(body[one.start : one.end])


@given(st.dictionaries(NAMES, JSON), st.dictionaries(NAMES, JSON), st.text(min_size=1))
def test_every_other_byte_stays(
    before: dict[str, object], behind: dict[str, object], model: str
) -> None:
    """Also where both have members of the same names, or a model."""
    parts = [json.dumps(part)[1:-1] for part in (before, behind)]
    named = ['"model" :"old"', *parts, '"model":  "old"']
    body = "{" + " , ".join(filter(None, named)) + "}"
    old, new = '"old"', orjson.dumps(model).decode()
    changed = [part.replace(old, new) if part in named[::3] else part for part in named]
    for part in (before, behind):
        part.pop("model", None)
    if '"model"' not in "".join(parts):
        expected = "{" + " , ".join(filter(None, changed)) + "}"
        assert expected == replace_model(body.encode(), model).decode()
    got = json.loads(replace_model(body.encode(), model))
    assert {**before, **behind, "model": model} == got


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b'"x":[' + b'{"model":"a"},' * 20_000 + b"1]", id="decoys"),
        pytest.param(b",".join([b'"model":"a"'] * 20_000), id="twins"),
        pytest.param(b'"x":' + b'[1,"",' * 900 + b"1" + b"]" * 900, id="deep"),
        pytest.param(b'"x":"' + b'\\"model\\":' * 20_000 + b'"', id="quoted"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_body_is_scanned_a_few_times_whatever_is_in_it(
    monkeypatch: pytest.MonkeyPatch, rest: bytes, first: bool
) -> None:
    """A body that could make each look a parse would hold up everybody."""
    parses, inside = [], []
    match, parse = member_bytes._INSIDE.match, orjson.loads

    def matched(body: bytes, at: int) -> re.Match[bytes]:
        found = match(body, at)
        assert found
        inside.append(len(found.group()))
        return found

    def parsed(data: bytes) -> object:
        parses.append(len(data))
        return parse(data)

    monkeypatch.setattr(member_bytes, "_INSIDE", SimpleNamespace(match=matched))
    monkeypatch.setattr(member_bytes.orjson, "loads", parsed)
    model = b'"model":"a"'
    body = b"{" + b",".join([model, rest] if first else [rest, model]) + b"}"

    assert "new" == parse(replace_model(body, "new"))["model"]
    assert sum(parses) + sum(inside) < 3 * len(body)
