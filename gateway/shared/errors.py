"""What can go wrong with the engine. None of it is ever a request's failure."""

from __future__ import annotations


class EngineLost(Exception):
    """
    The engine is away: its connection broke, it did not answer in time, or it cannot
    write. The message says which, for the log; it holds no password.
    """


class EngineRefused(EngineLost):
    """The engine answers, and does not let us in, or cannot do what is needed."""
