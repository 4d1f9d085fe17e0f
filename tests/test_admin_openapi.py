"""The description of the admin API is valid, and the API does what it says."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import Serve
from tests.kit import settings
from tests.kit.admin import BEARER, over_tcp

EXAMPLES = 8  # of each operation
LEFT_OUT = ("/api/v1/events", "/api/v1/accounts/{name}/test")  # endless; slow


async def test_every_operation_does_what_its_description_says(serve: Serve) -> None:
    gateway = await serve(admin=settings.ADMIN, accounts=[settings.TRIAL])
    operator = over_tcp(gateway)
    document = await operator.get("//openapi.json")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    api = schemathesis.openapi.from_dict(document)

    def ask_all() -> list[str]:
        return [
            fuzzed(found.ok(), operator.base_url)
            for found in api.get_all_operations()
            if found.ok().path not in LEFT_OUT
        ]

    asked = await asyncio.to_thread(ask_all)

    assert len(asked) > 10
    assert not gateway.log.events("request.crashed")


def fuzzed(operation: Any, base_url: str) -> str:
    """Ask *operation* for valid and other things; each answer must be described."""

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        response = case.call(base_url=base_url, headers=BEARER)
        case.validate_response(
            response,
            checks=[response_schema_conformance, status_code_conformance],
        )

    ask()
    return str(operation.path)
