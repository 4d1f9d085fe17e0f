"""Checks of the last day in the ledger: what went wrong already, and will again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.commands.doctor.facts import Check, Facts, Finding

FEW = 3  # as many may be a mistake of somebody's fingers
IN_VAIN_SHARE = 0.02  # of a day's requests
MIN_IN_VAIN = 10
FAILED_SHARE = 0.2  # of an account's attempts
MIN_ATTEMPTS = 20
OWN_FAULTS = {
    "crashed": (
        "Requests are lost with the process that served them",
        "the log before worker.ended or the end of the daemon: memory, a signal",
    ),
    "internal_error": (
        "Requests fail by a fault of the gateway",
        "request.crashed in the log has the traceback: report it",
    ),
    "ledger_unavailable": (
        "Requests are refused while the ledger cannot be written",
        "ledger.failed in the log says why: disk, permissions, the database",
    ),
    "gateway_overloaded": (
        "Requests are refused for want of files, memory or ports",
        "resources.exhausted in the log says of what: LimitNOFILE, memory",
    ),
    "gateway_shutdown": (
        "Answers are cut by a stop",
        "a longer server.drain_timeout_s and TimeoutStopSec, or gateway restart",
    ),
}


def check_models(facts: Facts) -> Iterator[Finding]:
    asked = {
        model: count
        for model, count in facts.past.absent_models.items()
        if count >= FEW
    }
    if asked:
        first = next(iter(_largest(asked)))
        yield Finding(
            "models",
            "Clients that ask for these models get 404",
            f"no account serves {_counts(asked)} (requests of the last day)",
            f'models = [..., "{first}"], or rename = {{ "{first}" = "…" }} in an '
            "[[account]]",
        )


def check_waits(facts: Facts) -> Iterator[Finding]:
    past, count = facts.past, sum(facts.past.in_vain.values())
    if count >= MIN_IN_VAIN and count >= IN_VAIN_SHARE * past.requests:
        yield Finding(
            "limits",
            "Users wait in vain: their requests are refused in the queue",
            f"{count} of the {past.requests} requests of the last day "
            f"({_counts(past.in_vain)})",
            "max_concurrent of the user or the accounts (gateway plan --set … says "
            "what would help), or queue_timeout_s",
        )


def check_failures(facts: Facts) -> Iterator[Finding]:
    past = facts.past
    for account in facts.config.account if facts.config else ():
        name, failures = account.name, past.failures.get(account.name, {})
        attempts, count = past.attempts.get(name, 0), sum(failures.values())
        if attempts >= MIN_ATTEMPTS and count >= FAILED_SHARE * attempts:
            yield Finding(
                f"account {name}",
                "Requests are late, or fail, because it fails first",
                f"{count} of its {attempts} attempts of the last day failed "
                f"({_counts(failures)})",
                f"gateway account test {name}; gateway trace --failed --since 24h",
            )
    for code, (what, change) in OWN_FAULTS.items():
        if count := past.codes.get(code, 0):
            yield Finding(
                "requests",
                what,
                f"{count} of the last day ended with {code}",
                change,
            )


def check_prices(facts: Facts) -> Iterator[Finding]:
    users = facts.config.user if facts.config else ()
    budgets = [
        one.name for one in users if one.budget.usd_per_day or one.budget.usd_per_month
    ]
    if facts.past.unpriced and budgets:
        yield Finding(
            "budgets",
            f"The budget of {budgets[0]} never ends for these models",
            f"no price is known of {_counts(facts.past.unpriced)} (requests of the "
            "last day)",
            "[account.price] with input, cached and output of the [[account]]",
        )


def _largest(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:FEW])


def _counts(counts: Mapping[str, int]) -> str:
    named = _largest(counts)
    more = ", …" if len(counts) > len(named) else ""
    return ", ".join(f"{name} {count}" for name, count in named.items()) + more


CHECKS: tuple[Check, ...] = (
    check_models,
    check_waits,
    check_failures,
    check_prices,
)
