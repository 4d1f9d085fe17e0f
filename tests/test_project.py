"""The code keeps the rules of the project; its pages are tested in ``test_docs``."""

from __future__ import annotations

import ast
import graphlib
import importlib.metadata
import re
import sys
import types
from collections.abc import Mapping
from configparser import ConfigParser
from functools import lru_cache
from pathlib import Path

import pytest

from gateway.protocols import PROTOCOLS
from tests.kit.project import DOCS, ROOT, SOURCES, TESTS, names, relative

PROTOCOL_HOMES = tuple(f"gateway/protocols/{name}" for name in PROTOCOLS)

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40

# Files that know no clock, no network, no log, no event loop.
PURE = (
    "gateway/accounting/budget.py",
    "gateway/accounting/prices.py",
    "gateway/accounts/[!a]*.py",
    "gateway/accounts/account_health.py",
    "gateway/accounts/affinity.py",
    "gateway/admission/expected_wait.py",
    "gateway/admission/policy.py",
    "gateway/admission/reserved_positions.py",
    "gateway/admission/simulation.py",
    "gateway/client/kinds.py",
    "gateway/config/[!l]*.py",
    *(
        f"gateway/endpoints/admin/page/{name}.py"
        for name in (
            *("accounts", "health", "looks", "now", "plots", "requests", "session"),
            *("text", "usage", "users", "waterfall"),
        )
    ),
    "gateway/endpoints/model_catalog.py",
    "gateway/endpoints/paths.py",
    "gateway/errors.py",
    "gateway/ledger/day_sum.py",
    "gateway/ledger/narrative*.py",
    "gateway/ledger/spans.py",
    "gateway/protocols/**/*.py",
    "gateway/record.py",
    "gateway/relay/headers.py",
    "gateway/relay/upstream_request.py",
    "gateway/shared/answers.py",
    "gateway/shared/script.py",
    "gateway/shared/steps.py",
    "gateway/telemetry/canonical_line.py",
    "gateway/telemetry/redaction.py",
    "gateway/telemetry/traceback_text.py",
    "gateway/trial/*.py",
    "gateway/usage.py",
)
IMPURE_IMPORTS = {
    *("aiohttp", "asyncio", "logging", "random", "socket", "sqlalchemy", "structlog"),
    *("threading", "time", "uvloop", "gateway.telemetry.log"),
}

# The packages from top to bottom: each imports those below it alone.
PACKAGES = (
    *("__main__", "commands", "daemon", "endpoints", "relay", "accounting", "ledger"),
    *("context", "client", "accounts", "admission", "config", "trial", "transport"),
    *("shared", "telemetry"),
    *("protocols", "record", "usage", "errors", "content_coding", "wake_event"),
)

# Background tasks: each is kept, named and awaited at its owner's stop.
TASK_OWNERS = {
    f"gateway/{name}.py"
    for name in (
        *("daemon/app", "daemon/server", "endpoints/model_lists", "relay/drains"),
        "endpoints/websocket/response_socket",
        *("shared/membership", "daemon/polite_listener", "daemon/takeover"),
        "endpoints/admin/event_feed",
        "ledger/runtime_changes",
    )
}


# --- the code -----------------------------------------------------------------------


@pytest.mark.parametrize("path", names(SOURCES))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text("utf-8")
    functions = [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]

    assert text.count("\n") <= MAX_FILE_LINES
    assert [] == [one for one in functions if one[1] > MAX_FUNCTION_LINES]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


@lru_cache(maxsize=None)
def imports_of(path: Path, *, inner: bool = True) -> frozenset[str]:
    """
    The modules that *path* imports; not those for type checking alone.

    Args:
        inner: also what functions import when they run.
    """
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{relative(path)}: a relative import"
            module = node.module or ""
            whole = {f"{module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= whole
            if len(whole) < len(node.names):
                found.add(module)
        if inner or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)
    return frozenset(found)


def test_no_module_imports_in_a_circle() -> None:
    graph = {
        name: imports_of(path, inner=False) & set(MODULES)
        for name, path in MODULES.items()
    }

    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def ours(path: Path) -> set[str]:
    """What *path* imports of the gateway itself."""
    return {one for one in imports_of(path) if one.partition(".")[0] == "gateway"}


def test_the_list_of_packages_is_whole() -> None:
    assert {package_of(name) for name in MODULES} - {""} == set(PACKAGES)
    assert len(PACKAGES) <= 22


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_downwards_only(package: str) -> None:
    above = set(PACKAGES[: PACKAGES.index(package)])

    assert {} == {
        name: wrong
        for name, path in MODULES.items()
        if package_of(name) == package
        if (wrong := [one for one in ours(path) if package_of(one) in above])
    }


def test_only_the_wiring_names_an_implementation_of_admission() -> None:
    """Everything else takes the protocols of ``admission.interface``."""
    shared = {
        f"gateway.admission.{name}" for name in ("body_room", "interface", "simulation")
    }
    naming = {
        (name.removeprefix("gateway."), inner.removeprefix("gateway.admission."))
        for name, path in MODULES.items()
        if package_of(name) != "admission"
        for inner in imports_of(path) - shared
        if package_of(inner) == "admission"
    }

    assert naming == {
        ("daemon.wiring", "overlap"),
        ("daemon.sharing", "shared_registry"),
        ("daemon.handed_state", "overlap"),
        ("daemon.takeover", "overlap"),
        ("daemon.takeover", "handover"),
    }


@pytest.mark.parametrize("pattern", PURE)
def test_pure_files_know_no_clock_network_or_log(pattern: str) -> None:
    paths = sorted(ROOT.glob(pattern))
    wrong = {
        relative(path): sorted(found)
        for path in paths
        if (found := {i for i in imports_of(path) if is_impure(i)})
    }

    assert paths
    assert {} == wrong


def compared(node: ast.AST) -> list[ast.expr]:
    """What *node* compares, looks up or matches a value with."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        listed = (ast.Tuple, ast.List, ast.Set)
        inner = [one.elts for one in sides if isinstance(one, listed)]
        return [*sides, *(item for items in inner for item in items)]
    if isinstance(node, ast.Dict):
        return [key for key in node.keys if key]
    return [node.value] if isinstance(node, ast.MatchValue) else []


def test_protocols_are_compared_by_name_in_their_own_packages_alone() -> None:
    """Elsewhere a question about a protocol is asked of its ``WireProtocol``."""
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in SOURCES
        if not any(path.is_relative_to(ROOT / home) for home in PROTOCOL_HOMES)
        for tree in ast.walk(ast.parse(path.read_text("utf-8")))
        for node in compared(tree)
        if isinstance(node, ast.Constant) and node.value in PROTOCOLS
    ]

    assert found == []


def is_impure(name: str) -> bool:
    return name in IMPURE_IMPORTS or name.partition(".")[0] in IMPURE_IMPORTS


def test_background_tasks_are_made_by_their_owners_alone() -> None:
    makers = {
        relative(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("create_task", "ensure_future")
        and ast.unparse(node.value) != "group"  # a TaskGroup awaits its own
    }

    assert makers <= TASK_OWNERS


@pytest.mark.parametrize("path", names([*SOURCES, *TESTS]))
def test_every_file_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))

    assert not tree.body or ast.get_docstring(tree)


# --- the packages --------------------------------------------------------------------


def declared(*extras: str) -> set[str]:
    """The distributions that setup.cfg asks for, in normal form."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = setup["options"]["install_requires"]
    text += "".join("\n" + setup["options.extras_require"][extra] for extra in extras)
    lines = [line.strip() for line in text.splitlines()]
    return {
        normal(re.split(r"[\s<>=;\[]", line)[0])
        for line in lines
        if line and not line.startswith("#")
    }


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@lru_cache
def installed() -> Mapping[str, list[str]]:
    """The distributions of each top-level module; a second of work."""
    return importlib.metadata.packages_distributions()


def foreign(paths: list[Path]) -> set[str]:
    """The distributions of everything that is neither ours nor Python's."""
    known = installed()
    tops = {name.partition(".")[0] for path in paths for name in imports_of(path)}
    tops -= {"benchmarks", "gateway", "tests", *sys.stdlib_module_names}
    return {normal(one) for top in tops for one in known.get(top, [top])}


def test_what_the_daemon_imports_is_declared() -> None:
    # what aiohttp cannot be without
    inherited = {"multidict", "yarl"}
    later = {"compression"}  # Python's own from 3.14 on

    assert foreign(SOURCES) - inherited - later <= declared()


def test_what_is_declared_is_needed() -> None:
    by_url = {"psycopg"}  # SQLAlchemy loads it by the ledger's URL

    assert declared() - by_url <= foreign(SOURCES)


def test_what_the_tests_import_is_declared() -> None:
    # what the SDKs and aiohttp cannot be without
    inherited = {"httpx2", "multidict", "pydantic", "yarl"}
    later = {"compression"}
    beside = {"wirecheck"}  # skipped where it is absent

    assert foreign(TESTS) - inherited - later - beside <= declared("test")


def test_the_console_script_is_there() -> None:
    [script] = importlib.metadata.entry_points(group="console_scripts", name="gateway")

    assert isinstance(script.load(), types.FunctionType)


def test_no_package_registry_is_named() -> None:
    """Which registry is used is the business of pip's and npm's own settings."""
    hosts = ("registry." + "npmjs", "pypi." + "org", "pythonhosted." + "org")
    files = [*SOURCES, *TESTS, *DOCS, ROOT / "Makefile", ROOT / "setup.cfg"]
    files += [ROOT / ".ci/setup", ROOT / "pyproject.toml", ROOT / "config.toml"]

    assert [] == [
        (relative(path), host)
        for path in files
        for host in hosts
        if host in path.read_text("utf-8")
    ]
