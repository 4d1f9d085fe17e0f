"""
Templates to responses: every page has the same frame and the same security headers.

Everything that a template prints is escaped; there is no ``safe`` in them.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web

from gateway.endpoints.admin.page.looks import look
from gateway.endpoints.admin.page.text import FILTERS

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # with "no-referrer" a browser would send "Origin: null" with the forms
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
VIEWS = (
    ("/", "Now"),
    ("/requests", "Requests"),
    ("/usage", "Usage"),
    ("/health", "Health"),
    ("/users", "Users"),
    ("/accounts", "Accounts"),
    ("/gateway", "Gateway"),
)
FLASH = "gateway_flash"
FLASH_S = 30
MAX_FLASH_CHARS = 1024


@dataclass(frozen=True, slots=True)
class View:
    """
    What is shown.

    Attributes:
        here: the path of the view that it belongs to.
        on: the events after which the browser asks again.
        only: the request id that alone matters among them.
        every: seconds after which it asks again in any case; 0 = never.
    """

    template: str
    title: str
    here: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    on: str = ""
    only: str = ""
    every: int = 0


class Renderer:
    """Makes responses of views."""

    def __init__(self) -> None:
        # An application of its own: the admin side starts without templates.
        self._env = aiohttp_jinja2.setup(
            web.Application(),
            loader=jinja2.PackageLoader("gateway.endpoints.admin.page"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._env.filters.update(FILTERS, look=look)

    def response(
        self, request: web.Request, view: View, session: bool | None = None
    ) -> web.Response:
        """
        Args:
            session: whether the browser has a session that it can end; None for a
                view of one who is not logged in.
        """
        flash = read_flash(request.cookies.get(FLASH, ""))
        text = self._env.get_template(view.template).render(
            view.values,
            title=view.title,
            here=view.here,
            views=VIEWS,
            on=view.on,
            only=view.only,
            every=view.every,
            now=round(time.time(), 3),
            flash=flash,
            user_is_in=session is not None,
            has_session=bool(session),
        )
        response = web.Response(
            text=text, status=view.status, content_type="text/html", headers=HEADERS
        )
        if flash:
            response.del_cookie(FLASH, path="/")
        return response


def redirect(path: str) -> web.Response:
    """303 to *path* of this page."""
    return web.Response(status=303, headers={**HEADERS, "Location": path})


def flashed(path: str, text: str, *, bad: bool = False) -> web.Response:
    """303 to *path*, which will show *text* once."""
    response = redirect(path)
    words = text[: MAX_FLASH_CHARS // 4]
    data = json.dumps({"text": words, "bad": bad}).encode()
    value = base64.urlsafe_b64encode(data).decode()
    response.set_cookie(
        FLASH, value, max_age=FLASH_S, path="/", httponly=True, samesite="Strict"
    )
    return response


def read_flash(value: str) -> dict[str, Any] | None:
    """What ``flashed`` wrote; None for anything else."""
    if not value or len(value) > 4 * MAX_FLASH_CHARS:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(value.encode()))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        return None
    return {"text": found["text"], "bad": found.get("bad") is True}
