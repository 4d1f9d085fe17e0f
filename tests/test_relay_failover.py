"""The relay is readable: its head names who acts, nothing is handed through."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gateway.relay import failover

ROOT = Path(__file__).parents[1]
MAX_PARAMETERS = 4  # without ``self`` and flags that are named
HEAD = failover.__doc__ or ""
MODULES = sorted((ROOT / "gateway/relay").glob("*.py"))
NAMED = sorted(set(re.findall(r"``(\w+(?:\.\w+)?)``", HEAD)))


def defined() -> set[str]:
    """Every function in ``gateway``, alone and as ``Class.function``."""
    found: set[str] = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.ClassDef):
                found |= {
                    f"{node.name}.{one.name}"
                    for one in node.body
                    if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
                }
    return found


@pytest.mark.parametrize("state", ["WAITING", "STREAMING", "CLOSED"])
def test_each_state_says_what_happens(state: str) -> None:
    [section] = re.findall(rf"(?ms)^    {state} .*?(?=^    [A-Z]+ |\Z)", HEAD)

    assert re.search(r"``\w+\.\w+``", section)


def test_the_functions_that_the_head_names_are_there() -> None:
    assert NAMED
    known = defined()
    assert [name for name in NAMED if name not in known] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_functions_have_few_parameters(path: Path) -> None:
    """What many methods need belongs to the object that they are methods of."""
    functions = [
        (node.name, [one.arg for one in node.args.args if one.arg != "self"])
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert [one for one in functions if len(one[1]) > MAX_PARAMETERS] == []
