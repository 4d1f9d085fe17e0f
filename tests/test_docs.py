"""The pages for those who run, use and change the gateway agree with the code."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest

from gateway.__main__ import _parser as build_parser
from gateway.accounts.backoff import POLICIES
from gateway.config import schema
from gateway.errors import CODES
from gateway.protocols.stream_state import StreamState
from gateway.record import Record
from gateway.telemetry import log as log_module
from tests.kit.inprocess import logging_to
from tests.kit.logs import Log
from tests.kit.project import DOCS, ROOT, SOURCES, names, page, rows, section
from tests.test_docs_keys import KEYS
from tests.test_project import PACKAGES

MAX_BOXES = 22
# Words that a reader would not search for.
PRIVATE_WORDS = ("told", "whoever", "nobody", "amid", "whence", "thereof", "stands")
PROSE = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config.toml")),
    *sorted((ROOT / "docs").glob("*.md")),
]
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

each_page = pytest.mark.parametrize("path", names(DOCS))


# --- behaviour.md -----------------------------------------------------------------


def test_every_error_code_is_documented() -> None:
    text = page("behaviour.md")

    assert [code for code in CODES if f"`{code}`" not in text] == []


@lru_cache
def logged_events() -> frozenset[str]:
    """Every event that the code hands to its logger."""
    levels = {"debug", "info", "warning", "error", "exception"}
    return frozenset(
        call.args[0].value
        for path in SOURCES
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in levels
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    )


def test_every_log_event_is_a_documented_noun_and_participle() -> None:
    text = page("behaviour.md")
    events = logged_events()

    assert "request.finished" in events
    assert [one for one in events if not re.fullmatch(r"[a-z]+\.[a-z_]+", one)] == []
    assert sorted(one for one in events if f"`{one}`" not in text) == []


def test_every_metric_is_documented() -> None:
    text = page("behaviour.md")
    source = (ROOT / "gateway/telemetry/metrics.py").read_text("utf-8")
    metrics = set(re.findall(r'"(gateway_[a-z_]+)"', source))

    assert metrics
    assert sorted(name for name in metrics if f"`{name}" not in text) == []


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


# --- the other pages --------------------------------------------------------------


def test_every_error_code_has_its_row_in_the_troubleshooting_page() -> None:
    _, _, by_code = page("troubleshooting.md").partition("## By error code")
    codes = [cells[0].strip("`") for cells in rows(by_code) if "`" in cells[0]]

    assert sorted(codes) == sorted(CODES)


def test_the_troubleshooting_page_gives_each_code_its_http_status() -> None:
    _, _, by_code = page("troubleshooting.md").partition("## By error code")
    given = {c[0].strip("`"): c[1] for c in rows(by_code) if c[0].startswith("`")}

    assert given == {code: str(fault.status) for code, fault in CODES.items()}


def test_the_operators_page_gives_the_first_cooldown_of_every_reason() -> None:
    table = page("operate.md").partition("## Accounts")[2].partition("\n## ")[0]
    given = {
        cells[0].strip("`"): cells[1]
        for cells in rows(table)
        if len(cells) == 3 and cells[0].startswith("`")
    }

    assert given == {name: f"{policy.first_s:g} s" for name, policy in POLICIES.items()}


def test_ci_runs_what_the_readme_says() -> None:
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    readme = (ROOT / "README.md").read_text("utf-8")

    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1:] == ['cd "$(dirname "$0")/.." && exec make test']
    assert re.search(r"(?m)^make test\b", readme)


def test_the_example_for_contributors_is_a_test_that_runs() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    assert example == (ROOT / "tests/test_example.py").read_text("utf-8")


# --- every page -------------------------------------------------------------------


@each_page
def test_keys_that_a_page_names_exist(path: Path) -> None:
    sections = "|".join(field.name for field in dataclasses.fields(schema.Config))
    named = re.findall(rf"`((?:{sections})\.[a-z_.]+[a-z])`", path.read_text("utf-8"))
    others = {"account.cooled", "account.recovered", "config.toml"}  # events, a file
    others |= logged_events()

    assert [key for key in named if key not in KEYS.keys() | others] == []


@each_page
def test_links_inside_the_project_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)", path.read_text("utf-8"))

    for target, anchor in links:
        linked = (path.parent / target) if target else path
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"(?m)^#+ (.*)$", linked.read_text("utf-8"))
            assert anchor in ["#" + head.lower().replace(" ", "-") for head in heads]


@each_page
def test_commands_that_a_page_shows_are_understood(path: Path) -> None:
    """In code, as in "`gateway trace ID`" and at the start of a line of a block."""
    shown = re.findall(
        r"(?m)(?:`|^\.venv/bin/|^/opt/[\w.-]+/bin/|^)gateway (?=[a-z])([^`#>|&\n]*)",
        path.read_text("utf-8"),
    )

    for command in shown:
        build_parser().parse_args(shlex.split(command))


@each_page
def test_make_targets_that_a_page_names_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    [phony] = re.findall(r"(?m)^\.PHONY: (.*)$", makefile)
    code = re.findall(r"(?:`|^)make ([a-z]+)", path.read_text("utf-8"), re.MULTILINE)

    assert set(code) <= set(phony.split())


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_prose_for_people_uses_plain_words(path: Path) -> None:
    found = re.findall(rf"\b({'|'.join(PRIVATE_WORDS)})\b", path.read_text("utf-8"))

    assert found == []


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


# --- architecture.md --------------------------------------------------------------


def test_the_drawing_has_every_package_in_the_order_of_the_imports() -> None:
    drawing = section("architecture.md", "Packages").split("```")[1]
    boxes = re.findall(r"\[(\w+)\]", drawing)

    assert boxes == list(PACKAGES)
    assert len(boxes) <= MAX_BOXES


@pytest.mark.parametrize("state", [state.name for state in StreamState])
def test_the_three_states_name_the_functions_that_act_in_them(state: str) -> None:
    table = section("architecture.md", "The three states")
    found = [cells for cells in rows(table) if cells[0] == f"**{state}**"]
    events = [cells[1] for cells in found]
    acting = [cells for cells in found if re.search(r"\[`[\w.]+`\]\(", cells[-1])]

    assert events == ["it goes well", "the upstream fails", "the client leaves", "stop"]
    assert acting == found


@pytest.mark.parametrize("heading", ["One SSE frame", "The body of one request"])
def test_the_ways_of_a_frame_and_a_body_take_ten_steps_each(heading: str) -> None:
    steps = re.findall(r"(?m)^\d+\. .*$", section("architecture.md", heading))

    assert 1 < len(steps) <= 10
    assert [one for one in steps if not re.search(r"\[`[\w.]+`\]\(", one)] == []


def test_the_glossary_has_ten_words_of_our_own_at_most() -> None:
    words = list(rows(section("architecture.md", "Words of our own")))[2:]

    assert 0 < len(words) <= 10
