"""Checks of the web server in front, as a stream through it has shown it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.commands.doctor.check_accounts import CERTIFICATE_S, DAY_S, is_private
from gateway.commands.doctor.facts import Check, Facts, Finding, ThroughFacts

BURST = 4  # events that arrive together, on average: a buffer is in between
GAP_S = 0.5  # an event of the measured stream comes each 0.05 s


def check_through(facts: Facts) -> Iterator[Finding]:
    seen = facts.through
    if seen is None:
        return
    if seen.problem or seen.status != 200:
        yield _no_stream(seen)
    else:
        yield from _stream(seen)
    if not seen.problem:
        yield from _rules(seen)
        yield from _safety(seen)


def _no_stream(seen: ThroughFacts) -> Finding:
    part, server = f"through {seen.url}", seen.server or "the web server"
    what = "Clients behind this address get no stream"
    if seen.code == "model_not_found":
        return Finding(
            part,
            "It is not known whether streams pass: none could be measured",
            "the config has no trial account, so that a stream would cost",
            'an [[account]] with base_url = "embedded:" and models = ["trial-*"]',
        )
    if seen.status == 401 and seen.direct_status == 200:
        return Finding(
            part,
            what,
            f"the gateway takes the key itself, and behind {server} it is not there",
            "let Authorization and x-api-key pass unchanged",
        )
    if seen.status == 401 and seen.direct_status == 401:
        return Finding(
            part,
            "Nothing was measured",
            "the gateway does not know the key in GATEWAY_API_KEY",
            "a key of a user (gateway key new --user NAME)",
        )
    return Finding(
        part,
        what,
        seen.problem or f"{server} answered {seen.status}",
        "the address, GATEWAY_API_KEY, or the proxy rules of the web server",
    )


def _stream(seen: ThroughFacts) -> Iterator[Finding]:
    part, server = f"through {seen.url}", seen.server or "the web server"
    if seen.encoding:
        yield Finding(
            part,
            "Words arrive late: what compresses waits for more",
            f"{server} compresses the stream ({seen.encoding})",
            "gzip off; (nginx), or no encode around it (Caddy)",
        )
    elif seen.events > seen.arrivals * BURST and seen.gap_s > GAP_S:
        yield Finding(
            part,
            "Words arrive in bursts, and keepalives too late: clients give up",
            f"{seen.events} events of a stream of {seen.seconds:.1f} s came in "
            f"{seen.arrivals} pieces, up to {seen.gap_s:.1f} s apart: {server} buffers",
            "proxy_buffering off; (nginx, and no proxy_ignore_headers "
            "X-Accel-Buffering), or flush_interval -1 (Caddy)",
        )
    if not seen.whole:
        yield Finding(
            part,
            "Long answers are cut: Codex says that the stream was closed early",
            f"the stream ended after {seen.seconds:.1f} s without its terminal event",
            "proxy_read_timeout 900s; and proxy_send_timeout 900s; (nginx)",
        )


def _rules(seen: ThroughFacts) -> Iterator[Finding]:
    part, server = f"through {seen.url}", seen.server or "the web server"
    if seen.body_limit is not None:
        yield Finding(
            part,
            "Long conversations end with 413, and the client cannot mend that",
            f"{server} refuses a body of {seen.body_limit >> 20} MiB, which the "
            "gateway accepts",
            f"client_max_body_size {(seen.body_limit >> 20) + 1}m; (nginx)",
        )
    if seen.upgrades is False:
        yield Finding(
            part,
            "Clients that want a websocket lose time before they go on without",
            f"{server} does not pass the upgrade of GET /v1/responses on",
            "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
            "proxy_set_header Connection $connection_upgrade; (nginx)",
        )


def _safety(seen: ThroughFacts) -> Iterator[Finding]:
    part, parts = f"through {seen.url}", urlsplit(seen.url)
    for path in seen.open_paths:
        yield Finding(
            part,
            "Everyone who reaches this address can read who uses the gateway",
            f"{path} is open",
            "location ~ ^/(metrics|readyz) { deny all; } (nginx), or "
            "server.metrics_token in the config",
        )
    if parts.scheme == "http" and not is_private(parts.hostname or ""):
        yield Finding(
            part,
            "Keys and what people write cross the network in clear text",
            "the address begins with http://",
            "listen 443 ssl; (nginx), and https:// at the clients",
        )
    if seen.certificate_s is not None and seen.certificate_s < CERTIFICATE_S:
        yield Finding(
            part,
            "From then on no client connects",
            f"its certificate ends in {seen.certificate_s / DAY_S:.0f} days",
            "renew it, and let the web server read it again",
        )


CHECKS: tuple[Check, ...] = (check_through,)
