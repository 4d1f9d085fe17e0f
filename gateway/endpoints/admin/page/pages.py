"""
The views and actions of the page.

Each asks the operations of the admin API and hands their answers to a template.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import web

from gateway.endpoints.admin.errors import AdminError
from gateway.endpoints.admin.operations import WHO, Operation
from gateway.endpoints.admin.page.actions import Actions
from gateway.endpoints.admin.page.api import InProcessApi
from gateway.endpoints.admin.page.renderer import (
    Renderer,
    View,
    redirect,
)
from gateway.endpoints.admin.page.views import Views

TITLES = {403: "Not allowed", 404: "Nothing is here", 429: "Too many wrong tokens"}

Handler = Callable[[web.Request], Awaitable[View | web.StreamResponse]]


class Pages:
    """
    Args:
        operations: of the admin API.
        listen: gives the addresses of the public listeners.
    """

    def __init__(
        self, operations: Iterable[Operation], listen: Callable[[], Sequence[str]]
    ) -> None:
        api = InProcessApi(operations)
        views = Views(api, listen)
        self._renderer = Renderer()
        self._parts = (views, Actions(api, views))

    async def serve(self, name: str, request: web.Request) -> web.StreamResponse:
        """The answer to a request for the route *name*."""
        handler: Handler = next(
            getattr(part, name) for part in self._parts if hasattr(part, name)
        )
        found = await handler(request)
        if not isinstance(found, View):
            return found
        return self._renderer.response(request, found, request[WHO] == "page")

    # --- outside of the views -------------------------------------------------------

    def log_in(
        self, request: web.Request, back: str, error: AdminError | None = None
    ) -> web.Response:
        """The log-in form, with what was wrong with the last try."""
        values = {"back": back, "error": str(error) if error else ""}
        status = error.status if error else 200
        view = View("login.html", "Log in", values=values, status=status)
        response = self._renderer.response(request, view)
        if error:
            response.headers.update(error.headers)
        return response

    def to_log_in(self, path: str) -> web.Response:
        """303 to the log-in form."""
        return redirect(path)

    def admitted(self, back: str) -> web.Response:
        """303 to where the browser wanted to go."""
        return redirect(back)

    def failed(self, request: web.Request, error: AdminError) -> web.Response:
        """*error* as a page."""
        title = TITLES.get(error.status, "This did not work")
        values = {"message": str(error)}
        view = View("error.html", title, values=values, status=error.status)
        who = request.get(WHO)
        response = self._renderer.response(request, view, who and who == "page")
        response.headers.update(error.headers)
        return response
