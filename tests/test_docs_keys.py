"""``configuration.md`` and ``config.toml`` say the truth about every key."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gateway.config import schema
from gateway.config.changes import RESTART
from gateway.config.parse import parse
from gateway.protocols.options import Options
from tests.kit.project import ROOT, page, rows

UNITS = {"_s": "s", "_bytes": "bytes", "_days": "days"}


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


# --- config.toml ------------------------------------------------------------------


def shipped() -> str:
    return (ROOT / "config.toml").read_text("utf-8")


def uncommented() -> str:
    """The shipped config with every key set that it only shows."""
    return re.sub(r"(?m)^#(?=[a-z\[])", "", shipped())


def keys_in(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every key of a parsed config, as ``section.key``."""
    for key, value in table.items():
        for one in value if value and isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from keys_in(one, f"{path}{key}.")
            yield f"{path}{key}"


def test_config_toml_shows_every_key() -> None:
    shown = set(keys_in(tomllib.loads(uncommented())))

    assert [key for key in KEYS if key not in shown] == []


def test_config_toml_is_valid_with_and_without_its_comments() -> None:
    parse(shipped(), lambda reference: "secret")
    full = parse(uncommented(), lambda reference: "secret")

    assert [user.name for user in full.user] == ["alice"]
    assert len(full.account) > 2


def test_config_toml_sets_what_the_defaults_say() -> None:
    """The reference shows the defaults, so it must set nothing else."""
    given = parse(shipped(), lambda reference: "secret")

    shown = schema.Config(admin=schema.AdminSettings(), account=given.account)
    assert given == shown


def test_config_toml_shows_the_defaults_of_what_it_does_not_set() -> None:
    full = parse(uncommented(), lambda reference: "secret")
    [openai] = [one for one in full.account if one.name == "openai-1"]

    shown = dataclasses.replace(openai, convert=schema.Overrides())
    assert openai.options("gpt-5.5") == shown.options("gpt-5.5")
    assert openai.dialect == schema.Account("", "").dialect
    assert full.user[0].budget == schema.Budget()


def test_config_toml_starts_with_the_trial_account_alone() -> None:
    given = parse(shipped(), lambda reference: "secret")

    assert given.user == ()
    assert [(one.name, one.embedded) for one in given.account] == [("trial", True)]
