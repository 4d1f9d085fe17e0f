"""Who sees the page: its log-in, its cookie, its forms, and its headers."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import pytest

from gateway.endpoints.admin.access import FAILURES
from gateway.endpoints.admin.page.forms import local_path
from gateway.endpoints.admin.page.renderer import POLICY, read_flash
from gateway.endpoints.admin.page.session import SESSION_S, PageSession, same_origin
from tests.conftest import Serve
from tests.kit import settings
from tests.kit.gateway import Gateway
from tests.kit.page import PlainBrowser, plain_browser

NOW = 1_790_000_000.0


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    return await serve(admin=settings.ADMIN)


# --- the cookie ---------------------------------------------------------------------


def test_a_session_is_good_until_it_is_too_old() -> None:
    session = PageSession("token")
    cookie = session.issue(NOW)

    assert session.is_valid(cookie, NOW + SESSION_S - 1)
    assert not session.is_valid(cookie, NOW + SESSION_S)


def test_a_new_token_ends_every_session() -> None:
    old, new = PageSession("token"), PageSession("other")

    assert not new.is_valid(old.issue(NOW), NOW)
    assert old.cookie_name != new.cookie_name


def test_no_changed_cookie_is_good() -> None:
    session = PageSession("token")
    until, nonce, signature = session.issue(NOW).split(".")
    later = str(int(until) + 1)

    for forged in (
        f"{later}.{nonce}.{signature}",
        f"{until}.{nonce}x.{signature}",
        f"{until}.{nonce}.{signature[:-1]}",
        f"{until}.{nonce}.",
        f"{until}.{nonce}.\udcff",
        "٣.x.y",
        "..",
        "",
    ):
        assert not session.is_valid(forged, NOW)


def test_the_cookie_says_nothing_of_the_token() -> None:
    assert "token" not in PageSession("token").issue(NOW)
    assert PageSession("token").issue(NOW) != PageSession("token").issue(NOW)


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"Origin": "http://here:1", "Host": "here:1"}, True),
        ({"Origin": "http://here:1", "Host": "here:2"}, False),
        ({"Origin": "http://evil", "Host": "here:1"}, False),
        ({"Origin": "null", "Host": "here:1"}, False),
        ({"Origin": "", "Host": ""}, False),
        ({"Host": "here:1"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        (
            {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil", "Host": "here"},
            False,
        ),
    ],
)
def test_a_request_of_the_page_itself_is_known(
    headers: dict[str, str], same: bool
) -> None:
    assert same_origin(headers) is same


@pytest.mark.parametrize(
    "path",
    ["//evil", "/\\evil", "http://evil", "", "x", "/a\r\nb", "/" * 600, "/%0d\n"],
)
def test_no_form_leads_to_another_site(path: str) -> None:
    assert "/" == local_path(path)


def test_a_form_leads_back_to_its_view() -> None:
    path = "/requests/a-1_b.c?user=alice&since=2h"

    assert path == local_path(path)


@pytest.mark.parametrize("value", ["x", "e30=", "W10=", "\xff", "a" * 9999, "bnVsbA=="])
def test_a_strange_flash_is_no_flash(value: str) -> None:
    assert read_flash(value) is None


# --- log-in --------------------------------------------------------------------------


async def test_a_view_leads_to_the_log_in_and_back(gateway: Gateway) -> None:
    async with plain_browser(gateway, logged_in=False) as browser:
        asked = await browser.open("/?x=1")
        assert ("/login", 200) == (asked.url.path, asked.status)
        assert "Token" in asked.text and 'name="token"' in asked.html
        assert "/?x=1" == asked.url.query["back"]
        seen = await browser.send("/login", token=settings.ADMIN_TOKEN, back="/?x=1")

    assert ("/", {"x": "1"}) == (seen.url.path, dict(seen.url.query))
    assert "running" in seen.text


async def test_the_printed_link_logs_in_and_the_token_leaves_the_address(
    gateway: Gateway,
) -> None:
    link = gateway.inside.admin.page_link(settings.ADMIN_TOKEN)
    async with plain_browser(gateway, logged_in=False) as browser:
        seen = await browser.open(link.removeprefix(browser.base_url))

    assert (200, "/", "") == (seen.status, seen.url.path, seen.url.query_string)
    assert settings.ADMIN_TOKEN not in seen.html


async def test_the_cookie_is_for_the_page_alone(gateway: Gateway) -> None:
    async with plain_browser(gateway, logged_in=False) as browser:
        form = {"token": settings.ADMIN_TOKEN}
        async with browser.session.post(
            browser.base_url + "/login", data=form, allow_redirects=False
        ) as response:
            assert 303 == response.status
            [cookie] = SimpleCookie(response.headers["Set-Cookie"]).values()

    assert cookie["httponly"] and "Strict" == cookie["samesite"]
    assert ("/", str(SESSION_S)) == (cookie["path"], cookie["max-age"])


async def test_a_wrong_token_is_said_in_its_place(gateway: Gateway) -> None:
    async with plain_browser(gateway, logged_in=False) as browser:
        seen = await browser.send("/login", token="wrong<i>")
        linked = await browser.open("/login?token=wrong")
        empty = await browser.send("/login")

    assert 401 == seen.status == linked.status == empty.status
    assert "This is not the admin token" in seen.text
    assert 'aria-invalid="true" aria-describedby="token-error"' in seen.html
    assert "wrong<i>" not in seen.html


async def test_wrong_tokens_are_limited(gateway: Gateway) -> None:
    async with plain_browser(gateway, logged_in=False) as browser:
        for _ in range(FAILURES):
            await browser.send("/login", token="wrong")
        seen = await browser.log_in()

    assert 429 == seen.status
    assert int(seen.headers["Retry-After"]) >= 1
    assert "Too many wrong tokens" in seen.text


async def test_a_log_out_ends_the_session(gateway: Gateway) -> None:
    async with plain_browser(gateway) as browser:
        left = await browser.send("/logout")
        seen = await browser.open("/")

    assert "/login" == left.url.path == seen.url.path


async def test_a_session_is_good_for_the_api(gateway: Gateway) -> None:
    async with plain_browser(gateway) as browser:
        seen = await browser.open("/api/v1/status")

    assert (200, "application/json") == (seen.status, seen.headers["Content-Type"])


async def test_without_a_session_the_api_answers_in_its_own_form(
    gateway: Gateway,
) -> None:
    async with plain_browser(gateway, logged_in=False) as browser:
        seen = await browser.open("/api/v1/status")

    assert 401 == seen.status and "missing_token" in seen.html


# --- other sites ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_form_of_another_site_changes_nothing(
    gateway: Gateway, headers: dict[str, str]
) -> None:
    async with plain_browser(gateway) as browser:
        refused = await browser.send("/logout", headers)
        seen = await browser.open("/")

    assert 403 == refused.status
    assert "/" == seen.url.path


async def test_a_session_without_an_origin_changes_nothing(gateway: Gateway) -> None:
    async with plain_browser(gateway) as browser:
        async with browser.session.post(browser.base_url + "/logout") as response:
            assert 403 == response.status


# --- what every page has --------------------------------------------------------------


async def test_every_page_has_strict_headers(gateway: Gateway) -> None:
    async with plain_browser(gateway, logged_in=False) as browser:
        for path in ("/login", "/"):
            seen = await browser.open(path)
            assert POLICY == seen.headers["Content-Security-Policy"]
            assert "no-store" == seen.headers["Cache-Control"]
            assert "nosniff" == seen.headers["X-Content-Type-Options"]
            await browser.log_in()

    assert "unsafe" not in POLICY and "*" not in POLICY


@pytest.mark.parametrize("name", ["page.css", "page.js", "icon.svg"])
async def test_files_are_served_to_everyone_and_kept(
    gateway: Gateway, name: str
) -> None:
    async with plain_browser(gateway, logged_in=False) as browser:
        seen = await browser.open(f"/static/{name}")
        tag = {"If-None-Match": seen.headers["ETag"]}
        again = await browser.open(f"/static/{name}", headers=tag)

    assert (200, 304, "") == (seen.status, again.status, again.html)
    assert seen.html and "http://" not in seen.html.replace("http://www.w3.org", "")


def test_templates_have_no_inline_script_or_style() -> None:
    folder = Path(__file__).parents[1] / "gateway/endpoints/admin/page/templates"
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.html"))]

    assert texts
    for text in texts:
        assert (
            re.findall(r"""\s(?:style|on[a-z]+)=["']|\|\s*safe|https?://""", text) == []
        )


async def test_the_socket_needs_no_log_in_but_its_forms_an_origin(
    gateway: Gateway, tmp_path: Path
) -> None:
    connector = aiohttp.UnixConnector(str(tmp_path / "admin.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        browser = PlainBrowser(session, "http://localhost")
        seen = await browser.open("/")
        refused = await browser.send("/logout", {"Origin": "http://evil"})

    assert 200 == seen.status and "Log out" not in seen.text
    assert 403 == refused.status
