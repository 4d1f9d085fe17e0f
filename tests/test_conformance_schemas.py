"""
Independent judges of the three protocols' forms, before an account of each protocol.

A second gateway with the trial account is the upstream, so that each judge's own
questions are answered: it echoes, and it calls the first tool on being asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, clients
from tests.kit.gateway import Gateway
from tests.kit.settings import TRIAL, key_of

pytestmark = pytest.mark.timeout(120)

COMPLY = Path(sys.executable).with_name("llm-comply")
CANARY = clients.NPM / "node_modules/.bin/compatcanary"

each_account = pytest.mark.parametrize("account", answers.PROTOCOLS)


async def before(serve: Serve, protocol: str) -> Gateway:
    """A gateway whose only account, of *protocol*, is another gateway's trial."""
    digest = hashlib.sha256(f"sk-{protocol}".encode()).hexdigest()
    behind = await serve(
        daemon=True,
        accounts=[{**TRIAL, "models": ["trial"]}],
        users=[{"name": "front", "key_sha256": [digest]}],
    )
    account = {
        "name": protocol,
        "protocol": protocol,
        "base_url": f"{behind.base_url}/v1",
        "api_key": f"env:TEST_KEY_{protocol.upper()}",
    }
    return await serve(accounts=[account], ledger={"url": "sqlite:///front.db"})


async def judged(command: list[str], **env: str) -> tuple[int, Any]:
    """The judge's exit status and its report."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert stdout, stderr.decode()
    return process.returncode or 0, json.loads(stdout)


FORMATS = [
    pytest.param("open-responses", (), id="responses"),
    pytest.param("openai-chat", (), id="chat"),
    pytest.param(
        "anthropic", ("--auth-header", "x-api-key", "--no-bearer"), id="messages"
    ),
]


@each_account
@pytest.mark.parametrize("form, options", FORMATS)
async def test_every_answer_fits_the_published_schema(
    serve: Serve, account: str, form: str, options: tuple[str, ...]
) -> None:
    gateway = await before(serve, account)

    status, report = await judged(
        [str(COMPLY), "-u", f"{gateway.base_url}/v1", "-k", key_of("alice")]
        + ["-m", "trial", "--format", form, "--json", "--timeout", "20", *options]
    )

    assert [] == [
        (one["id"], one["errors"])
        for one in report["results"]
        if "errors" in one
        if one["status"] != "skipped"  # of a reasoning model alone
    ]
    assert 0 == status


@pytest.mark.skipif(not CANARY.exists(), reason="run .ci/setup test")
@each_account
async def test_it_behaves_as_an_openai_endpoint(serve: Serve, account: str) -> None:
    gateway = await before(serve, account)

    status, report = await judged(
        [str(CANARY), "scan", "--base-url", f"{gateway.base_url}/v1"]
        + ["--model", "trial", "--format", "json", "--fail-on", "any"],
        OPENAI_API_KEY=key_of("alice"),
    )

    assert [] == [one for one in report["results"] if one["status"] != "pass"]
    assert (0, 100) == (status, report["score"])
