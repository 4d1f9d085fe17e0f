"""``python -m tests.chaos``: run, print what was found, keep the logs of a bad run."""

from __future__ import annotations

import argparse
import asyncio
import os
import pickle
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.figures import conserving
from tests.chaos.judge import judge
from tests.chaos.report import report
from tests.chaos.run import run
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.stage import ACCOUNTS


def main(words: list[str] | None = None) -> int:
    """Run, and return 1 if anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6)
    )
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1, help="of each node")
    parser.add_argument("--only", nargs="*", choices=list(KINDS), default=[])
    parser.add_argument("--schedule", action="store_true", help="print it alone")
    args = parser.parse_args(words)
    seconds = 60 * args.minutes
    faults = schedule(args.seed, seconds, args.nodes, tuple(args.only))
    print(f"seed {args.seed}, {len(faults)} faults in {seconds:.0f} s", flush=True)
    if args.schedule:
        print("\n".join(fault.shown for fault in faults))
        return 0
    if not (shutil.which("valkey-server") or shutil.which("redis-server")):
        print("not found: valkey-server or redis-server", file=sys.stderr)
        return 1
    os.nice(5)
    folder = Path(tempfile.mkdtemp(prefix="gateway-chaos-"))
    journal = asyncio.run(
        run(
            folder,
            faults,
            seconds=seconds,
            seed=args.seed,
            nodes=args.nodes,
            workers=args.workers,
            say=lambda line: print(line, flush=True),
        )
    )
    violations = [*judge(journal), *conserving(journal, tuple(ACCOUNTS))]
    print("\n".join(report(journal, violations)))
    if violations:
        (folder / "journal.pickle").write_bytes(pickle.dumps(journal))
        print(f"the logs, the ledger and the journal are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
