"""What a run has shown, as text: figures first, then each violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.chaos.figures import (
    hand_offs,
    most_at_once,
    quantile,
    recoveries,
    use,
)
from tests.chaos.journal import Journal
from tests.chaos.judge import Violation
from tests.chaos.stage import ACCOUNTS, USERS

SHOWN = 12  # violations of one rule that are printed


def report(journal: Journal, violations: list[Violation]) -> Iterator[str]:
    """The lines of the report."""
    endings = Counter(one.ending or "hung" for one in journal.asked)
    yield f"requests: {len(journal.asked)}; endings: {dict(endings.most_common())}"
    for scope, names in (("account", ACCOUNTS), ("user", USERS)):
        for name, limit in names.items():
            most, strict = (
                most_at_once(journal, scope, name, strict=one) for one in (False, True)
            )
            yield f"{scope} {name}: limit {limit}, most {strict}, with fenced {most}"
    for calm in (True, False):
        found = use(journal, tuple(ACCOUNTS), calm=calm)
        yield (
            f"slots used while anybody waited, {'in calm' if calm else 'in all'}:"
            f" {found.used:.1%} (all of them {found.full:.1%}"
            f" of {found.waited_s:.0f} s)"
        )
    yield from _times(journal)
    yield f"shown above a limit: {len(journal.over)} times in the metrics"
    rules = Counter(one.rule for one in violations)
    yield f"violations: {dict(rules) or 'none'}"
    for rule in rules:
        for one in [one for one in violations if one.rule == rule][:SHOWN]:
            at = one.at - journal.begin
            yield f"  {rule} at {at:.2f} s: {one.evidence}; near: {list(one.near)}"


def _times(journal: Journal) -> Iterator[str]:
    found = [one for name in ACCOUNTS for one in hand_offs(journal, name)]
    for across, where in ((True, "between processes"), (False, "in one process")):
        ms = [1000 * wait_s for wait_s, other in found if other is across]
        yield (
            f"hand-off {where}: n {len(ms)}, p50 {quantile(ms, 0.5):.1f} ms,"
            f" p99 {quantile(ms, 0.99):.1f} ms"
        )
    for kind, wait_s in recoveries(journal, tuple(ACCOUNTS)):
        yield f"slots back after {kind}: {wait_s:.3f} s"
    began = {one.ident: one.began for one in reversed(journal.served)}
    waits = [
        began[one.ident] - one.at
        for one in journal.asked
        if not one.in_line and one.ident in began
    ]
    yield (
        f"wait with slots free: p50 {quantile(waits, 0.5):.3f} s,"
        f" p99 {quantile(waits, 0.99):.3f} s, most {max(waits, default=0.0):.3f} s"
    )
