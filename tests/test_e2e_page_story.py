"""One story: a user is made on the page, waits with Codex, and is ended there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.errors import CODES
from tests.conftest import Serve
from tests.kit import clients, settings
from tests.kit.admin import over_tcp
from tests.kit.browser import (  # noqa: F401
    Window,
    chromium_fixture,
    needs_chromium,
    windows,
)
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

pytestmark = [needs_chromium, clients.needs_codex, pytest.mark.timeout(120)]

MODEL = "gpt-5.5"
LIMITS = {"ping_interval_s": 0.2, "queue_timeout_s": 90.0}


async def make_user(window: Window, name: str) -> str:
    """Make the user *name* on the page; its key, which is shown this once."""
    page = window.page
    await window.open("/users")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Requests at once").fill("2")
    await page.get_by_role("button", name="Make the user").click()
    return await page.locator(".secret").inner_text()


async def test_from_a_new_user_to_a_request_that_is_ended_by_a_click(
    serve: Serve,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    chromium: str,  # noqa: F811
) -> None:
    rows = [account(upstream, "responses", models=["*"], max_concurrent=1)]
    gateway = await serve(admin=settings.ADMIN, accounts=rows, limits=LIMITS)
    async with windows(chromium) as new:
        window: Window = await new(over_tcp(gateway).base_url)
        await window.log_in(settings.ADMIN_TOKEN)
        key = await make_user(window, "carol")
        page = window.page
        async with holding(gateway.client(), upstream, MODEL):
            running = asyncio.create_task(
                clients.codex(tmp_path, gateway.base_url, key, stream_max_retries=0)
            )
            await window.open("/")
            row = page.get_by_role("row").filter(has_text="carol").first
            await row.get_by_text("place 1 for an account").wait_for()
            link = row.locator("a.mono")
            request_id = await link.get_attribute("title")
            await row.get_by_role("button", name="End the request").click()
            await page.get_by_text("is being ended").wait_for()
            run = await running
        await window.open(f"/requests/{request_id}")
        said = await window.text()

    assert 1 == run.status and request_id
    assert CODES["ended_by_operator"].sentence in run.errors[-1]
    assert f"(request id: {request_id})" in run.errors[-1]
    assert "Waited" in said and "for a slot of responses" in said
    assert "(ended_by_operator), caused by the gateway" in said
    assert "codex" in said and key not in said
    assert [] == window.complaints
    [change] = gateway.log.events("admin.changed", what=f"request.{request_id}")
    assert "page" == change["who"]
