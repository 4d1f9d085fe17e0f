"""What a node has and what the engine says to it, as the membership sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.shared.answers import GateCount, LeaseNews, Push
from gateway.shared.steps import LeaseReport


class GateQuestion(NamedTuple):
    """
    What a beat asks.

    Attributes:
        gates: those whose loads the answer brings.
        number: of the question; it grows.
        held: slots of this node then, by gate.
    """

    gates: Sequence[str]
    number: int = 0
    held: Mapping[str, int] = {}


class NodeBook(Protocol):
    """
    What a node holds, and hears from the engine. Its many methods are the occasions on
    which the membership asks or says something.
    """

    def reports(self) -> Sequence[LeaseReport]:
        """Every lease."""

    def lease_count(self) -> int:
        """How many leases the engine must have."""

    def question(self) -> GateQuestion:
        """What the next beat asks."""

    def limits(self) -> Sequence[tuple[str, int | None]]:
        """Every gate with its limit."""

    def joined(self) -> None:
        """From here on the engine decides."""

    def lost(self) -> None:
        """From here on this node decides alone."""

    def counted(self) -> None:
        """While the engine is away: other nodes live now than before."""

    def corrected(self, news: Sequence[LeaseNews]) -> None:
        """The engine knows better."""

    def pushed(self, push: Push) -> None:
        """A slot was granted, or a drain must end."""

    def recalled(self, gate: str, keep: int) -> None:
        """Others need what is set aside for this node at *gate*, but for *keep*."""

    def repeated(self) -> None:
        """Steps were taken twice, and the first answers are lost."""

    def all_said(self) -> None:
        """The engine hears now what this node has: nothing is set aside any more."""

    def beaten(self, question: GateQuestion, counts: Sequence[GateCount]) -> None:
        """A beat was answered."""
