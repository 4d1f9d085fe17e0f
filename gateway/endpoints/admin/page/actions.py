"""
The actions: what a form of the page changes, by the admin API.

What went well is said by the next view; what was refused is said beside the form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aiohttp import web

from gateway.endpoints.admin.errors import AdminError
from gateway.endpoints.admin.page.accounts import VERBS, tested_values
from gateway.endpoints.admin.page.api import InProcessApi
from gateway.endpoints.admin.page.forms import (
    FormError,
    expires_at,
    form_of,
    local_path,
    user_body,
)
from gateway.endpoints.admin.page.gateway import rejected_values, reloaded_values
from gateway.endpoints.admin.page.renderer import View, flashed
from gateway.endpoints.admin.page.views import Views

REFUSED = (400, 404, 409, 422, 503)  # said on the page that the form is on


class Actions:
    """Each method takes the request of a form."""

    def __init__(self, api: InProcessApi, views: Views) -> None:
        self._api = api
        self._views = views

    async def end(self, request: web.Request) -> web.StreamResponse:
        """``POST /requests/{id}/end``."""
        ident = request.match_info["id"]
        back = local_path((await form_of(request)).get("back", ""))
        try:
            await self._api.call(request, "DELETE /requests/{id}", id=ident)
        except AdminError as error:
            return self._refused(error, back)
        return flashed(back, f"The request {ident} is being ended.")

    async def change_account(self, request: web.Request) -> web.StreamResponse:
        """``POST /accounts/{name}/pause``, ``resume`` and ``reset``."""
        name, verb = request.match_info["name"], request.match_info["verb"]
        back = local_path((await form_of(request)).get("back", ""), "/accounts")
        try:
            await self._api.call(request, f"POST /accounts/{{name}}/{verb}", name=name)
        except AdminError as error:
            return self._refused(error, back)
        return flashed(back, VERBS[verb].format(name=name))

    async def test(self, request: web.Request) -> web.StreamResponse | View:
        """``POST /accounts/{name}/test``: the steps are shown above the accounts."""
        name, row = request.match_info["name"], "POST /accounts/{name}/test"
        model = (await form_of(request)).get("model", "").strip()
        body = {"model": model} if model else {}
        try:
            answer = await self._api.call(request, row, body=body, name=name)
        except AdminError as error:
            return self._refused(error, "/accounts")
        return await self._views.accounts(request, tested_values(name, answer))

    async def reload(self, request: web.Request) -> web.StreamResponse | View:
        """``POST /gateway/reload``: what has changed, or every mistake."""
        await form_of(request)
        before = await self._api.call(request, "GET /config")
        try:
            answer = await self._api.call(request, "POST /reload")
        except AdminError as error:
            if error.facts.mistakes is None:
                return self._refused(error, "/gateway")
            mistakes = [dataclasses.asdict(one) for one in error.facts.mistakes]
            return await self._views.gateway(
                request, rejected_values(str(error), mistakes)
            )
        after = await self._api.call(request, "GET /config")
        return await self._views.gateway(
            request, reloaded_values(before, after, answer)
        )

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """``POST /gateway/restart``: answered when the new workers serve."""
        await form_of(request)
        try:
            await self._api.call(request, "POST /restart")
        except AdminError as error:
            return self._refused(error, "/gateway")
        words = "New workers serve. What still runs finishes in the old ones."
        return flashed("/gateway", words)

    async def add_user(self, request: web.Request) -> web.StreamResponse | View:
        """``POST /users``: with a first key, if that is wanted."""
        form: dict[str, Any] = await form_of(request)
        name = form.get("name", "").strip()
        try:
            body = user_body(form, changed=False)
            await self._api.call(request, "POST /users", body=body)
            if not form.get("with_key"):
                return flashed(user_path(name), f"{name} is there. It has no key yet.")
            key = await self._new_key(request, name, {"label": "first"})
        except (AdminError, FormError) as error:
            form |= wrong(error)
            return await self._views.users(request, form, status_of(error))
        return await self._views.user(request, name=name, new_key=key)

    async def change_user(self, request: web.Request) -> web.StreamResponse | View:
        """``POST /users/{name}``."""
        name, form = request.match_info["name"], await form_of(request)
        try:
            body = user_body(form, changed=True)
            row = "PATCH /users/{name}"
            await self._api.call(request, row, body=body, name=name)
        except (AdminError, FormError) as error:
            shown, status = {**form, **wrong(error)}, status_of(error)
            return await self._views.user(request, status, form=shown)
        return flashed(user_path(name), f"The limits of {name} are changed.")

    async def remove_user(self, request: web.Request) -> web.StreamResponse:
        """``POST /users/{name}/remove``."""
        name = request.match_info["name"]
        await form_of(request)
        try:
            await self._api.call(request, "DELETE /users/{name}", name=name)
        except AdminError as error:
            return self._refused(error, user_path(name))
        return flashed("/users", f"{name} is removed.")

    async def add_key(self, request: web.Request) -> View:
        """``POST /users/{name}/keys``: the answer shows the key, this once."""
        name, form = request.match_info["name"], await form_of(request)
        until = expires_at(form.get("expires", ""), datetime.now(UTC))
        body = {"label": form.get("label", "").strip(), "expires_at": until}
        try:
            key = await self._new_key(request, name, body)
        except AdminError as error:
            shown: dict[str, Any] = {**form, "error": str(error)}
            return await self._views.user(request, error.status, key_form=shown)
        return await self._views.user(request, new_key=key)

    async def revoke_key(self, request: web.Request) -> web.StreamResponse:
        """``POST /users/{name}/keys/{prefix}/revoke``."""
        name, prefix = request.match_info["name"], request.match_info["prefix"]
        row = "DELETE /users/{name}/keys/{prefix}"
        await form_of(request)
        try:
            await self._api.call(request, row, name=name, prefix=prefix)
        except AdminError as error:
            return self._refused(error, user_path(name))
        return flashed(user_path(name), f"The key {prefix} is revoked.")

    async def _new_key(
        self, request: web.Request, name: str, body: Mapping[str, Any]
    ) -> str:
        given = {key: value for key, value in body.items() if value is not None}
        row = "POST /users/{name}/keys"
        answer = await self._api.call(request, row, body=given, name=name)
        return str(answer["key"])

    def _refused(self, error: AdminError, back: str) -> web.StreamResponse:
        if error.status not in REFUSED:
            raise error
        return flashed(back, f"{error}.", bad=True)


def user_path(name: str) -> str:
    """The path of a user's view."""
    return f"/users/{quote(name, safe='')}"


def wrong(error: AdminError | FormError) -> dict[str, str]:
    """What was wrong with a form, and with which of its fields."""
    field = error.facts.field if isinstance(error, AdminError) else error.field
    return {"error": str(error), "error_field": field or ""}


def status_of(error: AdminError | FormError) -> int:
    """The HTTP status of the page that shows the form again."""
    return error.status if isinstance(error, AdminError) else 400
