"""The pages for those who run, use and change the gateway agree with the code."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts.backoff import PACES
from gateway.config import schema
from gateway.config.changes import RESTART
from gateway.errors import CODES
from gateway.protocols.options import Options
from gateway.record import Record
from gateway.telemetry import log as log_module
from tests.kit.inprocess import logging_to
from tests.kit.logs import Log

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

UNITS = {"_s": "s", "_bytes": "bytes", "_days": "days"}


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def rows(text: str) -> Iterator[list[str]]:
    """The rows of every table in *text*, heads and rules too, as their cells."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


# --- configuration.md -------------------------------------------------------------


class Key(typing.NamedTuple):
    """One row of the reference: *default* as it is written, "" where it is words."""

    unit: str
    default: str
    effect: str


def documented_keys() -> dict[str, Key]:
    """What configuration.md says of each key."""
    sections = "|".join(field.name for field in dataclasses.fields(schema.Config))
    found: dict[str, Key] = {}
    for cells in rows(page("configuration.md")):
        if named := re.fullmatch(rf"`((?:{sections})\.[a-z0-9_.]+)`", cells[0]):
            assert len(cells) == 5, cells
            assert named[1] not in found, f"{named[1]} has two rows"
            code = re.fullmatch(r"`(.*)`", cells[2])
            words = "required" if cells[2].startswith("required") else ""
            found[named[1]] = Key(cells[1], code[1] if code else words, cells[3])
    return found


def fields_of(cls: type, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a section and of those inside it, with its field."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if kind is schema.Overrides:
            kind = Options
        inner = [one for one in (kind, *typing.get_args(kind)) if is_section(one)]
        if inner:
            yield from fields_of(inner[0], f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}", field


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def shown_default(field: Any) -> str:
    """The default of a key as TOML; "" where there is none that can be written."""
    if field.default_factory is not dataclasses.MISSING:
        return as_toml(field.default_factory())
    if field.default is dataclasses.MISSING:
        return "required"
    return as_toml(field.default)


def as_toml(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, Mapping):
        assert not value
        return "{}"
    return json.dumps(value)


KEYS = {name: shown_default(field) for name, field in fields_of(schema.Config)}


def test_the_configuration_page_has_a_row_for_every_key_and_no_other() -> None:
    assert documented_keys().keys() == KEYS.keys()


@pytest.mark.parametrize("key", KEYS)
def test_the_configuration_page_gives_each_key_its_own_default(key: str) -> None:
    documented = documented_keys()[key].default
    needed_for_most = key == "account.protocol"  # not for the trial account

    assert documented == ("required" if needed_for_most else KEYS[key])


@pytest.mark.parametrize("key", KEYS)
def test_the_configuration_page_says_what_needs_a_restart(key: str) -> None:
    effect = "restart" if key in RESTART else "reload"

    assert documented_keys()[key].effect == effect


@pytest.mark.parametrize("key", KEYS)
def test_the_configuration_page_gives_the_unit_that_the_name_of_a_key_says(
    key: str,
) -> None:
    wanted = [unit for suffix, unit in UNITS.items() if key.endswith(suffix)]

    assert wanted in ([], [documented_keys()[key].unit])


# --- the other pages --------------------------------------------------------------


def test_every_error_code_has_its_row_in_the_troubleshooting_page() -> None:
    _, _, by_code = page("troubleshooting.md").partition("## By error code")
    codes = [cells[0].strip("`") for cells in rows(by_code) if "`" in cells[0]]

    assert sorted(codes) == sorted(CODES)


def test_the_troubleshooting_page_gives_each_code_its_http_status() -> None:
    _, _, by_code = page("troubleshooting.md").partition("## By error code")
    given = {c[0].strip("`"): c[1] for c in rows(by_code) if c[0].startswith("`")}

    assert given == {code: str(fault.status) for code, fault in CODES.items()}


def test_the_behaviour_page_lists_the_fields_of_the_canonical_line() -> None:
    [sentence] = re.findall(r"(?m)^The canonical line .*$", page("behaviour.md"))
    listed = re.findall(r"`([a-z_]+)`", sentence)
    record = Record("0f1e2d3c", 0.0, 0.0, detail="d", unknown_stop="u", dropped=("x",))
    record.estimated = True

    with logging_to(Log()) as log:
        log_module.finished(record)

    [line] = log.events("request.finished")
    assert listed == [
        name for name in line if name not in ("timestamp", "level", "event")
    ]


def test_the_operators_page_gives_the_first_cooldown_of_every_reason() -> None:
    table = page("operate.md").partition("## Accounts")[2].partition("\n## ")[0]
    given = {
        cells[0].strip("`"): cells[1]
        for cells in rows(table)
        if len(cells) == 3 and cells[0].startswith("`")
    }

    assert given == {name: f"{policy.first_s:g} s" for name, policy in PACES.items()}


def test_the_example_for_contributors_is_a_test_that_runs() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    assert example == (ROOT / "tests/test_example.py").read_text("utf-8")


# Words that a reader would not search for; "stands" but for standing still.
PRIVATE_WORDS = ("told", "whoever", "nobody", "amid", "whence", "thereof", "stands")
PROSE = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config.toml")),
    *sorted(DOCS.glob("*.md")),
]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_prose_for_people_uses_plain_words(path: Path) -> None:
    found = re.findall(rf"\b({'|'.join(PRIVATE_WORDS)})\b", path.read_text("utf-8"))

    assert found == []


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(DOCS.glob("*.md")),
]
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@each_page
def test_functions_that_a_page_links_are_in_their_files(path: Path) -> None:
    links = re.findall(r"\[`([\w.]+)`\]\(([^)]+\.py)\)", path.read_text("utf-8"))

    assert [
        (name, target)
        for name, target in links
        if not name.endswith(".py")
        and name not in definitions((path.parent / target).resolve())
    ] == []


@lru_cache
def definitions(path: Path) -> frozenset[str]:
    """The classes and functions of a file, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, DEFINITIONS):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (one for one in node.body if isinstance(one, DEFINITIONS))
            found |= {f"{node.name}.{one.name}" for one in inner}
    return frozenset(found)


DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@each_page
def test_names_that_a_page_finds_in_a_file_are_there(path: Path) -> None:
    """As in "`ROWS` in `gateway/protocols/dialects.py`"."""
    pairs = re.findall(
        r"`(\w+)` (?:in|of) `(gateway/[\w/]+\.py)`", path.read_text("utf-8")
    )

    assert [
        (name, file)
        for name, file in pairs
        if name not in definitions(ROOT / file) | constants(ROOT / file)
    ] == []


def constants(path: Path) -> set[str]:
    """The module-level names that a file assigns."""
    text = path.read_text("utf-8")
    return set(re.findall(r"(?m)^(\w+)(?:: [^=]+)? = ", text))


@each_page
def test_files_that_a_page_names_exist(path: Path) -> None:
    folders = "benchmarks|docs|gateway|systemd|tests"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", path.read_text("utf-8"))

    assert [name for name in named if not (ROOT / name).exists()] == []
