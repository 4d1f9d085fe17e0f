"""Request pairs: what a client sends, and what the account of another protocol gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ClientError
from gateway.protocols.options import Options
from gateway.protocols.request_converter import Converted, convert_request

PAIRS = Path(__file__).parent / "wire" / "requests"
SHARED = Path(
    os.environ.get("GATEWAY_SHARED", Path(__file__).resolve().parents[2] / "shared")
)
VECTORS = SHARED / "vectors" / "requests" / "requests.json"


def _own() -> list[Any]:
    found = []
    for path in sorted(PAIRS.glob("*_to_*.json")):
        source, target = path.stem.split("_to_")
        for pair in json.loads(path.read_text()):
            name = f"{source}-{target}-{pair['name']}"
            found.append(pytest.param(source, target, pair, id=name))
    return found


def _shared() -> list[Any]:
    if not VECTORS.exists():
        why = pytest.mark.skip(reason=f"no shared vectors at {VECTORS}")
        return [pytest.param("", "", {}, id="shared-vectors", marks=why)]
    return [
        pytest.param(pair["from"], pair["to"], pair, id=pair["name"])
        for pair in json.loads(VECTORS.read_text())
    ]


def _convert(source: str, target: str, pair: dict[str, Any]) -> Converted:
    model = pair["input"]["model"]
    return convert_request(
        source,
        target,
        pair["input"],
        model=model,
        upstream_model=pair.get("upstream_model", model),
        options=Options(**pair.get("options", {})),
    )


def _check(source: str, target: str, pair: dict[str, Any]) -> None:
    if "reject" in pair:
        with pytest.raises(ClientError) as caught:
            _convert(source, target, pair)
        error = caught.value
        assert pair["reject"] == {
            "status": error.status,
            "param": error.param,
            "code": error.code,
        }
        assert f"'{error.param}'" in error.message or "not found" in error.message
        return
    before = json.dumps(pair["input"])
    converted = _convert(source, target, pair)
    assert pair["expected"] == json.loads(converted.encoded())
    assert sorted(pair["dropped"]) == sorted(converted.dropped)
    assert before == json.dumps(pair["input"])


@pytest.mark.parametrize("source, target, pair", _own())
def test_pair(source: str, target: str, pair: dict[str, Any]) -> None:
    _check(source, target, pair)
    if "cut" in pair:
        assert tuple(pair["cut"]) == _convert(source, target, pair).asked.cut


@pytest.mark.parametrize("source, target, pair", _shared())
def test_shared_pair(source: str, target: str, pair: dict[str, Any]) -> None:
    _check(source, target, pair)


def test_every_direction_has_pairs() -> None:
    directions = {tuple(str(param.id).split("-")[:2]) for param in _own()}
    names = ("responses", "chat", "messages")
    assert {(a, b) for a in names for b in names if a != b} == directions
