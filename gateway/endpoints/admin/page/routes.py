"""
The paths of the page, and who may see them; the rest is loaded with the first of them.

Rule 1: without a session a view leads to the log-in. The link that a start prints
        logs in at once, and the token leaves the address bar with the redirect.
Rule 2: a form needs a request from the page itself, on the unix socket, too: a socket
        that is forwarded to a laptop's port is open to every page in its browser.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import hdrs, web

from gateway.endpoints.admin.access import AdminAccess
from gateway.endpoints.admin.application import AdminApplication
from gateway.endpoints.admin.errors import AdminError
from gateway.endpoints.admin.operations import PREFIX
from gateway.endpoints.admin.page.forms import form_of, local_path
from gateway.endpoints.admin.page.session import SESSION_S, PageSession, same_origin

if TYPE_CHECKING:
    from gateway.endpoints.admin.page.pages import Pages

PAGES = "gateway.endpoints.admin.page.pages"
STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
ROUTES = (
    ("GET", "/", "now"),
    ("GET", "/requests", "requests"),
    ("GET", "/requests/{id}", "request"),
    ("POST", "/requests/{id}/end", "end"),
    ("GET", "/usage", "usage"),
    ("GET", "/usage.csv", "usage_csv"),
    ("GET", "/health", "health"),
    ("GET", "/accounts", "accounts"),
    ("POST", "/accounts/{name}/test", "test"),
    ("POST", "/accounts/{name}/{verb:pause|resume|reset}", "change_account"),
    ("GET", "/gateway", "gateway"),
    ("POST", "/gateway/reload", "reload"),
    ("POST", "/gateway/restart", "restart"),
    ("GET", "/users", "users"),
    ("POST", "/users", "add_user"),
    ("GET", "/users/{name}", "user"),
    ("POST", "/users/{name}", "change_user"),
    ("POST", "/users/{name}/remove", "remove_user"),
    ("POST", "/users/{name}/keys", "add_key"),
    ("POST", "/users/{name}/keys/{prefix}/revoke", "revoke_key"),
)
PageHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAFE = ("GET", "HEAD", "OPTIONS")


class PageRoutes:
    """
    Args:
        token: gives the admin token that is in force.
        listen: gives the addresses of the public listeners, for an example to paste.
    """

    def __init__(
        self,
        application: AdminApplication,
        access: AdminAccess,
        token: Callable[[], str],
        listen: Callable[[], Sequence[str]],
    ) -> None:
        self._application = application
        self._access = access
        self._token = token
        self._listen = listen
        self._pages: Pages | None = None

    def install(self) -> None:
        """Add the page to the application."""
        self._access.sessions.append(self.maybe_who)
        self._application.on_refused = self.refused
        self._application.add_pages.append(self._add)
        self._application.open_paths |= {"/login", "/logout"}
        self._application.open_paths |= {f"/static/{name}" for name in STATIC}

    def _add(self, router: web.UrlDispatcher) -> None:
        for method, path, name in ROUTES:
            router.add_route(method, path, self._handler(name))
        router.add_get("/login", self._log_in_page)
        router.add_post("/login", self._log_in)
        router.add_post("/logout", self._log_out)
        for name, media_type in STATIC.items():
            router.add_get(f"/static/{name}", _static(name, media_type))

    # --- who asks -------------------------------------------------------------------

    @property
    def _session(self) -> PageSession | None:
        token = self._token()
        return session_of(token) if token else None

    def maybe_who(self, request: web.Request) -> str | None:
        """
        ``page`` for a browser with a session.

        Raises:
            AdminError: "wrong_origin" for a change that the page did not ask for.
        """
        session = self._session
        if session is None or not session.admits(request.cookies, time.time()):
            return None
        if request.method not in SAFE and not same_origin(request.headers):
            raise _foreign()
        return "page"

    def refused(
        self, request: web.Request, error: AdminError
    ) -> web.StreamResponse | None:
        """A page for what a browser is refused; None for the API's own answer."""
        if request.path.startswith(PREFIX) or request.path == "/openapi.json":
            return None
        pages = self._loaded()
        if error.status == 401 and request.method in SAFE:
            return pages.to_log_in(log_in_path(request.path_qs))
        return pages.failed(request, error)

    # --- the views ------------------------------------------------------------------

    def _loaded(self) -> Pages:
        if self._pages is None:
            module = import_module(PAGES)
            self._pages = module.Pages(self._application.operations, self._listen)
        return self._pages

    async def _load(self) -> Pages:
        if self._pages is None:  # the templates take a while: not on the event loop
            await asyncio.to_thread(import_module, PAGES)
        return self._loaded()

    def _handler(self, name: str) -> PageHandler:
        async def serve(request: web.Request) -> web.StreamResponse:
            if request.method not in SAFE and not same_origin(request.headers):
                raise _foreign()
            pages = await self._load()
            return await pages.serve(name, request)

        return serve

    # --- log-in ---------------------------------------------------------------------

    async def _log_in_page(self, request: web.Request) -> web.StreamResponse:
        """``GET /login``: the form, or, with ``?token=``, the page itself."""
        pages = await self._load()
        back = local_path(request.query.get("back", ""))
        if token := request.query.get("token", ""):
            return self._admitted(request, pages, token, back)
        return pages.log_in(request, back)

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        pages = await self._load()
        if not same_origin(request.headers) and hdrs.ORIGIN in request.headers:
            raise _foreign()
        form = await form_of(request)
        back = local_path(form.get("back", ""))
        return self._admitted(request, pages, form.get("token", "").strip(), back)

    def _admitted(
        self, request: web.Request, pages: Pages, token: str, back: str
    ) -> web.StreamResponse:
        try:
            self._access.check_token(request, token)
        except AdminError as error:
            return pages.log_in(request, back, error)
        session = session_of(token)
        response = pages.admitted(back)
        response.set_cookie(
            session.cookie_name,
            session.issue(time.time()),
            max_age=SESSION_S,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        if not same_origin(request.headers):
            raise _foreign()
        pages = await self._load()
        response = pages.to_log_in("/login")
        if session := self._session:
            response.del_cookie(session.cookie_name, path="/", samesite="Strict")
        return response


@lru_cache(maxsize=4)
def session_of(token: str) -> PageSession:
    """The session maker of *token*."""
    return PageSession(token)


def log_in_path(back: str) -> str:
    """The path of the log-in that leads to *back* afterwards."""
    back = local_path(back)
    return "/login" if back == "/" else f"/login?back={quote(back, safe='')}"


def _foreign() -> AdminError:
    return AdminError(
        403, "wrong_origin", "Only the page itself may ask for this; open it anew"
    )


def _static(name: str, media_type: str) -> PageHandler:
    path = Path(__file__).parent / "static" / name
    data = b""
    tag = ""

    async def serve(request: web.Request) -> web.Response:
        nonlocal data, tag
        if not data:
            data = await asyncio.to_thread(path.read_bytes)
            tag = hashlib.blake2b(data, digest_size=9).hexdigest()
        headers = {
            hdrs.CACHE_CONTROL: "no-cache",
            hdrs.ETAG: f'"{tag}"',
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if request.headers.get(hdrs.IF_NONE_MATCH) == f'"{tag}"':
            return web.Response(status=304, headers=headers)
        return web.Response(body=data, content_type=media_type, headers=headers)

    return serve
