"""
How the limits pass from a process that leaves to the one that follows it.

    leaving                                   following
    ``LimitLeaver``                           ``LimitHeir``
      begin: what it has, what it needs  ───▶   as much is elsewhere
      needs less: keeps less, says so    ───▶   has so much more
      needs more: asks                   ───▶   gives what is free, at once or when a
      takes it                           ◀───   slot is released, before its own waiters

Rule 1: the leaving one never uses more than the following one counts as elsewhere.
Rule 2: an answer to anything but the latest question is ignored: by then the other has
        counted it back.

It knows no sockets; messages are JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.admission.overlap import Gate, OverlapRegistry

Send = Callable[[dict[str, Any]], object]


def _text(gate: Gate) -> str:
    return f"{gate[0]}:{gate[1]}"


def _gate(text: str) -> Gate:
    scope, _, name = text.partition(":")
    return scope, name


class LimitLeaver:
    """
    The side of the process that leaves.

    Args:
        send: to the process that follows.
    """

    def __init__(self, registry: OverlapRegistry, send: Send) -> None:
        self._registry = registry
        self._send = send
        self._has: dict[Gate, int] = {}
        self._asked: dict[Gate, tuple[int, int]] = {}  # number of the question, needs
        self._number = 0

    def begin(self) -> dict[str, Any]:
        """Keep what is needed; returns what the other must know before it begins."""
        needs = self._registry.needs()
        for gate, need in needs.items():
            limit, there = self._limit(gate)
            self._has[gate] = min(need, max(0, limit - there)) if limit else need
            self._asked[gate] = 0, need
        self._apply()
        return {
            "has": {_text(gate): n for gate, n in self._has.items()},
            "needs": {_text(gate): n for gate, n in needs.items()},
        }

    def look(self) -> None:
        """Give away what is not needed any more; ask for what is."""
        needs = self._registry.needs()
        changed: dict[str, int] = {}
        for gate in needs.keys() | self._asked.keys():
            need = needs.get(gate, 0)
            if self._asked.get(gate, (0, 0))[1] != need:
                changed[_text(gate)] = need
        self._number += bool(changed)
        for text, need in changed.items():
            gate = _gate(text)
            self._asked[gate] = self._number, need
            self._has[gate] = min(self._has.get(gate, 0), need)
        self._apply()
        if changed:
            self._send({"needs": changed, "number": self._number})

    def answered(self, message: dict[str, Any]) -> None:
        """The other has given something."""
        for text, (number, has) in message["gives"].items():
            gate = _gate(text)
            latest, need = self._asked.get(gate, (0, 0))
            if number == latest:
                self._has[gate] = min(has, need)
        self._apply()

    def _apply(self) -> None:
        for scope, table in self._registry.tables.items():
            for name, limiter in list(table.limiters.items()):
                has = self._has.get((scope, name), 0)
                if limiter.limit:
                    table.set_elsewhere(name, max(0, limiter.limit - has))

    def _limit(self, gate: Gate) -> tuple[int, int]:
        table = self._registry.tables[gate[0]]
        limiter = table.limiters.get(gate[1])
        return (limiter.limit if limiter else 0), table.elsewhere.get(gate[1], 0)


class LimitHeir:
    """
    The side of the process that follows, for all that leave.

    Their order is that in which they are named: who began to leave first comes first.
    """

    def __init__(self, registry: OverlapRegistry) -> None:
        self._registry = registry
        self._open = self._stopped = False
        self._sends: dict[int, Send] = {}
        self._has: dict[int, dict[Gate, int]] = {}
        self._needs: dict[int, dict[Gate, tuple[int, int]]] = {}
        for scope, table in registry.tables.items():
            table.yielded = lambda name, scope=scope: self._yielded((scope, name))

    def begin(self, leaver: int, message: dict[str, Any], send: Send) -> None:
        """*leaver* says what it has and needs; nothing is granted before ``open``."""
        self._sends[leaver] = send
        self._has[leaver] = {_gate(k): n for k, n in message["has"].items()}
        needs = {_gate(k): (0, n) for k, n in message["needs"].items()}
        self._needs[leaver] = needs
        self._settle_all()

    def open(self) -> None:
        """All have begun: give what is free, first to them."""
        self._open = True
        self._settle_all()

    def _settle_all(self) -> None:
        gives: dict[int, set[Gate]] = {}
        gates: set[Gate] = set().union(*self._has.values(), *self._needs.values())
        for gate in gates:
            self._settle(gate, gives)
        self._answer(gives)

    def asked(self, leaver: int, message: dict[str, Any]) -> None:
        """*leaver* needs more or less than before."""
        if self._stopped:
            return
        gives: dict[int, set[Gate]] = {leaver: set()}
        for text, need in message["needs"].items():
            gate = _gate(text)
            self._needs[leaver][gate] = message["number"], need
            has = self._has[leaver]
            has[gate] = min(has.get(gate, 0), need)
            gives[leaver].add(gate)
            self._settle(gate, gives)
        self._answer(gives)

    def gone(self, leaver: int) -> None:
        """*leaver* has ended: it has and needs nothing."""
        if self._stopped:
            return
        gates = self._has.pop(leaver, {}).keys() | self._needs.pop(leaver, {}).keys()
        self._sends.pop(leaver, None)
        gives: dict[int, set[Gate]] = {}
        for gate in gates:
            self._settle(gate, gives)
        self._answer(gives)

    def moved(self, leaver: int) -> None:
        """
        *leaver* goes on with another process that follows. What it has stays counted
        here: this process leaves, too, and says so to the same one.
        """
        self._sends.pop(leaver, None)
        for gate in self._needs.pop(leaver, {}):
            self._needs_less(gate)

    def stop(self) -> None:
        """This process leaves: from now on another one gives."""
        self._stopped = True
        for table in self._registry.tables.values():
            table.wished.clear()

    def _needs_less(self, gate: Gate) -> None:
        scope, name = gate
        missing = [
            max(0, needs.get(gate, (0, 0))[1] - self._has[leaver].get(gate, 0))
            for leaver, needs in self._needs.items()
        ]
        self._registry.tables[scope].wished[name] = sum(missing)

    def _settle(self, gate: Gate, gives: dict[int, set[Gate]]) -> None:
        """Count what is elsewhere at *gate*, and give what is free and wished."""
        scope, name = gate
        table = self._registry.tables[scope]
        limiter = table.limiters.get(name)
        unlimited = limiter is None or not limiter.limit
        taken = len(limiter.slots) if limiter else 0
        taken += sum(has.get(gate, 0) for has in self._has.values())
        room = max(0, (limiter.limit if limiter else 0) - taken)
        wished = 0
        for leaver, needs in self._needs.items():
            has = self._has[leaver]
            missing = needs.get(gate, (0, 0))[1] - has.get(gate, 0)
            given = missing if unlimited else min(missing, room)
            given = given if self._open else 0
            if given > 0:
                room -= given
                has[gate] = has.get(gate, 0) + given
                gives.setdefault(leaver, set()).add(gate)
            wished += max(0, missing - max(0, given))
        table.wished[name] = wished
        table.set_elsewhere(name, sum(has.get(gate, 0) for has in self._has.values()))

    def _yielded(self, gate: Gate) -> None:
        """A slot was released here that a leaver waits for."""
        for leaver, needs in self._needs.items():
            has = self._has[leaver]
            if needs.get(gate, (0, 0))[1] > has.get(gate, 0):
                has[gate] = has.get(gate, 0) + 1
                self._answer({leaver: {gate}})
                return

    def _answer(self, gives: dict[int, set[Gate]]) -> None:
        for leaver, gates in gives.items():
            if gates and leaver in self._sends:
                needs, has = self._needs[leaver], self._has[leaver]
                given = {
                    _text(gate): (needs.get(gate, (0, 0))[0], has.get(gate, 0))
                    for gate in gates
                }
                self._sends[leaver]({"gives": given})
