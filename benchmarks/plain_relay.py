"""
The least that aiohttp can relay: no key, no slot, no ledger, no reading of events.

It is the floor for a gateway in Python with aiohttp on both sides.
"""

from __future__ import annotations

import sys

import aiohttp
import uvloop
from aiohttp import web

SESSION = web.AppKey("session", aiohttp.ClientSession)
DROPPED = {"host", "connection", "content-length", "transfer-encoding", "authorization"}


def main() -> None:
    """``plain_relay.py PORT UPSTREAM_PORT``"""
    uvloop.install()
    web.run_app(
        make_app(f"http://127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=lambda *_: None,
    )


def make_app(upstream: str) -> web.Application:
    """The relay to *upstream*, an URL without path."""
    app = web.Application(handler_args={"handler_cancellation": True})

    async def session(app: web.Application):  # type: ignore[no-untyped-def]
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        ) as app[SESSION]:
            yield

    async def relay(request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in DROPPED}
        async with request.app[SESSION].post(
            upstream + request.path, data=await request.read(), headers=headers
        ) as reply:
            kind = {"Content-Type": reply.headers.get("Content-Type", "")}
            if "event-stream" not in kind["Content-Type"]:
                return web.Response(body=await reply.read(), headers=kind)
            answer = web.StreamResponse(headers=kind)
            await answer.prepare(request)
            try:
                while piece := await reply.content.readany():
                    await answer.write(piece)
                await answer.write_eof()
            except ConnectionError:
                reply.close()
            return answer

    app.cleanup_ctx.append(session)
    app.router.add_post("/{path:.*}", relay)
    return app


if __name__ == "__main__":
    main()
