"""The text of a script: the functions that it uses, and no others."""

from __future__ import annotations

import re

import pytest

from gateway.shared.script import assembled, script
from tests.kit.project import ROOT

FOLDER = ROOT / "gateway/shared/scripts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.lua") if path.stem != "helpers")


def functions(text: str) -> list[str]:
    return re.findall(r"local function (\w+)", text)


def test_a_function_comes_with_those_that_it_needs_and_before_its_use() -> None:
    made = functions(assembled("--@ alive\nreturn alive(ARGV[1])"))

    assert made == ["node_of", "alive"]


def test_a_branch_defines_only_what_is_not_defined_around_it() -> None:
    text = assembled("--@ get\nif x then\n  --@ put\nend\nif y then\n  --@ put\nend")

    assert functions(text) == ["node_of", "get", "pack", "put", "pack", "put"]


def test_what_a_branch_defined_is_defined_again_behind_it() -> None:
    text = assembled("if x then\n  --@ get\nend\n--@ get")

    assert functions(text) == ["node_of", "get"] * 2


@pytest.mark.parametrize("name", NAMES)
def test_a_script_uses_every_function_that_it_has(name: str) -> None:
    text = script(name).text
    made = functions(text)

    assert [one for one in made if len(re.findall(rf"\b{one}\b", text)) < 2] == []
    assert "--" not in text


@pytest.mark.parametrize("name", NAMES)
def test_no_script_looks_through_the_keys(name: str) -> None:
    assert not re.search(r"'(KEYS|H?SCAN|[SZ]SCAN|FLUSH\w+)'", script(name).text)


def test_an_unknown_function_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        assembled("--@ no_such_function")
