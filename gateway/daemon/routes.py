"""
The paths of the gateway, and the handler of each.

Every path is served with and without ``/v1``.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from gateway.daemon.wiring import Components
from gateway.endpoints.paths import protocol_of
from gateway.endpoints.recording import Handler
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import ClientError
from gateway.protocols import PROTOCOLS

PREFIXES = ("/v1", "")
MODEL_PATHS = tuple(
    (wire.name, path) for wire in PROTOCOLS.values() for path in wire.model_paths
)

WEBSOCKET_PATH = "/responses"
WEBSOCKET_PROTOCOL = protocol_of(WEBSOCKET_PATH)


def add_routes(router: web.UrlDispatcher, components: Components) -> None:
    """Add every path to *router*."""
    endpoints = components.endpoints
    for prefix in PREFIXES:
        for protocol, path in MODEL_PATHS:
            handler = endpoints.model_requests.endpoint(protocol, path)
            router.add_post(prefix + path, handler, expect_handler=_ask_later)
        upgrade = endpoints.websockets.endpoint(WEBSOCKET_PROTOCOL)
        router.add_get(prefix + WEBSOCKET_PATH, upgrade, expect_handler=_ask_later)
    _add_recorded(router, components)
    status, unrecorded = endpoints.status, endpoints.plain_answers.unrecorded
    router.add_get("/healthz", unrecorded(status.health))
    router.add_get("/readyz", unrecorded(status.ready))
    router.add_get("/metrics", unrecorded(status.metrics))
    router.add_head("/", unrecorded(status.hello))
    router.add_head("/api/hello", unrecorded(status.hello))
    # After all others. A middleware would cost every request what only these need.
    router.add_route(
        hdrs.METH_ANY, "/{path:.*}", _unrouted(components), expect_handler=_ask_later
    )


def _add_recorded(router: web.UrlDispatcher, components: Components) -> None:
    """The endpoints beside the model requests that have a record, too."""
    recorded, endpoints = components.recorder.recorded, components.endpoints
    lists, stored = endpoints.model_lists, endpoints.stored_responses.serve
    count = endpoints.token_counts.count
    for prefix in PREFIXES:
        for method, path, endpoint in (
            ("POST", "/messages/count_tokens", count),
            ("GET", "/models", lists.models),
            ("GET", "/models/{id}", lists.model),
            ("GET", "/usage", endpoints.own_usage.usage),
            ("GET", "/responses/{id}", stored),
            ("DELETE", "/responses/{id}", stored),
            ("POST", "/responses/{id}/cancel", stored),
            ("GET", "/responses/{id}/input_items", stored),
        ):
            router.add_route(
                method,
                prefix + path,
                recorded(protocol_of(path), endpoint, kept=False),
                expect_handler=_ask_later,
            )


async def _ask_later(request: web.Request) -> None:
    """A client that waits to be asked for its body is asked when that is read."""


def _unrouted(components: Components) -> Handler:
    """
    What no other route answers: a page that asks what it may send, to whatever path;
    and an unknown path or method, in the protocol's form, too.
    """
    maybe_preflight = components.endpoints.plain_answers.maybe_preflight

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        if request.method == hdrs.METH_OPTIONS:
            if preflight := maybe_preflight(request):
                return preflight
        allowed: set[str] = set()
        for resource in request.app.router.resources():
            allowed |= (await resource.resolve(request))[1] - {hdrs.METH_ANY}
        code = "method_not_allowed" if allowed else "not_found"

        async def refuse(scope: RequestScope) -> web.StreamResponse:
            raise ClientError(code)

        protocol = protocol_of(request.path)
        refused = components.recorder.recorded(protocol, refuse, kept=False)
        response = await refused(request)
        if allowed:
            response.headers[hdrs.ALLOW] = ", ".join(sorted(allowed))
        return response

    return answer
