"""The page in a real browser, in front of a gateway that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.endpoints.admin.page import renderer
from tests.conftest import Serve
from tests.kit import plays, settings
from tests.kit.admin import over_tcp
from tests.kit.browser import (  # noqa: F401
    Window,
    chromium_fixture,
    needs_chromium,
    windows,
)
from tests.kit.gateway import Gateway
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

pytestmark = [needs_chromium, pytest.mark.timeout(120)]

ONE = {"max_concurrent": 1, "ping_interval_s": 5.0, "queue_timeout_s": 60.0}
VIEWS = (*(path for path, _ in renderer.VIEWS), "/users/alice")
FORMS = (
    pytest.param({"color_scheme": "light"}, id="light"),
    pytest.param({"color_scheme": "dark"}, id="dark"),
    pytest.param({"color_scheme": "light", "width": 360, "height": 740}, id="narrow"),
)

# Text that is seen and has too little contrast with what is behind it (WCAG 1.4.3).
CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const one = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * one(r) + 0.7152 * one(g) + 0.0722 * one(b);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility()) continue;
    const a = light(rgb(getComputedStyle(element).color)), b = light(behind(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${text}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
# What can be used and has no name for a reader of the screen.
NAMELESS = """() => [...document.querySelectorAll("a, button, input, select, summary")]
  .filter((e) => e.type !== "hidden" && e.checkVisibility())
  .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
  .map((e) => e.outerHTML)"""


@pytest.fixture
async def new(chromium: str) -> AsyncIterator[Any]:
    async with windows(chromium) as make:
        yield make


async def start(serve: Serve, upstream: ScriptedUpstream, **config: Any) -> Gateway:
    rows = [account(upstream, "responses", models=["*"], max_concurrent=4)]
    config.setdefault("limits", ONE)
    return await serve(admin=settings.ADMIN, accounts=rows, **config)


async def entered(new: Any, gateway: Gateway, **options: Any) -> Window:
    """A window that the printed link has let in."""
    window: Window = await new(over_tcp(gateway).base_url, **options)
    await window.open(f"/login?token={settings.ADMIN_TOKEN}")
    return window


async def busy(gateway: Gateway, upstream: ScriptedUpstream) -> str:
    """Some requests that ended, well and badly; the id of the last."""
    upstream.next(plays.ok(), plays.status(500), plays.cut(1))
    for user in ("bob", "alice", "bob"):
        reply = await gateway.client(user).ask("responses", "gpt-5.5")
        await gateway.finished(reply)
    return reply.request_id


@pytest.mark.parametrize("form", FORMS)
async def test_every_view_is_readable_and_quiet(
    serve: Serve, upstream: ScriptedUpstream, new: Any, form: dict[str, Any]
) -> None:
    """No complaint in the console, nothing outside of the window, enough contrast."""
    gateway = await start(serve, upstream)
    ident = await busy(gateway, upstream)
    async with holding(gateway.client(), upstream, "gpt-5.5-held"):
        waiting = asyncio.create_task(gateway.client().ask("responses", "gpt-5.5"))
        await gateway.inside.waiting("alice", 1)
        window = await entered(new, gateway, **form)
        for path in (*VIEWS, f"/requests/{ident}"):
            await window.open(path)
            assert 0 == await window.overflow(), path
            assert [] == await window.page.evaluate(CONTRAST), path
            assert [] == await window.page.evaluate(NAMELESS), path
        assert "127.0.0.1" in window.page.url and "token" not in window.page.url
    await waiting

    assert [] == window.complaints


async def test_requests_are_seen_as_they_come_stream_and_end(
    serve: Serve, upstream: ScriptedUpstream, new: Any
) -> None:
    """In place: the focus stays, and the document does not grow."""
    gateway = await start(serve, upstream)
    await gateway.client("bob").ask("responses", "gpt-5.5")
    window = await entered(new, gateway)
    page = window.page
    await page.get_by_text("Nothing runs and nothing waits").wait_for()
    await page.get_by_role("link", name="Health").focus()
    before = await page.evaluate("document.querySelectorAll('*').length")
    marked = "document.querySelector('main').dataset.mine = 'kept'"
    await page.evaluate(marked)
    for _ in range(2):
        async with holding(gateway.client(), upstream, "gpt-5.5-held"):
            row = page.get_by_role("row").filter(has_text="gpt-5.5-held")
            await row.get_by_text("running").wait_for()
            assert await row.get_by_text("alice").count()
        await page.get_by_text("Nothing runs and nothing waits").wait_for()

    assert "Health" == await page.evaluate("document.activeElement.textContent")
    assert "kept" == await page.evaluate("document.querySelector('main').dataset.mine")
    after = await page.evaluate("document.querySelectorAll('*').length")
    assert after <= before + 5
    assert await page.get_by_text("live", exact=True).is_visible()
    assert [] == window.complaints


async def test_times_are_local_and_in_utc_beneath_the_pointer(
    serve: Serve, upstream: ScriptedUpstream, new: Any
) -> None:
    gateway = await start(serve, upstream)
    await gateway.finished(await gateway.client().ask("responses", "gpt-5.5"))
    window = await entered(new, gateway, timezone_id="Asia/Kolkata", locale="en-GB")
    await window.open("/requests")
    moment = window.page.locator("td time").first

    shown = await moment.text_content()
    title = await moment.get_attribute("title")
    assert shown and title and title.endswith(" UTC")
    hour, minute = (int(part) for part in title.split()[1].split(":")[:2])
    local = (hour * 60 + minute + 330) % 1440
    assert f"{local // 60:02d}:{local % 60:02d}:" in shown


async def test_the_keyboard_alone_is_enough(
    serve: Serve, upstream: ScriptedUpstream, new: Any
) -> None:
    """Log in, make a user, read the key; the focus is seen wherever it is."""
    gateway = await start(serve, upstream)
    window: Window = await new(over_tcp(gateway).base_url)
    page, keys = window.page, window.page.keyboard
    await window.open("/users")
    await keys.type(settings.ADMIN_TOKEN)
    await keys.press("Enter")
    await page.wait_for_url("**/users")
    await page.get_by_role("heading", name="Users").wait_for()
    reached = []
    for _ in range(40):
        await keys.press("Tab")
        name = await page.evaluate(
            "(document.activeElement.labels?.[0] || document.activeElement).textContent"
        )
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert "solid" == await page.evaluate(outline), name
        reached.append(name.strip())
        if name == "Name":
            break
    await keys.type("carol")
    await keys.press("Enter")
    heading = page.get_by_role("heading", name="The new key of carol")
    await heading.wait_for()

    assert "Skip to the content" == reached[0]
    assert [name for _, name in renderer.VIEWS] == reached[2:9]
    assert await heading.evaluate("e => e === document.activeElement")
    assert "gw-" in await window.text()
    assert [] == window.complaints


async def test_without_a_script_everything_is_there(
    serve: Serve, upstream: ScriptedUpstream, new: Any
) -> None:
    gateway = await start(serve, upstream)
    ident = await busy(gateway, upstream)
    window = await entered(new, gateway, java_script_enabled=False)
    for path in (*VIEWS, f"/requests/{ident}"):
        await window.open(path)
        assert await window.page.locator("h1").is_visible()
    await window.open("/accounts")
    await window.page.get_by_role("button", name="Pause responses").click()

    assert "responses is paused" in await window.text()
