"""What an operator's client reads when the admin API refuses something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ConfigMistake:
    """One mistake in the config: the key's path, and what is wrong with it."""

    path: str
    message: str

    @classmethod
    def of(cls, text: str) -> ConfigMistake:
        """The mistake that ``ConfigError`` writes as ``path: message``."""
        path, _, message = text.partition(":")
        return cls(path, message.strip())


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """
    Attributes:
        field: the field of the request that is wrong.
        mistakes: of a config that was refused.
    """

    code: str
    message: str
    field: str | None = None
    mistakes: list[ConfigMistake] | None = None


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """Every answer with a status from 400 on."""

    error: ErrorFacts


class AdminError(Exception):
    """
    A refusal.

    Args:
        status: the HTTP status.
        code: stable snake_case.
        field: the field of the request that is wrong.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        mistakes: list[ConfigMistake] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.facts = ErrorFacts(code, message, field, mistakes)

    @property
    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        facts = self.facts
        error: dict[str, Any] = {"code": facts.code, "message": facts.message}
        if facts.field is not None:
            error["field"] = facts.field
        if facts.mistakes is not None:
            error["mistakes"] = facts.mistakes
        return {"error": error}


def not_found(message: str) -> AdminError:
    """404: what the path names is not there."""
    return AdminError(404, "not_found", message)


def invalid(field: str, message: str) -> AdminError:
    """400: a field of the request is wrong."""
    return AdminError(400, "invalid_request", f"{field} {message}", field=field)
