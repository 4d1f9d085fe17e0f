"""Who may use the admin side: unix socket, token, Host and Origin, bodies, paths."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from gateway.endpoints.admin.access import (
    FAILURE_S,
    FAILURES,
    MAX_ADDRESSES,
    FailureLimit,
)
from tests.conftest import Serve
from tests.kit import settings
from tests.kit.admin import BEARER, over_tcp, over_unix
from tests.kit.gateway import Gateway


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    return await serve(admin=settings.ADMIN)


async def test_the_unix_socket_needs_no_token(gateway: Gateway, tmp_path: Path) -> None:
    async with over_unix(tmp_path) as operator:
        status = await operator.get("/status")

    assert (0, 0, False) == (status["running"], status["waiting"], status["draining"])
    assert (1, "none", os.getpid()) == (
        status["workers"],
        status["engine"],
        status["pid"],
    )


async def test_the_unix_socket_is_for_its_owner_alone(
    gateway: Gateway, tmp_path: Path
) -> None:
    mode = (tmp_path / "admin.sock").stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert 0o600 == stat.S_IMODE(mode)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        pytest.param({}, 401, "missing_token", id="no-token"),
        pytest.param(
            {"Authorization": "Bearer wrong"}, 401, "wrong_token", id="wrong-token"
        ),
        pytest.param(
            {"Authorization": "Basic dGVzdA=="}, 401, "missing_token", id="basic"
        ),
        pytest.param(
            {**BEARER, "Host": "evil.example"}, 403, "wrong_host", id="other-host"
        ),
        pytest.param(
            {**BEARER, "Origin": "https://evil.example"},
            403,
            "wrong_origin",
            id="other-origin",
        ),
        pytest.param(
            {**BEARER, "Origin": "null"}, 403, "wrong_origin", id="opaque-origin"
        ),
    ],
)
async def test_tcp_refuses(
    gateway: Gateway, headers: dict[str, str], status: int, code: str
) -> None:
    reply = await over_tcp(gateway, headers).ask("GET", "/status")

    assert (status, code) == (reply.status, reply.code)


async def test_tcp_takes_the_token_and_its_own_origin(gateway: Gateway) -> None:
    operator = over_tcp(gateway)

    await operator.get("/status")
    await operator.get("/status", headers={"Origin": operator.base_url})
    await operator.get("/status", headers={"Host": "localhost:7"})


async def test_an_address_with_too_many_wrong_tokens_has_to_wait(
    gateway: Gateway,
) -> None:
    wrong, right = over_tcp(gateway, {"Authorization": "Bearer no"}), over_tcp(gateway)
    replies = [await wrong.ask("GET", "/status") for _ in range(FAILURES)]
    refused = await right.ask("GET", "/status")

    assert {401} == {reply.status for reply in replies}
    assert (429, "too_many_failures") == (refused.status, refused.code)
    assert 1 <= int(refused.headers["Retry-After"]) <= FAILURE_S + 1


def test_the_limit_of_failures_refills_and_is_bounded() -> None:
    now = 100.0
    limit = FailureLimit(lambda: now)
    for _ in range(FAILURES):
        assert 0 == limit.wait_s("a")
        limit.failed("a")

    assert FAILURE_S == limit.wait_s("a")
    assert 0 == limit.wait_s("b")
    now += FAILURE_S
    assert 0 == limit.wait_s("a")
    for number in range(MAX_ADDRESSES):
        limit.failed(str(number))
    assert MAX_ADDRESSES == len(limit._empty_at)


async def test_no_path_of_it_is_on_a_public_listener(gateway: Gateway) -> None:
    for path in ("/api/v1/status", "/openapi.json"):
        url = gateway.base_url + path
        async with gateway.session.get(url, headers=BEARER) as response:
            assert 404 == response.status


async def test_a_large_body_is_refused(gateway: Gateway) -> None:
    body = b'{"' + b"x" * 1024 * 1024 + b'":1}'
    reply = await over_tcp(gateway).ask("POST", "/reload", data=io.BytesIO(body))

    assert (413, "body_too_large") == (reply.status, reply.code)


async def test_other_paths_and_methods_are_refused_as_json(gateway: Gateway) -> None:
    operator = over_tcp(gateway)
    unknown = await operator.ask("GET", "/nothing")
    method = await operator.ask("PUT", "/status")
    parameter = await operator.ask("GET", "/status?x=1")

    assert (404, "not_found") == (unknown.status, unknown.code)
    assert (405, "method_not_allowed") == (method.status, method.code)
    assert "GET" in method.headers["Allow"]
    assert 400 == parameter.status
