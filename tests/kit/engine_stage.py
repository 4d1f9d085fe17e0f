"""Two nodes at one engine, for tests of the scripts."""

from __future__ import annotations

from typing import Any

from gateway.shared import steps
from gateway.shared.answers import Outcome, Push
from gateway.shared.steps import LeaseReport
from tests.kit.engine_client import EngineClient

LIMITS = [("uu", 2), ("uv", 2), ("aA", 1), ("aB", 1)]


class Stage(EngineClient):
    """An engine with the nodes n and m, that listens for both."""

    def begin(self, *nodes: str) -> None:
        for node in nodes:
            self.listen(node)
            self.run(steps.beat(node, 0, join=True))
        self.conf(*LIMITS)

    def conf(self, *limits: tuple[str, int | None]) -> None:
        for step in steps.conf("n", "c1", limits):
            assert self.run(step) == 1

    def user(self, lease: str, user: str = "u", **more: Any) -> Any:
        return self.run(steps.enter_user(lease, user, 9, **more))

    def account(self, lease: str, *names: str) -> Any:
        names = names or ("A",)
        return self.run(steps.enter_account(lease, [names], names, 9))

    def both(self, lease: str, user: str = "u") -> None:
        assert self.user(lease, user).outcome is Outcome.GRANTED
        assert self.account(lease).outcome is Outcome.GRANTED

    def resync(self, node: str, *reports: LeaseReport) -> list[Any] | None:
        news: list[Any] = []
        for step in steps.resync(node, reports):
            found = self.run(step)
            if found is None:
                return None
            news += found
        return news

    def number(self, field: str, change: int) -> None:
        key = f"{{{self.prefix}}}:lim"
        old = int(self.command("HGET", key, field) or 0)
        self.command("HSET", key, field, old + change)

    def leap(self, us: int) -> None:
        """As if the engine's clock had leapt by so much since the last beat."""
        self.number("!clock", -us)
        self.number("!shift", us)

    def time_passes(self, us: int) -> None:
        """As if so much time had passed since everything that was done."""
        self.number("!shift", us)

    def state(self) -> dict[str, Any]:
        """All that is stored but for what each beat writes."""
        found = self.keys()
        found["lim"] = {
            key: value
            for key, value in found.get("lim", {}).items()
            if key not in (b"!clock", b"!shift", b"!turn")
        }
        found["nodes"] = {one[0] for one in found.get("nodes", [])}
        return found


def granted(pushes: list[Push]) -> list[tuple[str, str]]:
    return [(push.kind, push.lease) for push in pushes]
