"""One list of models that OpenAI, Anthropic and Codex clients can all read."""

from __future__ import annotations

import orjson
import pytest

from gateway.config.schema import Account
from gateway.endpoints.model_catalog import catalogue, read_list

NAMED = Account(
    "a", "http://h", protocol="chat", models=("m-1", "g-*"), rename={"fast": "m-9"}
)
CODEX_KEYS = {
    "slug",
    "display_name",
    "supported_reasoning_levels",
    "shell_type",
    "visibility",
    "supported_in_api",
    "priority",
    "base_instructions",
    "support_verbosity",
    "truncation_policy",
    "experimental_supported_tools",
}


def ids(listed: list[dict[str, object]]) -> list[object]:
    document = catalogue([(NAMED, listed)])
    return [entry["id"] for entry in document["data"]]


def test_what_the_config_names_is_there_and_globs_are_not() -> None:
    assert ["m-1", "fast"] == ids([])


def test_the_upstreams_list_fills_the_globs_and_nothing_else() -> None:
    assert ["m-1", "fast", "g-7"] == ids([{"id": "g-7"}, {"id": "other"}])


def test_codex_entries_are_complete_and_leave_its_own_models_alone() -> None:
    account = Account("a", "http://h", protocol="chat", models=("m-1", "gpt-5.5"))
    models = catalogue([(account, [])])["models"]

    assert ["m-1"] == [entry["slug"] for entry in models]
    assert CODEX_KEYS == set(models[0])


def test_an_upstreams_catalogue_entry_passes_as_it_is() -> None:
    entry = dict.fromkeys(CODEX_KEYS, 1) | {"slug": "g-7", "more": True}
    models = catalogue([(NAMED, [entry])])["models"]

    assert entry in models


def test_anthropic_clients_find_their_keys() -> None:
    document = catalogue([(NAMED, [])])

    assert {"has_more", "first_id", "last_id"} < set(document)
    assert {"id", "type", "display_name", "created_at"} <= set(document["data"][0])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"<html>", [], id="no-json"),
        pytest.param(b"[]", [], id="no-object"),
        pytest.param(b'{"data":7}', [], id="no-list"),
        pytest.param(b'{"data":[1,{"id":5},{"id":"a"}]}', ["a"], id="odd-entries"),
        pytest.param(b'{"models":[{"slug":"b"}]}', ["b"], id="codex-form"),
    ],
)
def test_any_upstream_list_is_read(data: bytes, expected: list[str]) -> None:
    assert expected == [e.get("id") or e.get("slug") for e in read_list(data)]


def test_the_body_is_json() -> None:
    assert orjson.dumps(catalogue([(NAMED, [])]))
