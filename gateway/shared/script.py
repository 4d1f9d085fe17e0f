"""
The scripts that run inside the engine, as they are sent.

A script is a file ``scripts/NAME.lua``. Where it says ``--@ name name``, the functions
of these names from ``helpers.lua`` are put, with those that they need in turn. The
engine makes every function anew at each call, so a script has only what it uses, and a
branch that is rarely taken names its functions itself.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

GAP_US = 2_000_000
"""Without any beat for so long the engine stood still, or its clock leapt."""
LEARN_US = 1_500_000
"""So long after a loss of state all nodes have said what they hold."""
REAPED_AT_ONCE = 500
"""Leases of dead nodes that one beat takes back."""

HEAD = f"""\
local P, call = KEYS[1], redis.call
local SEP, GAP_US, LEARN_US = '\\1', {GAP_US}, {LEARN_US}
local REAPED_AT_ONCE = {REAPED_AT_ONCE}
"""

_FUNCTION = re.compile(r"^local function (\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^\s*--(?!@).*\n|\s+--(?!@) .*$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^( *)--@ (.+)$")


class Script(NamedTuple):
    """
    Attributes:
        name: of its file.
        sha: of the text: the name by which the engine remembers it.
    """

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script *name*, with the functions that it uses."""
    text = HEAD + assembled(_read(name))
    digest = hashlib.sha1(text.encode(), usedforsecurity=False)
    return Script(name, text, digest.hexdigest())


def _read(name: str) -> str:
    path = files(__package__) / "scripts" / f"{name}.lua"
    return _COMMENT.sub("", path.read_text("utf-8"))


@cache
def _helpers() -> dict[str, str]:
    """The text of each helper, in the order of the file: each uses earlier ones."""
    return {one[1]: one[0] for one in _FUNCTION.finditer(_read("helpers"))}


@cache
def _needs(name: str) -> frozenset[str]:
    """The helper *name* and all that it needs."""
    words = set(re.findall(r"\w+", _helpers()[name])) & set(_helpers()) - {name}
    return frozenset((name,)).union(*map(_needs, words))


def assembled(text: str) -> str:
    """*text* with the functions that its directives name."""
    lines: list[str] = []
    scopes: list[tuple[int, set[str]]] = []  # indentation, and what is defined there
    for line in text.splitlines():
        found = _DIRECTIVE.match(line)
        indent = len(line) - len(line.lstrip())
        if found is None:
            lines.append(line)
            if line.strip():  # a block ends where the indentation is less
                scopes = [one for one in scopes if one[0] <= indent]
            continue
        wanted = frozenset[str]().union(*map(_needs, found[2].split()))
        missing = wanted.difference(*(names for _, names in scopes))
        scopes.append((indent, set(missing)))
        lines += [body for name, body in _helpers().items() if name in missing]
    return "\n".join(lines) + "\n"
