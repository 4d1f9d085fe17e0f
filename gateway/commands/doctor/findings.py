"""Every check of ``gateway doctor``, in the order in which findings are shown."""

from __future__ import annotations

from gateway.commands.doctor import (
    check_accounts,
    check_config,
    check_daemon,
    check_host,
    check_past,
    check_through,
    check_unit,
)
from gateway.commands.doctor.facts import Check, Facts, Finding

CHECKS: tuple[Check, ...] = (
    *check_config.CHECKS,
    *check_daemon.CHECKS,
    *check_host.CHECKS,
    *check_unit.CHECKS,
    *check_through.CHECKS,
    *check_accounts.CHECKS,
    *check_past.CHECKS,
)


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that is wrong, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(facts)]
