"""The page without a script: what each view says, what each form does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.endpoints.admin.page import renderer
from tests.conftest import Serve
from tests.kit import plays, settings
from tests.kit.gateway import Gateway
from tests.kit.page import PlainBrowser, Seen, plain_browser
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

ONE = {"max_concurrent": 1, "ping_interval_s": 5.0, "queue_timeout_s": 20.0}
VIEWS = tuple(path for path, _ in renderer.VIEWS)
HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;</title>"


async def start(serve: Serve, upstream: ScriptedUpstream, **limits: object) -> Gateway:
    rows = [account(upstream, "responses", models=["*"], max_concurrent=4)]
    return await serve(admin=settings.ADMIN, accounts=rows, limits={**ONE, **limits})


async def until_seen(browser: PlainBrowser, path: str, *words: str) -> Seen:
    """The page at *path*, once it says all of *words*."""
    async with asyncio.timeout(10):
        while True:
            seen = await browser.open(path)
            if all(word in seen.text for word in words):
                return seen
            await asyncio.sleep(0.01)


# --- the views ------------------------------------------------------------------------


async def test_every_view_of_a_new_gateway_says_what_to_do(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    async with plain_browser(gateway) as browser:
        said = {path: (await browser.open(path)).text for path in VIEWS}

    assert "Nothing runs and nothing waits" in said["/"] and "curl -N" in said["/"]
    assert "No request yet" in said["/requests"]
    assert "No request has ended" in said["/usage"]
    assert "No request has ended in this time" in said["/health"]
    assert "alice" in said["/users"] and "config file" in said["/users"]
    assert "responses" in said["/accounts"] and "ready" in said["/accounts"]
    assert "[limits] max_concurrent 1" in said["/gateway"]
    assert (
        "sk-" not in said["/gateway"] and settings.ADMIN_TOKEN not in said["/gateway"]
    )


async def test_who_runs_and_who_waits(serve: Serve, upstream: ScriptedUpstream) -> None:
    gateway = await start(serve, upstream)
    async with holding(gateway.client(), upstream, "m-1"):
        waiting = asyncio.create_task(gateway.client().ask("responses", "m-2"))
        await gateway.inside.waiting("alice", 1)
        async with plain_browser(gateway) as browser:
            seen = await until_seen(browser, "/", "m-1", "m-2", "place 1")
            accounts = await browser.open("/accounts")
            user = await browser.open("/users/alice")
    await waiting

    assert "1 of 4 slots" in seen.text and "held by alice 1" in seen.text
    assert re.search(r"running m?.*waiting", seen.text)
    assert "1 of 4 slots: held by alice 1" in accounts.text
    assert "running 1 of 1 waiting 1" in user.text


async def test_one_request_is_found_by_each_of_its_ids_and_explained(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    upstream.next(plays.status(500))
    reply = await gateway.client().ask("responses", "m-1")
    line = await gateway.finished(reply)
    async with plain_browser(gateway) as browser:
        seen = await browser.open(f"/requests/{reply.request_id}")
        for ident in (reply.request_id.replace("-", ""), line["response_id"]):
            found = await browser.open("/requests", params={"id": ident})
            assert f"/requests/{reply.request_id}" == found.url.path
        missing = await browser.open("/requests", params={"id": "nonsense"})
        gone = await browser.open("/requests/nonsense")

    assert (200, 200, 404) == (seen.status, missing.status, gone.status)
    assert "No request fits" in missing.text and "No request has this id" in gone.text
    for words in (
        "Attempt 1, at responses, failed before any output",
        "The client got HTTP 502 (upstream_status), caused by the upstream",
        "Where its time went",
        "HTTP status 502",
        "fault of upstream",
    ):
        assert words in seen.text
    assert 'class="w-failed"' in seen.html and "End this request" not in seen.text


async def test_a_search_keeps_its_fields_and_says_what_is_wrong(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    upstream.next(plays.ok(), plays.status(400))
    for _ in range(2):
        await gateway.finished(await gateway.client().ask("responses", "m-1"))
    async with plain_browser(gateway) as browser:
        failed = await browser.open("/requests?user=alice&outcome=failed&since=1h")
        wrong = await browser.open("/requests?since=soon")
        none = await browser.open("/requests?user=carol")

    assert 1 == failed.html.count('data-key="r-')
    assert 'value="alice"' in failed.html and "selected>failed" in failed.html
    assert (400, 200) == (wrong.status, none.status)
    assert "since must be a day or a moment" in wrong.text
    assert "No request fits" in none.text


async def test_usage_is_plotted_summed_and_given_as_csv(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    await gateway.finished(await gateway.client().ask("responses", "m-1"))
    await gateway.finished(await gateway.client("bob").ask("responses", "m-2"))
    async with plain_browser(gateway) as browser:
        seen = await until_seen(browser, "/usage?by=user&by=model", "alice", "bob")
        path = re.search(r'href="(/usage\.csv[^"]*)"', seen.html)
        assert path
        table = await browser.open(path[1].replace("&amp;", "&"))
        wrong = await browser.open("/usage?since=soon")

    assert 'class="s0"' in seen.html and "Cost by user and model" in seen.text
    assert "text/csv; charset=utf-8" == table.headers["Content-Type"]
    head, *lines = table.html.splitlines()
    assert head.startswith("user,model,requests,ok,")
    assert ["alice,m-1,1,1", "bob,m-2,1,1"] == [
        line.rsplit(",", head.count(",") - 3)[0] for line in lines
    ]
    assert 400 == wrong.status and "since must be" in wrong.text


async def test_health_names_the_fault_and_the_account(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    upstream.next(plays.ok(), plays.cut(1))
    for _ in range(2):
        await gateway.finished(await gateway.client().ask("responses", "m-1"))
    async with plain_browser(gateway) as browser:
        seen = await until_seen(browser, "/health", "it is them")

    assert "50.0" in seen.text and "upstream_cut" in seen.text
    assert "There is one account alone" in seen.text
    assert 'class="f-upstream"' in seen.html


# --- the forms ------------------------------------------------------------------------


async def test_a_user_is_made_used_changed_and_removed(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    async with plain_browser(gateway) as browser:
        fields = {"name": "carol", "max_concurrent": "3", "budget.usd_per_day": "5"}
        made = await browser.send("/users", **fields, with_key="1")
        [key] = re.findall(r"gw-[\w-]{20,}", made.html)[:1]
        headers = {"Authorization": f"Bearer {key}"}
        body = {"model": "m-1", "input": "hi"}
        url = f"{gateway.base_url}/v1/responses"
        async with browser.session.post(url, json=body, headers=headers) as response:
            assert 200 == response.status
        user = await browser.open("/users/carol")
        changed = await browser.send("/users/carol", max_concurrent="7")
        labelled = await browser.send("/users/carol/keys", label="laptop", expires="30")
        prefixes = re.findall(r"/keys/([0-9a-f]{8})/revoke", labelled.html)
        revoked = await browser.send(f"/users/carol/keys/{prefixes[0]}/revoke")
        removed = await browser.send("/users/carol/remove")
        gone = await browser.open("/users/carol")

    assert 200 == made.status and "shown this once" in made.text
    assert (
        key not in user.html and 'value="3"' in user.html and 'value="5"' in user.html
    )
    assert 'value="7"' in changed.html and "limits of carol are changed" in changed.text
    assert 2 == len(prefixes) and "laptop" in labelled.text
    assert f"The key {prefixes[0]} is revoked" in revoked.text
    assert ("/users", 404) == (removed.url.path, gone.status)
    changes = gateway.log.events("admin.changed")
    assert {"page"} == {line["who"] for line in changes} and 6 == len(changes)
    assert all(key not in str(line) for line in changes)


async def test_what_is_wrong_with_a_form_is_said_beside_its_field(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    async with plain_browser(gateway) as browser:
        name = await browser.send("/users", name="a b", max_concurrent="3")
        number = await browser.send("/users", name="carol", max_concurrent="many")
        taken = await browser.send("/users", name="alice")
        config = await browser.send("/users/alice", max_concurrent="3")

    for seen, field in ((name, "name"), (number, "max_concurrent"), (taken, "name")):
        assert 400 <= seen.status < 500
        wrong = re.search(
            rf'name="{field}"[^>]*aria-invalid="true" aria-describedby="([^"]+)"',
            seen.html,
        )
        assert wrong and f'class="error" id="{wrong[1]}"' in seen.html
    assert 'value="3"' in name.html and 'value="many"' in number.html
    assert 409 == config.status and "is a user of the config" in config.text


async def test_an_account_is_paused_and_resumed(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    async with plain_browser(gateway) as browser:
        paused = await browser.send("/accounts/responses/pause", back="/accounts")
        again = await browser.open("/accounts")
        resumed = await browser.send("/accounts/responses/resume", back="/")
        nonsense = await browser.send("/accounts/nonsense/pause")

    assert "/accounts" == paused.url.path and "responses is paused" in paused.text
    assert "Paused by an operator" in again.text and "is paused:" not in again.text
    assert "/" == resumed.url.path and "takes requests again" in resumed.text
    assert "flash bad" in nonsense.html


async def test_a_test_of_an_account_is_shown_step_by_step(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    async with plain_browser(gateway) as browser:
        accounts = await browser.open("/accounts")
        seen = await browser.send("/accounts/responses/test", model="m-1")

    assert 'aria-label="Model for the test of responses"' in accounts.html
    assert 200 == seen.status and "Test of responses" in seen.text
    assert "connect" in seen.text and "usage" in seen.text


async def test_a_request_is_ended(serve: Serve, upstream: ScriptedUpstream) -> None:
    gateway = await start(serve, upstream)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    asked = asyncio.create_task(gateway.client().ask("responses", "m-1"))
    async with plain_browser(gateway) as browser:
        seen = await until_seen(browser, "/", "m-1")
        action = re.search(r'action="(/requests/[^"]+/end)"', seen.html)
        assert action
        ended = await browser.send(action[1], back="/")
        reply = await asked
        again = await browser.send(action[1], back="/")
    gate.set()

    assert "is being ended" in ended.text and "/" == ended.url.path
    line = await gateway.finished(reply)
    assert "ended_by_operator" == line["error_code"]
    assert "No request that waits or runs has this id" in again.text


# --- hostile words --------------------------------------------------------------------


async def test_nothing_that_clients_and_upstreams_write_becomes_html(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await start(serve, upstream)
    upstream.next(plays.status(500, HOSTILE), plays.ok())
    for _ in range(2):
        headers = {"session-id": "x<b>y", "user-agent": HOSTILE}
        reply = await gateway.client().ask("responses", HOSTILE, headers=headers)
        await gateway.finished(reply)
    async with plain_browser(gateway) as browser:
        await browser.send("/users", name="carol")
        await browser.send("/users/carol/keys", label=HOSTILE)
        await until_seen(browser, "/usage?by=model&by=user", "alice")
        paths = [
            *VIEWS,
            "/users/carol",
            f"/requests/{reply.request_id}",
            "/usage?by=model",
        ]
        asked = ("/requests", "/usage", "/login", "/health")
        pages = [await browser.open(path) for path in paths]
        for path in asked:
            words = {n: HOSTILE for n in ("id", "user", "since", "account", "back")}
            pages.append(await browser.open(path, params=words))
        pages.append(await browser.send("/users", name=HOSTILE, max_queued=HOSTILE))
        pages.append(await browser.open("/" + HOSTILE.replace("/", "")))

    shown = 0
    for seen in pages:
        assert "<img" not in seen.html and "<b>" not in seen.html
        assert "</title>" in seen.html or "json" in seen.headers["Content-Type"]
        shown += seen.html.count("&lt;img")
    assert shown >= 5


def test_no_view_says_more_than_it_shows(tmp_path: Path) -> None:
    """A page that is kept open is asked for again; its size is bounded by its rows."""
    from gateway.endpoints.admin.page import now, requests, usage

    assert now.MAX_OPEN <= 200 and now.MAX_FAILURES <= 10
    assert requests.PAGE_ROWS <= 50 and usage.MAX_ROWS <= 500


@pytest.mark.parametrize("path", ["/nonsense", "/users/nonsense", "/requests/x"])
async def test_what_is_not_there_is_said_in_html(
    serve: Serve, upstream: ScriptedUpstream, path: str
) -> None:
    gateway = await start(serve, upstream)
    async with plain_browser(gateway) as browser:
        seen = await browser.open(path)

    assert 404 == seen.status
    assert "text/html" in seen.headers["Content-Type"]
