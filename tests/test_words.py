"""Names and prose: a class name has one meaning, and the words can be searched for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_project import DOCS, ROOT, SOURCES, TESTS, names, relative

MAX_PUBLIC_METHODS = 12

SAVED_KEY = '"told"'  # of the rows of saved outages

# Words that say neither who acts nor on what. The field has better ones.
VAGUE = frozenset(("amid", "nobody", "thereof", "told", "whence", "whoever"))

PAGES = [path for path in DOCS if path.name != "CHANGELOG.md"]
WRITTEN = [*SOURCES, *TESTS, *PAGES, ROOT / "config.toml"]

LISTS = (Path(__file__), ROOT / "tests/test_docs.py")  # they list such words


def classes(path: Path) -> list[ast.ClassDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", names([p for p in WRITTEN if p not in LISTS]))
def test_prose_and_names_are_plain(path: Path) -> None:
    text = path.read_text("utf-8").replace(SAVED_KEY, "")
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Za-z][a-z]*", text)

    assert VAGUE.intersection(word.lower() for word in words) == set()


def test_a_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in classes(path):
            places.setdefault(node.name, []).append(relative(path))

    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", names(SOURCES))
def test_a_large_class_says_why(path: Path) -> None:
    """A class with more than MAX_PUBLIC_METHODS says in its docstring why."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    large = [
        node.name
        for node in classes(path)
        if "methods" not in (ast.get_docstring(node) or "")
        and MAX_PUBLIC_METHODS
        < sum(
            isinstance(one, functions) and not one.name.startswith("_")
            for one in node.body
        )
    ]

    assert large == []
