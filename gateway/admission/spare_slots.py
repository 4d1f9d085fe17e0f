"""
The slots that the engine has set aside for this node.

Without the engine a node uses what it has then, and these. An engine gives what is set
aside to another node only after this one has given it back, so all nodes together never
have more than the limit, at whatever moment each of them loses the engine.

Rule: this node never believes that it has more than the engine has set aside. What was
      drawn or given back since a beat was sent is not in that beat's answer.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_KNOWN = 2000
"""Gates that slots are set aside at: one more has an equal part of its limit, which is
not exact."""


class SpareSlots:
    """By gate. A *question* is the number of a beat."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._asked = 0
        self._changed: dict[str, int] = {}  # the last question before
        self._forgot = 0

    def of(self, gate: str) -> int | None:
        """How many there are; None if it was never said."""
        return self._known.get(gate)

    def question(self) -> int:
        """The number of the beat that is sent now."""
        self._asked += 1
        return self._asked

    def heard(self, question: int, gate: str, count: int) -> None:
        """The answer to a beat."""
        if question > max(self._forgot, self._changed.get(gate, 0)):
            if gate in self._known or len(self._known) < MAX_KNOWN:
                self._known[gate] = count
                self._changed.pop(gate, None)

    def drawn(self, gate: str) -> None:
        """A request of this node got one: it is in use now."""
        self._known[gate] = max(0, self._known.get(gate, 0) - 1)

    def give_back(self, gate: str, keep: int = 0) -> None:
        """They are other nodes' now, but for *keep*."""
        self._known[gate] = min(keep, self._known.get(gate, 0))
        self._changed[gate] = self._asked

    def forget(self) -> None:
        """Whatever is set aside now, it is not known how much."""
        self._known = dict.fromkeys(self._known, 0)
        self._changed.clear()
        self._forgot = self._asked

    def keep_only(self, gates: Iterable[str]) -> None:
        """There are no other gates any more."""
        exist = set(gates)
        self._known = {g: n for g, n in self._known.items() if g in exist}

    def missing(self, gates: Iterable[str], most: int) -> list[str]:
        """Some of *gates* where there is nothing, at most *most*."""
        if len(self._known) >= MAX_KNOWN:
            gates = [gate for gate in gates if gate in self._known]
        return [gate for gate in gates if not self._known.get(gate)][:most]
