"""Checks of the accounts: their addresses, the way to them, what they said last."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.commands.doctor.facts import Check, Facts, Finding, WayFacts
from gateway.config.schema import Account
from gateway.protocols import PROTOCOLS

DAY_S = 86400.0
CERTIFICATE_S = 14 * DAY_S
A_PERSON_MUST_ACT = {
    "quota": "the provider's console: credit, or the limit of the account",
    "refused": "its api_key, then: gateway account reset {name}",
    "no_model": "models or rename of the [[account]] named {name}",
}
PRIVATE_ENDS = (".local", ".lan", ".internal", ".localdomain", ".home.arpa")


def check_addresses(facts: Facts) -> Iterator[Finding]:
    for account in facts.config.account if facts.config else ():
        if not account.embedded:
            yield from _address(account)


def _address(account: Account) -> Iterator[Finding]:
    part, parts = f"account {account.name}", urlsplit(account.base_url)
    host, path = parts.hostname or "", parts.path.rstrip("/")
    ends = [end for end in _request_paths() if path.endswith(end)]
    known = {
        name: wire.known_servers[host]
        for name, wire in PROTOCOLS.items()
        if host in wire.known_servers
    }
    if ends or "/v1/v1" in path:
        wrong = ends[0] if ends else "/v1"
        base = account.base_url.rstrip("/").removesuffix(wrong)
        yield Finding(
            part,
            "Every request there fails with 404",
            f"its base_url is {account.base_url}, and the gateway adds the path "
            "behind /v1 itself",
            f'base_url = "{base}"',
        )
    elif known and account.protocol not in known:
        yield Finding(
            part,
            "Every request there fails with 404",
            f"{host} does not speak {account.protocol}",
            f'protocol = "{next(iter(known))}"',
        )
    elif known and path != known[account.protocol]:
        yield Finding(
            part,
            "Every request there fails with 404",
            f"its base_url is {account.base_url}",
            f'base_url = "https://{host}{known[account.protocol]}"',
        )
    if parts.scheme == "http" and not is_private(host):
        yield Finding(
            part,
            "Its key and what people write cross the network in clear text",
            f"its base_url is {account.base_url}",
            f'base_url = "https{account.base_url[4:]}"',
        )


def _request_paths() -> tuple[str, ...]:
    """What the gateway adds to a ``base_url``."""
    return (*(wire.path for wire in PROTOCOLS.values()), "/models")


def is_private(host: str) -> bool:
    """Whether *host* is of this machine or its own network, by its name."""
    try:
        address = ipaddress.ip_address(host)
        return address.is_private or address.is_loopback or address.is_link_local
    except ValueError:
        return "." not in host or host.endswith(PRIVATE_ENDS)


def check_pool(facts: Facts) -> Iterator[Finding]:
    """Accounts that are in each other's way."""
    accounts = facts.config.account if facts.config else ()
    real = [one for one in accounts if not one.embedded]
    for one in accounts:
        wide = [model for model in one.models if not model.startswith("trial")]
        if one.embedded and real and wide:
            yield Finding(
                f"account {one.name}",
                "Requests for real models are answered by an echo of the prompt",
                f"the trial account serves {', '.join(wide)}, beside {real[0].name}",
                'models = ["trial", "trial-*"]',
            )
    twins = Counter(
        (one.base_url.rstrip("/"), one.api_key)
        for one in real
        if one.api_key and one.api_key not in facts.absent.values()
    )
    for (url, key), count in twins.items():
        names = [
            one.name
            for one in real
            if (one.base_url.rstrip("/"), one.api_key) == (url, key)
        ]
        if count > 1 and not facts.absent:
            yield Finding(
                f"account {names[0]}",
                "When the provider limits the one, the gateway asks the other in "
                "vain, and their slots add up to more than was meant",
                f"{' and '.join(names)} have the same base_url and key",
                "one [[account]] with the slots of both, or a key for each",
            )


def check_ways(facts: Facts) -> Iterator[Finding]:
    for name, way in facts.ways.items():
        if way.step and facts.accounts.get(name, "") == "":
            yield Finding(
                f"account {name}",
                "Requests that it fits go to other accounts, or fail",
                _way(way),
                f"base_url of the [[account]] named {name}, or this machine's "
                + {"name": "DNS", "connect": "network or firewall"}.get(
                    way.step, "certificates (SSL_CERT_FILE)"
                ),
            )
        left_s = way.certificate_s
        if left_s is not None and left_s < CERTIFICATE_S:
            yield Finding(
                f"account {name}",
                "From then on no request there succeeds",
                f"the certificate of its server ends in {left_s / DAY_S:.0f} days",
                "renew it on that server",
            )


def _way(way: WayFacts) -> str:
    said = {"name": "its name is not found", "connect": "it cannot be connected to"}
    return f"{said.get(way.step, 'TLS with it fails')}: {way.detail}"


def check_states(facts: Facts) -> Iterator[Finding]:
    """Accounts that are out until a person acts."""
    for one in facts.inside.accounts:
        reason = str(one["reason"])
        if one["state"] != "cooling" or reason not in A_PERSON_MUST_ACT:
            continue
        yield Finding(
            f"account {one['name']}",
            "It stays out, and the others carry its share",
            f"it is cooling down: {reason}",
            A_PERSON_MUST_ACT[reason].format(name=one["name"]),
        )


def check_tests(facts: Facts) -> Iterator[Finding]:
    for name, problem in facts.accounts.items():
        if problem:
            yield Finding(
                f"account {name}",
                "Requests that it fits go to other accounts, or fail",
                problem,
                f"the [[account]] named {name} in the config",
            )


CHECKS: tuple[Check, ...] = (
    check_addresses,
    check_pool,
    check_ways,
    check_states,
    check_tests,
)
