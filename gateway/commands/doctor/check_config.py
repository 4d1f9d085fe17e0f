"""Checks of the config alone: what it says, and what its values do to each other."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.commands.doctor.facts import Check, Facts, Finding
from gateway.config.parse import is_loopback
from gateway.config.schema import Config, Limits

WEB_SERVER_READ_S = 60.0  # the default of nginx and of most load balancers
CLAUDE_CODE_S = 20.0  # of silence: then it shows that the stream stands still
CLIENT_IDLE_S = 300.0  # Codex and Node: the longest silence that they bear
SHORT_BODY_BYTES = 8 << 20  # a long conversation with pictures is larger
SHORT_SILENCE_S = 60.0  # a model that thinks is silent for longer
SHORT_DRAIN_S = 30.0


def check_mistakes(facts: Facts) -> Iterator[Finding]:
    for mistake in facts.mistakes:
        yield Finding(
            "config",
            "The daemon will not start, and a reload is refused",
            mistake,
            f"{mistake.partition(':')[0]} in the config (see: gateway check)",
        )
    for warning in facts.warnings:
        yield Finding(
            "config",
            "Everyone who can read the config can use the secret in it",
            warning,
            f"{warning.partition(':')[0]} in the config",
        )


def check_exposure(facts: Facts) -> Iterator[Finding]:
    admin = facts.config.admin if facts.config else None
    for address in admin.tcp if admin else ():
        if not is_loopback(address):
            yield Finding(
                "admin",
                "The admin token crosses the network in clear text",
                f"admin.listen has {address}, which other machines reach",
                'listen = ["127.0.0.1:8081", "unix:admin.sock"] in [admin], and a web '
                "server with TLS, or ssh, in front of it",
            )
    server = facts.config.server if facts.config else None
    if server and not server.metrics_token:
        public = [one for one in server.listen if not is_loopback(one)]
        if public:
            yield Finding(
                "metrics",
                "Everyone who reaches the gateway can read who uses it, and how much",
                f"server.listen has {public[0]}, and server.metrics_token is not set",
                'metrics_token = "env:METRICS_TOKEN" in [server]',
            )


def check_timeouts(facts: Facts) -> Iterator[Finding]:
    """The ladder: client, web server, gateway, upstream."""
    if facts.config is None:
        return
    for where, limits in _all_limits(facts.config):
        yield from _pings(where, limits.ping_interval_s)
        if limits.queue_timeout_s >= CLIENT_IDLE_S:
            yield Finding(
                "time-outs",
                "Clients without streaming give up before their turn comes, and ask "
                "again at the end of the queue",
                f"queue_timeout_s of {where} is {limits.queue_timeout_s:.0f} s; Node "
                f"gives up after about {CLIENT_IDLE_S:.0f} s without an answer",
                "queue_timeout_s = 30.0",
            )
    yield from _upstream(facts.config)


def _all_limits(config: Config) -> Iterator[tuple[str, Limits]]:
    """The limits that count, each once: the default ones, and the users' own."""
    yield "limits", config.limits
    for user in config.user:
        own = user.limits(config.limits)
        if own != config.limits:
            yield f"user {user.name}", own


def _pings(where: str, ping_s: float) -> Iterator[Finding]:
    if ping_s < CLAUDE_CODE_S:
        return
    harm = f"Claude Code says so after {CLAUDE_CODE_S:.0f} s of silence"
    what = "Requests that wait or think look dead to their users"
    if ping_s >= WEB_SERVER_READ_S:
        what = "A web server cuts requests that wait or think"
        harm = (
            f"nginx gives up after {WEB_SERVER_READ_S:.0f} s of silence unless it is "
            f"configured otherwise, Codex after {CLIENT_IDLE_S:.0f} s"
        )
    yield Finding(
        "time-outs",
        what,
        f"ping_interval_s of {where} is {ping_s:.0f} s; {harm}",
        "ping_interval_s = 10.0",
    )


def _upstream(config: Config) -> Iterator[Finding]:
    upstream = config.upstream
    if upstream.connect_timeout_s >= upstream.first_event_timeout_s:
        yield Finding(
            "time-outs",
            "An address that does not answer uses up the whole time for an answer, "
            "and no other account is asked",
            f"upstream.connect_timeout_s is {upstream.connect_timeout_s:.0f} s, "
            f"first_event_timeout_s {upstream.first_event_timeout_s:.0f} s",
            "connect_timeout_s = 10.0 in [upstream]",
        )
    elif upstream.first_event_timeout_s < SHORT_SILENCE_S:
        yield Finding(
            "time-outs",
            "Long prompts, and answers without streaming, fail at every account in "
            "turn, and each may cost",
            f"upstream.first_event_timeout_s is {upstream.first_event_timeout_s:.0f} "
            "s, and a whole answer without streaming takes minutes",
            "first_event_timeout_s = 600.0 in [upstream]",
        )
    if upstream.idle_timeout_s < SHORT_SILENCE_S:
        yield Finding(
            "time-outs",
            "Models that think before they go on are cut in the middle of an answer",
            f"upstream.idle_timeout_s is {upstream.idle_timeout_s:.0f} s",
            "idle_timeout_s = 180.0 in [upstream]",
        )
    drain_s = config.server.drain_timeout_s
    if drain_s < SHORT_DRAIN_S:
        yield Finding(
            "time-outs",
            "A stop ends the answers that run with a failure",
            f"server.drain_timeout_s is {drain_s:.0f} s, and an agent's answer takes "
            "minutes",
            "drain_timeout_s = 600.0 in [server], and gateway restart, which cuts none",
        )


# --- limits ---------------------------------------------------------------------------


def check_limits(facts: Facts) -> Iterator[Finding]:
    """Limits that never apply, and those that cannot be met."""
    config = facts.config
    if config is None:
        return
    yield from _shares(config, max(len(config.user), len(facts.inside.users)))
    for where, limits in _all_limits(config):
        if limits.max_queued and limits.queue_timeout_s < 1:
            yield Finding(
                "limits",
                "No request that has to wait is ever served",
                f"queue_timeout_s of {where} is {limits.queue_timeout_s:g} s, though "
                f"{limits.max_queued} may wait",
                "queue_timeout_s = 30.0, or max_queued = 0 to refuse at once",
            )
    yield from _budgets(config)
    if config.server.max_body_bytes < SHORT_BODY_BYTES:
        yield Finding(
            "limits",
            "Long conversations end with 413, and the client cannot mend that",
            f"server.max_body_bytes is {config.server.max_body_bytes}; a conversation "
            "with pictures is sent whole with each turn",
            "max_body_bytes = 67108864 in [server]",
        )


def _shares(config: Config, users: int) -> Iterator[Finding]:
    """Whether one user can hold all there is."""
    accounts = [one for one in config.account if not one.embedded]
    slots = sum(one.max_concurrent for one in accounts)
    if users < 2 or not accounts or not all(one.max_concurrent for one in accounts):
        return
    for where, limits in _all_limits(config):
        most = limits.max_concurrent
        if most and most <= slots:
            continue
        yield Finding(
            "limits",
            "One user can hold every slot of every account, and all others wait",
            f"max_concurrent of {where} is {most or '0, which is no limit'}, and the "
            f"accounts have {slots} slots in all",
            f"max_concurrent = {max(1, slots // 2)}, or more slots (max_concurrent of "
            "[[account]])",
        )


def _budgets(config: Config) -> Iterator[Finding]:
    for user in config.user:
        day, month = user.budget.usd_per_day, user.budget.usd_per_month
        if month and day > month:
            yield Finding(
                "limits",
                f"The daily budget of {user.name} never counts: the month's is used "
                "up first",
                f"usd_per_day is {day:g}, and usd_per_month {month:g}",
                f"usd_per_day = {month / 20:.2f} in [user.budget]",
            )


CHECKS: tuple[Check, ...] = (
    check_mistakes,
    check_exposure,
    check_timeouts,
    check_limits,
)
