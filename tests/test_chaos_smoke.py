"""A few seconds of what ``make chaos`` does for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.judge import judge
from tests.chaos.run import run
from tests.chaos.schedule import Fault
from tests.kit.engine import engine_binary

FAULTS = [
    Fault(0.4, "link-slow", 0.5, 0, 0.3),
    Fault(0.8, "worker-stopped", 0.3, 1, 0.5),
    Fault(1.2, "reload", 0.3, -1, 0.2),
]
TIMED = ("order", "wait")  # a busy machine alone may violate them


@pytest.mark.timeout(120)
async def test_two_nodes_keep_every_rule_under_small_faults(tmp_path: Path) -> None:
    engine_binary()
    journal = await run(tmp_path, FAULTS, seconds=2.0, seed=1, nodes=2)

    assert [] == [one for one in judge(journal) if one.rule not in TIMED]
    assert {one.kind for one in FAULTS} == {one.kind for one in journal.windows}
    assert {"ok", "left"} <= {one.ending for one in journal.asked}
    assert {0, 1} == {one.node for one in journal.served}
