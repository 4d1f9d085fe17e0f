"""
The aiohttp application of the admin listeners.

The public application knows nothing of it, and no path of it is on a public listener.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from aiohttp import web

from gateway.endpoints.admin.access import AdminAccess
from gateway.endpoints.admin.errors import AdminError
from gateway.endpoints.admin.openapi import description
from gateway.endpoints.admin.operations import (
    PREFIX,
    WHO,
    Operation,
    json_response,
)
from gateway.errors import CODES, GatewayError
from gateway.telemetry import log

MAX_BODY_BYTES = 1024 * 1024
DESCRIPTION = "/openapi.json"

_RouteHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OperationSource:
    """A part of the API: it names its operations."""

    def operations(self) -> Iterable[Operation]:
        """The rows of its paths."""
        raise NotImplementedError


class AdminApplication:
    """
    Makes the application.

    Args:
        sources: the parts of the API.

    Attributes:
        open_paths: paths that need no log-in; they check the source all the same.
        add_pages: called with the router, for what is no API.
        on_refused: makes the answer to a request that is refused or has failed; None
            for the API's own.
    """

    def __init__(self, access: AdminAccess, sources: Sequence[OperationSource]) -> None:
        self._access = access
        self._sources = sources
        self.open_paths: set[str] = set()
        self.add_pages: list[Callable[[web.UrlDispatcher], None]] = []
        self.on_refused: (
            Callable[[web.Request, AdminError], web.StreamResponse | None] | None
        ) = None

    @property
    def operations(self) -> list[Operation]:
        """Every operation."""
        return [one for source in self._sources for one in source.operations()]

    def make(self) -> web.Application:
        """The application, ready to be served."""
        app = web.Application(
            client_max_size=MAX_BODY_BYTES, middlewares=[self._answered]
        )
        for one in self.operations:
            app.router.add_route(one.method, PREFIX + one.path, one.serve)
        document = description(self.operations)

        async def described(document: object, request: web.Request) -> web.Response:
            return json_response(document)

        app.router.add_get(DESCRIPTION, partial(described, document))
        for add in self.add_pages:
            add(app.router)
        return app

    @web.middleware
    async def _answered(
        self, request: web.Request, handler: _RouteHandler
    ) -> web.StreamResponse:
        """Check who asks; make answers of failures."""
        try:
            self._access.check_source(request)
            if (request.content_length or 0) > MAX_BODY_BYTES:
                raise _too_large()
            if request.path not in self.open_paths:
                request[WHO] = self._access.who(request)
            return await handler(request)
        except web.HTTPException as other:
            if other.status < 400:
                raise
            return self._refuse(request, _routing_error(other))
        except Exception as error:
            return self._refuse(request, _refusal_of(error))

    def _refuse(self, request: web.Request, error: AdminError) -> web.StreamResponse:
        """A page for a browser, the API's own answer for everything else."""
        refused = self.on_refused and self.on_refused(request, error)
        return refused or _answer(error)


def _refusal_of(error: Exception) -> AdminError:
    """What is said of *error*."""
    if isinstance(error, AdminError):
        return error
    if isinstance(error, GatewayError):  # of a part that the API asks
        return AdminError(error.status, error.code, CODES[error.code].sentence)
    log.get().error("request.crashed", exc_info=error)
    return AdminError(500, "internal_error", "The gateway failed; see its log")


def _too_large() -> AdminError:
    return AdminError(
        413, "body_too_large", f"The body has more than {MAX_BODY_BYTES} bytes"
    )


def _routing_error(other: web.HTTPException) -> AdminError:
    """No such path, not by that method, or too much."""
    if isinstance(other, web.HTTPRequestEntityTooLarge):
        return _too_large()  # it did not say its length
    if isinstance(other, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(other.allowed_methods))
        return AdminError(
            405,
            "method_not_allowed",
            f"This path takes {allowed}",
            headers={"Allow": allowed},
        )
    if other.status == 404:
        return AdminError(404, "not_found", "There is nothing at this path")
    return AdminError(other.status, "invalid_request", other.reason)


def _answer(error: AdminError) -> web.Response:
    response = json_response(error.document, error.status)
    response.headers.update(error.headers)
    return response
