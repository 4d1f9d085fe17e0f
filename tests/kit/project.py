"""The project's own files, for the tests that read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DOCS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def names(paths: list[Path]) -> list[Any]:
    """*paths* as parameters of a test, each by its name in the project."""
    return [pytest.param(path, id=relative(path)) for path in paths]


def page(name: str) -> str:
    """The text of a page of ``docs``."""
    return (ROOT / "docs" / name).read_text("utf-8")


def rows(text: str) -> Iterator[list[str]]:
    """The rows of every table in *text*, heads and rules too, as their cells."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def section(name: str, heading: str) -> str:
    """What a page says below *heading*, up to the next of the same rank."""
    _, found, rest = page(name).partition(f"\n## {heading}\n")
    assert found, heading
    return rest.partition("\n## ")[0]
