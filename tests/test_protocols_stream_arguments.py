"""Arguments while they arrive: what is passed on is an object at every moment."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.call_arguments import InputText, ObjectText

RAW = "__raw_arguments"


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def passed(kind: type[ObjectText] | type[InputText], text: str, size: int) -> str:
    reading = kind()
    fed = "".join(reading.feed(piece) for piece in pieces(text, size))
    return fed + reading.close()


def at_any_size(kind: type[ObjectText] | type[InputText], text: str) -> str:
    results = {passed(kind, text, size) for size in (1, 2, 3, 7, 1000)}
    assert 1 == len(results)
    return results.pop()


OBJECTS = [
    pytest.param("{}", id="empty"),
    pytest.param(' {"a" : [1, -2.5e3, true, null, {"b": []}]}', id="nested"),
    pytest.param(r'{"a": "\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}', id="escapes"),
    pytest.param('{"é😀": "世界"}', id="not-ascii"),
]


@pytest.mark.parametrize("text", OBJECTS)
def test_an_object_passes_as_it_is(text: str) -> None:
    assert text.lstrip() == at_any_size(ObjectText, text)


REPAIRED = [
    pytest.param("", None, id="nothing"),
    pytest.param(" \n", None, id="space"),
    pytest.param("do it", {}, id="prose"),
    pytest.param("[1]", {}, id="array"),
    pytest.param('"text"', {}, id="string"),
    pytest.param("{", {}, id="bare"),
    pytest.param("{,}", {}, id="comma"),
    pytest.param('{"a"', {"a": None}, id="key-alone"),
    pytest.param('{"a', {"a": None}, id="half-a-key"),
    pytest.param('{"a": tru', {"a": None}, id="half-a-word"),
    pytest.param('{"a": 12', {"a": None}, id="number-without-end"),
    pytest.param('{"a": nope}', {"a": None}, id="no-word"),
    pytest.param('{"a": 1,', {"a": 1}, id="after-a-comma"),
    pytest.param('{"a": "x\\u00', {"a": "x"}, id="half-an-escape"),
    pytest.param('{"a": [1, {"b": ', {"a": [1, {"b": None}]}, id="deep"),
    pytest.param('{"a": {"b": 1,', {"a": {"b": 1, "": None}}, id="deep-comma"),
    pytest.param('{"a": 1 "b": 2}', {"a": 1}, id="no-comma"),
    pytest.param('{"a": [1}', {"a": [1]}, id="wrong-bracket"),
]


@pytest.mark.parametrize("text, kept", REPAIRED)
def test_what_is_no_object_becomes_one(text: str, kept: dict[str, object]) -> None:
    arguments = at_any_size(ObjectText, text)

    assert (None if kept is None else {**kept, RAW: text}) == json.loads(
        arguments or "null"
    )


TOLERATED = [
    pytest.param('{"a": "1\n2"}', {"a": "1\n2"}, id="raw-line-end"),
    pytest.param('{"a": "C:\\dir"}', {"a": "C:\\dir"}, id="lone-backslash"),
    pytest.param('{"a": 1}{"b": 2}', {"a": 1}, id="a-second-object"),
    pytest.param('{"a": 1} trailing', {"a": 1}, id="words-behind"),
]


@pytest.mark.parametrize("text, repaired", TOLERATED)
def test_slips_of_the_pen_are_mended(text: str, repaired: dict[str, object]) -> None:
    assert repaired == json.loads(at_any_size(ObjectText, text))


@given(st.text(alphabet='{}[]",:\\ \nu0aé1-.tnul', max_size=30), st.integers(1, 5))
def test_any_text_makes_an_object(text: str, size: int) -> None:
    arguments = passed(ObjectText, '{"k": ' + text, size)

    assert isinstance(json.loads(arguments), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON), st.integers(1, 9), st.booleans())
def test_any_object_passes(value: dict[str, object], size: int, ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii)

    assert value == json.loads(passed(ObjectText, text, size))


INPUTS = [
    pytest.param('{"input": "a\\n\\"b\\" \\u00e9"}', 'a\n"b" é', id="escapes"),
    pytest.param(' {"input" :"\\ud83d\\ude00!"}', "😀!", id="pair"),
    pytest.param('{"input": ""}', "", id="empty"),
    pytest.param("{}", "", id="none"),
    pytest.param('{"why": 1, "input": "z"}', "z", id="second-member"),
    pytest.param("*** Begin Patch", "*** Begin Patch", id="no-json"),
    pytest.param('{"input": "C:\\q\n"}', "C:\\q\n", id="slips"),
    pytest.param('{"patch": "p"}', '{"patch": "p"}', id="another-member"),
]


@pytest.mark.parametrize("text, free_text", INPUTS)
def test_the_free_text_is_taken_out(text: str, free_text: str) -> None:
    assert free_text == at_any_size(InputText, text)


@given(st.text(), st.integers(1, 9), st.booleans())
def test_any_free_text_comes_back(value: str, size: int, ascii: bool) -> None:
    text = json.dumps({"input": value}, ensure_ascii=ascii)

    assert value == passed(InputText, text, size)


def test_the_free_text_comes_as_it_arrives() -> None:
    reading = InputText()

    fed = [reading.feed(piece) for piece in ('{"input": "on', "e\\", 'ntwo"', "}")]

    assert ["on", "e", "\ntwo", ""] == fed
